// The nearest point of one quadric: min |delta|^2 subject to q(delta) = q0 + b . delta + 1/2 delta^T H delta >= 0, q0 <
// 0.
//
// In H's eigenbasis delta(lambda)_i = lambda beta_i / (1 - lambda h_i), and along it q rises with the slope
// sum beta_i^2 / (1 - lambda h_i)^3 > 0: one root on (0, 1/h_max). Whatever lambda is, weak duality gives
//   1/2 |delta|^2 >= -lambda q0 - 1/2 lambda^2 sum beta_i^2 / (1 - lambda h_i),
// so the bound that is returned does not depend on the root being found exactly; in the hard case (no weight on the top
// eigenvectors, q never reaches 0) the same value at lambda = 1/h_max is the exact one.
#pragma once

#include "config.hpp"

namespace mfakit {

struct Quadric {
  const double* beta2;  // [count] squared components of b
  const double* h;      // [count] eigenvalues of H
  index_t count;
  double h_max;  // over all eigenvalues, those with beta = 0 included
  double q0;
};

struct SecularRoot {
  double lambda;
  double u;      // 1 - lambda h_max, exact where the difference is not; meaningless when h_max <= 0
  double bound;  // lower bound on 1/2 |delta|^2; infinite where q is never reached
  double q;      // at delta(lambda)
};

// 1 / (1 - lambda h_i) without cancellation: near the pole from u, elsewhere directly; one division either way.
MFAKIT_HD double inverse_one_minus(const Quadric& p, double lambda, double u, double h) {
  const bool near = p.h_max > 0.0 && lambda * h > 0.5;
  return (near ? p.h_max : 1.0) / (near ? (p.h_max - h) + u * h : 1.0 - lambda * h);
}

// Rise S = q(delta(lambda)) - q0, its slope in lambda, and the dual's sum beta^2 / (1 - lambda h).
MFAKIT_HD void secular_sums(const Quadric& p, double lambda, double u, double* rise, double* slope, double* dual) {
  double s = 0.0, ds = 0.0, g = 0.0;
  for (index_t i = 0; i < p.count; ++i) {
    if (p.beta2[i] == 0.0) continue;
    const double inverse = inverse_one_minus(p, lambda, u, p.h[i]);
    const double t = p.beta2[i] * inverse * inverse;
    s += t * lambda * (1.0 - 0.5 * lambda * p.h[i]);
    ds += t * inverse;
    g += p.beta2[i] * inverse;
  }
  *rise = s;
  *slope = ds;
  *dual = g;
}

// How far q can rise where no eigenvalue is positive: its maximum over all of space.
MFAKIT_HD double highest_rise(const Quadric& p) {
  double sum = 0.0;
  for (index_t i = 0; i < p.count; ++i) {
    if (p.beta2[i] == 0.0) continue;
    if (p.h[i] == 0.0) return infinity_();
    sum -= 0.5 * p.beta2[i] / p.h[i];
  }
  return sum;
}

// The root by Newton on rise^-1/2, which is nearly linear up to the pole, inside a bracket that always shrinks.
MFAKIT_HD SecularRoot solve_secular(const Quadric& p) {
  SecularRoot root{0.0, 1.0, 0.0, p.q0};
  if (!(p.q0 < 0.0)) return root;
  if (p.q0 == -infinity_()) {
    root.bound = infinity_();
    return root;
  }
  const bool pole = p.h_max > 0.0;
  const double need = -p.q0;
  double rise, slope, dual;
  secular_sums(p, 0.0, 1.0, &rise, &slope, &dual);
  if (!pole && highest_rise(p) < need * (1.0 - 1e-9)) {
    root.bound = infinity_();
    return root;
  }
  double x = slope > 0.0 ? need / slope : 0.0;
  const double half = pole ? 0.5 / p.h_max : infinity_();
  const bool near = pole && !(x > 0.0 && x < half);  // rise is convex: the root is at x or below
  // x is u = 1 - lambda h_max in (0, 1) near a pole, else lambda. The root is between `enough`, where rise >= need, and
  // `too_low`, where rise < need.
  double enough = near ? 0.0 : half, too_low = near ? 1.0 : 0.0;
  if (near) x = 1.0 - x * p.h_max;
  if (near && !(x > 1e-3 && x < 1.0)) x = 1e-3;
  for (int i = 0; i < 200; ++i) {  // the bound holds wherever it stops
    root.lambda = near ? (1.0 - x) / p.h_max : x;
    root.u = near ? x : pole ? 1.0 - x * p.h_max : 1.0;
    secular_sums(p, root.lambda, root.u, &rise, &slope, &dual);
    root.q = rise - need;
    (rise < need ? too_low : enough) = x;
    if (fabs_(root.q) <= 1e-14 * need) break;
    const double step = 2.0 * rise / slope * (sqrt_(rise / need) - 1.0);
    double next = near ? x + step * p.h_max : x - step;
    const double a = enough < too_low ? enough : too_low, b = enough < too_low ? too_low : enough;
    if (!(next > a && next < b)) {
      next = b == infinity_() ? 8.0 * a : a > 0.0 ? sqrt_(a * b) : 1e-3 * b;
    }
    // No float64 is left between the ends, or x is at the pole (the hard case), or lambda is beyond any use.
    if (next == x || (near && next < 1e-18) || (!near && next > 1e150)) break;
    x = next;
  }
  const double bound = root.lambda * need - 0.5 * root.lambda * root.lambda * dual;
  if (bound > 0.0 && bound < infinity_()) root.bound = bound;  // an overflow proves nothing
  return root;
}

}  // namespace mfakit
