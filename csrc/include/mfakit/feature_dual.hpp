// The Lagrangian of feature_problem.hpp at one lambda: its minimiser, its value and its derivatives.
#pragma once

#include "feature_problem.hpp"

namespace mfakit {

// log of lambda_i's share within its class; 0 where lambda_i is.
MFAKIT_HD double log_share(const FeatureDual& L, const double* lambda /*[m]*/, index_t i) {
  if (!(lambda[i] > 0.0)) return 0.0;
  double total = 0.0;
  for (index_t k = 0; k < L.m; ++k) total += L.cls[k] == L.cls[i] ? lambda[k] : 0.0;
  return log_(lambda[i] / total);
}

// L.P and L.total_b at lambda [m].
MFAKIT_HD void set_lambda(FeatureDual& L, const double* lambda) {
  const index_t d = L.d;
  double total = 0.0;
  for (index_t f = 0; f < d; ++f) {
    L.P.e[f] = L.P.terms[f] = 1.0;
    L.P.spread[f] = L.total_b[f] = 0.0;
  }
  for (index_t i = 0; i < L.m; ++i) {
    const double weight = lambda[i];
    const double* const change = L.change + i * d;
    const double* const b = L.b + i * d;
    total += weight;
    MFAKIT_SIMD
    for (index_t f = 0; f < d; ++f) {
      const double term = weight * change[f];
      L.P.e[f] += term;
      L.P.terms[f] += fabs_(term);
      L.total_b[f] += weight * b[f];
    }
  }
  for (index_t j = 0; j < L.members; ++j) {
    const double weight = L.scale[j] * (j < L.m ? lambda[j] : total), root = sqrt_(weight);
    const double* const squares = L.squares + j * d;
    for (index_t r = L.first[j]; r < L.first[j + 1]; ++r) L.P.root[r] = root;
    MFAKIT_SIMD
    for (index_t f = 0; f < d; ++f) L.P.spread[f] += weight * squares[f];
  }
}

// What the rows make of x: |W_j x|^2 with its sign and scale, of source i and all targets, from y = row . x.
MFAKIT_HD double low_rank_curve(const FeatureDual& L, index_t i, const double* y /*[n_rows]*/) {
  double curve = 0.0;
  for (index_t j = 0; j < L.members; ++j) {
    if (j < L.m && j != i) continue;
    double sum = 0.0;
    for (index_t r = L.first[j]; r < L.first[j + 1]; ++r) sum += y[r] * y[r];
    curve += (j < L.m ? -L.scale[j] : L.scale[j]) * sum;
  }
  return curve;
}

// x^T H_i x, from y = row . x.
MFAKIT_HD double curve_along(const FeatureDual& L, index_t i, const double* x /*[d]*/, const double* y) {
  const double* const change = L.change + i * L.d;
  double sum = 0.0;
  MFAKIT_SIMD_SUM(sum)
  for (index_t f = 0; f < L.d; ++f) sum += change[f] * x[f] * x[f];
  return low_rank_curve(L, i, y) - sum;
}

// out [d] := the gradient of q_i at delta, from y = row . delta; scratch [n_rows].
MFAKIT_HD void slope_of(const FeatureDual& L, index_t i, const double* delta, const double* y, double* scratch,
                        double* out) {
  for (index_t f = 0; f < L.d; ++f) out[f] = L.b[i * L.d + f] - L.change[i * L.d + f] * delta[f];
  for (index_t j = 0; j < L.members; ++j) {
    if (j < L.m && j != i) continue;
    for (index_t r = L.first[j]; r < L.first[j + 1]; ++r) {
      scratch[r] = (j < L.m ? -L.scale[j] : L.scale[j]) * y[r];
    }
    add_rows(L.P.row + L.first[j], L.first[j + 1] - L.first[j], scratch + L.first[j], L.d, out);
  }
}

// The minimiser of 1/2 delta^T P delta - b^T delta over all delta, and b^T P^-1 b from above; false where P is not
// positive definite.
MFAKIT_HD bool least_anywhere(FeatureDual& L, FeaturePoint& here) {
  if (!factorize(L.P, nullptr, here.factor, L.extra, L.T)) return false;
  solve(L.P, here.factor, L.total_b, here.delta, L.back);
  double missing = 0.0;
  for (bool refined = false;; refined = true) {
    apply(L.P, here.delta, L.coefficients, L.left);
    MFAKIT_SIMD
    for (index_t f = 0; f < L.d; ++f) L.left[f] = L.total_b[f] - L.left[f];
    solve(L.P, here.factor, L.left, L.extra, L.back);
    missing = dot(L.left, L.extra, L.d);
    if (refined || !(dot(L.extra, L.extra, L.d) > 1e-26 * dot(here.delta, here.delta, L.d))) break;
    MFAKIT_SIMD
    for (index_t f = 0; f < L.d; ++f) here.delta[f] += L.extra[f];
  }
  double sum = 0.0;
  MFAKIT_SIMD_SUM(sum)
  for (index_t f = 0; f < L.d; ++f) sum += (L.total_b[f] + L.left[f]) * here.delta[f];
  here.quadratic = sum + 2.0 * fabs_(missing);  // exact to second order in what is left, which is added twice
  return true;
}

// D and its gradient at here.lambda, from here.delta and here.quadratic.
MFAKIT_HD void complete(FeatureDual& L, FeaturePoint& here) {
  dot_rows(L.P.row, L.P.n_rows, here.delta, L.d, L.P.y);
  double value = 0.0;
  for (index_t i = 0; i < L.m; ++i) {
    const double log_theta = log_share(L, here.lambda, i);
    value -= here.lambda[i] * (L.q0[i] + log_theta);
    here.q[i] = 0.0;
    if (!(here.lambda[i] > 0.0)) continue;
    const double curve = curve_along(L, i, here.delta, L.P.y);
    here.q[i] = L.q0[i] + dot(L.b + i * L.d, here.delta, L.d) + 0.5 * curve + log_theta;
  }
  here.value = value - 0.5 * here.quadratic;
}

// The radius that a value of D proves.
MFAKIT_HD double proved_radius(double value) {
  return value > 0.0 && value < infinity_() ? sqrt_(2.0 * value) * (1.0 - feature_bound_margin) : 0.0;
}

}  // namespace mfakit
