// The maximum of the dual D(lambda) of several sources (dual.hpp) over lambda >= 0, by damped Newton steps. D is a
// lower bound wherever the ascent stops.
#pragma once

#include "dual.hpp"

namespace mfakit {

// Move lambda into the domain of D where rounding left it at or beyond the edge.
MFAKIT_HD void shrink_into_domain(LocalProblem& p, double* lambda /*[m]*/) {
  for (int tries = 0; tries < 200 && evaluate_dual(p, lambda).value == -infinity_(); ++tries) {
    for (int i = 0; i < p.m; ++i) lambda[i] *= tries < 8 ? 1.0 - 1e-8 : 0.9;
  }
}

// A first value for the multiplier of the last source: the one that meets its constraint alone, by its own curvature.
// Newton's steps with the entropy only double a multiplier that starts many orders of magnitude too small.
MFAKIT_HD void start_last_multiplier(LocalProblem& p, double* lambda /*[m]*/) {
  const int last = p.m - 1;
  double A[most_sources * most_sources];
  const DualPoint here = evaluate_dual(p, lambda);
  if (here.value == -infinity_()) return;
  dual_curvature(p, here.rho, A);
  const double old = lambda[last];
  double wanted = -here.q[last] / A[last * p.m + last];
  for (int halving = 0; halving < 60 && wanted > old; ++halving, wanted *= 0.5) {
    lambda[last] = wanted;
    if (evaluate_dual(p, lambda).value > here.value) return;
  }
  lambda[last] = old;
}

MFAKIT_HD bool is_stationary(const LocalProblem& p, const DualPoint& here) {
  bool stationary = true;
  for (int s = 0; s < p.m; ++s) stationary = stationary && fabs_(here.q[s]) <= 1e-9 + 1e-13 * fabs_(p.q0[s]);
  return stationary;
}

// Newton's step [m] at lambda, whose sum is `total`; sources with lambda = 0 stay there. False if there is none.
MFAKIT_HD bool newton_step(LocalProblem& p, const DualPoint& here, const double* lambda, double total, double* step) {
  double A[most_sources * most_sources];
  dual_curvature(p, here.rho, A);
  for (int s = 0; s < p.m; ++s) {
    step[s] = -here.q[s];
    for (int t = 0; t < p.m; ++t) {
      if (lambda[s] == 0.0 || lambda[t] == 0.0) {
        A[s * p.m + t] = s == t ? 1.0 : 0.0;
      } else {
        A[s * p.m + t] += (s == t ? 1.0 / lambda[s] : 0.0) - 1.0 / total;  // of the entropy
      }
    }
  }
  double scale[most_sources];
  return scaled_solve(A, p.m, step, scale);
}

// Move lambda and `here` along `step`, which is halved until D rises. False if D rises by no more than a rounding.
MFAKIT_HD bool line_search(LocalProblem& p, const double* step /*[m]*/, double total, DualPoint& here,
                           double* lambda /*[m]*/) {
  double share = 1.0;
  for (int s = 0; s < p.m; ++s) {  // no lambda_i falls below a tenth of itself at once
    if (step[s] < 0.0 && -0.9 * lambda[s] > share * step[s]) share = -0.9 * lambda[s] / step[s];
  }
  for (int halving = 0; halving < 40; ++halving, share *= 0.5) {
    double trial[most_sources];
    for (int s = 0; s < p.m; ++s) {
      trial[s] = lambda[s] + share * step[s];
      if (!(trial[s] > 1e-13 * total)) trial[s] = 0.0;
    }
    const DualPoint there = evaluate_dual(p, trial);
    if (there.value > here.value) {
      const bool rises = there.value - here.value > 1e-15 * fabs_(there.value);
      for (int s = 0; s < p.m; ++s) lambda[s] = trial[s];
      here = there;
      return rises;
    }
  }
  return false;
}

// Maximise D from a feasible lambda > 0; a lambda_i that becomes negligible is set to 0 and stays 0. Returns D at the
// last lambda, and leaves the primal delta in p.
MFAKIT_HD double maximise_dual(LocalProblem& p, double* lambda /*[m]*/) {
  DualPoint here = evaluate_dual(p, lambda);
  for (int iteration = 0; iteration < 80 && here.value > -infinity_(); ++iteration) {
    const double total = sum_of(lambda, p.m);
    double step[most_sources];
    if (is_stationary(p, here) || !newton_step(p, here, lambda, total, step)) break;
    if (!line_search(p, step, total, here, lambda)) break;
  }
  return evaluate_dual(p, lambda).value;
}

}  // namespace mfakit
