// Where a line leaves its class, from log p_j along it, which are quadratics in tau.
#pragma once

#include "team.hpp"

namespace mfakit {

// Points at which an interval is looked at, and the relative width at which it is narrow enough.
constexpr int crossing_grid = 33;
constexpr double crossing_width = 1e-13;

struct DensityLine {
  const double *log_prob, *slope, *curve;  // [K] at x, and derivatives along u
  const index_t* first;                    // [C + 1] where each class's components begin
  index_t n_classes, cls;
  double sign;  // 1: flips are decided for another class than cls; -1: for cls
};

// log of a class's density at tau; -inf if no component of it occurs.
MFAKIT_HD double log_total(const DensityLine& r, double tau, index_t c) {
  double top = -infinity_(), sum = 0.0;
  for (index_t j = r.first[c]; j < r.first[c + 1]; ++j) {
    top = larger(top, r.log_prob[j] + tau * r.slope[j] + 0.5 * tau * tau * r.curve[j]);
  }
  if (top == -infinity_()) return top;
  for (index_t j = r.first[c]; j < r.first[c + 1]; ++j) {
    sum += exp_(r.log_prob[j] + tau * r.slope[j] + 0.5 * tau * tau * r.curve[j] - top);
  }
  return top + log_(sum);
}

MFAKIT_HD bool is_flip(const DensityLine& r, double tau) {
  double others = -infinity_();
  for (index_t c = 0; c < r.n_classes; ++c) {
    if (c != r.cls) others = larger(others, log_total(r, tau, c));
  }
  return r.sign * (others - log_total(r, tau, r.cls)) > 0.0;
}

// The first flip among tau [n], and from there on among ever closer points before it; infinite if none of them is one.
MFAKIT_HD double first_crossing(const DensityLine& r, const double* tau, index_t n) {
  index_t i = 0;
  while (i < n && !is_flip(r, tau[i])) ++i;
  if (i == n) return infinity_();
  double low = tau[i > 0 ? i - 1 : 0], high = tau[i];
  while (high - low > crossing_width * high) {
    const double start = low, width = (high - low) / double(crossing_grid - 1), end = high;
    int k = 0;
    while (k < crossing_grid - 1 && !is_flip(r, start + double(k) * width)) ++k;
    high = k < crossing_grid - 1 ? start + double(k) * width : end;
    low = k > 0 ? start + double(k - 1) * width : start;
    if (k == 0) break;
  }
  return high;
}

}  // namespace mfakit
