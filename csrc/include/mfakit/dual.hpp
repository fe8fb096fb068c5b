// The dual of one target (or a mixture of them, sum_t phi_t log p_t in place of log p_t) and several sources: min 1/2
// |delta|^2 subject to log p_t + c >= log sum_i p_s_i at x + delta.
// By Gibbs' inequality log sum_i p_i >= sum theta_i log p_i + H(theta) for every theta of the simplex (H: entropy), so
// the constraint implies sum_i theta_i q_i(delta) >= H(theta) with the quadratics q_i of local_problem.hpp, whatever
// theta is. With lambda_i = Lambda theta_i, P = I - sum lambda_i H_i positive definite and b = sum lambda_i b_i, the
// dual
//   D(lambda) = -sum lambda_i q0_i + Lambda H(lambda / Lambda) - 1/2 b^T P^-1 b
// is concave, and a lower bound on 1/2 |delta|^2 for every lambda >= 0; at its maximum q_i(delta) = -log theta_i, which
// is the constraint itself with equality. On E P is r x r, and on the complement it is rho = 1 - sum lambda_i kappa_i.
#pragma once

#include "local_problem.hpp"

namespace mfakit {

struct DualPoint {
  double value;  // D(lambda); -inf where P is not positive definite
  double rho;
  double q[most_sources];  // q_i + log theta_i at delta = P^-1 b: minus the gradient; 0 where lambda_i = 0
};

// Gamma(c, c') = sum_jk c_j c'_k e_j . e_k off E.
MFAKIT_HD double perp_dot(const LocalProblem& p, const double* c, const double* c2 /*[m+1] each*/) {
  double sum = 0.0;
  for (int j = 0; j <= p.m; ++j) {
    for (int k = 0; k <= p.m; ++k) sum += c[j] * p.gram_perp[j * most_sides + k] * c2[k];
  }
  return sum;
}

// P's Cholesky factor in p.P, and delta = P^-1 b on E in p.delta; false if P is not positive definite there. Otherwise
// b^T P^-1 b on E in *quadratic.
MFAKIT_HD bool solve_on_basis(LocalProblem& p, const double* lambda, double total, double rho, double* quadratic) {
  const index_t r = p.rank, R = p.width;
  for (index_t i = 0; i < r; ++i) {
    for (index_t k = 0; k <= i; ++k) p.P[i * r + k] = (i == k ? rho : 0.0) - total * p.K[i * r + k];
    p.delta[i] = 0.0;
  }
  for (int s = 0; s < p.m; ++s) {
    if (lambda[s] == 0.0) continue;
    const double* K = p.K + (s + 1) * R * R;
    for (index_t i = 0; i < r; ++i) {
      for (index_t k = 0; k <= i; ++k) p.P[i * r + k] += lambda[s] * K[i * r + k];
      p.delta[i] += lambda[s] * p.b[s * R + i];
    }
  }
  if (!cholesky(p.P, r)) return false;
  solve_lower(p.P, r, p.delta);
  double sum = 0.0;
  for (index_t i = 0; i < r; ++i) sum += p.delta[i] * p.delta[i];
  *quadratic = sum;
  solve_upper(p.P, r, p.delta);
  return true;
}

// q_s(delta) - q_s(0), where `off` is |delta|^2 off E; leaves J = b_s + H_s delta on E in p.work.
MFAKIT_HD double rise_of_source(LocalProblem& p, int s, double off) {
  const index_t r = p.rank, R = p.width;
  double* J = p.work + s * R;
  for (index_t i = 0; i < r; ++i) J[i] = p.kappa[s] * p.delta[i];
  add_product(p.K, r, 1.0, p.delta, J);
  add_product(p.K + (s + 1) * R * R, r, -1.0, p.delta, J);
  double gradient[most_sides] = {};  // of q_s off E, in the e_j
  gradient[0] = -p.inverse[0];
  gradient[s + 1] = p.inverse[s + 1];
  double rise = perp_dot(p, gradient, p.gamma) + 0.5 * p.kappa[s] * off;
  for (index_t i = 0; i < r; ++i) {
    rise += p.delta[i] * (p.b[s * R + i] + 0.5 * J[i]);
    J[i] += p.b[s * R + i];
  }
  return rise;
}

// D(lambda), delta and the gradient there; sources with lambda = 0 are left out. Leaves P's Cholesky factor in p.P and
// J_i = b_i + H_i delta on E in p.work.
MFAKIT_HD DualPoint evaluate_dual(LocalProblem& p, const double* lambda /*[m]*/) {
  DualPoint out{-infinity_(), 1.0, {}};
  const double total = sum_of(lambda, p.m);
  double linear = 0.0;
  for (int s = 0; s < p.m; ++s) {
    out.rho -= lambda[s] * p.kappa[s];
    linear -= lambda[s] * p.q0[s];
  }
  for (int s = 0; s < p.m; ++s) {
    if (lambda[s] > 0.0) linear -= lambda[s] * log_(lambda[s] / total);
  }
  if (p.has_complement && !(out.rho > 1e-14)) return out;
  double quadratic;
  if (!solve_on_basis(p, lambda, total, out.rho, &quadratic)) return out;
  // Off E: b = sum_s lambda_s (e_s / s2_s - e_t / s2_t), delta = b / rho.
  p.gamma[0] = p.has_complement ? -total * p.inverse[0] / out.rho : 0.0;
  for (int s = 0; s < p.m; ++s) p.gamma[s + 1] = p.has_complement ? lambda[s] * p.inverse[s + 1] / out.rho : 0.0;
  const double off = perp_dot(p, p.gamma, p.gamma);
  out.value = linear - 0.5 * (quadratic + out.rho * off);
  for (int s = 0; s < p.m; ++s) {
    const double rise = rise_of_source(p, s, off);
    out.q[s] = lambda[s] > 0.0 ? p.q0[s] + rise + log_(lambda[s] / total) : 0.0;
  }
  return out;
}

// A_st = J_s^T P^-1 J_t, minus the Hessian of D without the entropy, where evaluate_dual was called last. Overwrites
// p.work.
MFAKIT_HD void dual_curvature(LocalProblem& p, double rho, double* A /*[m, m]*/) {
  const index_t r = p.rank, R = p.width;
  for (int s = 0; s < p.m; ++s) solve_lower(p.P, r, p.work + s * R);
  for (int s = 0; s < p.m; ++s) {
    for (int t = 0; t <= s; ++t) {
      double dot = 0.0;
      for (index_t i = 0; i < r; ++i) dot += p.work[s * R + i] * p.work[t * R + i];
      if (p.has_complement) {
        double js[most_sides], jt[most_sides];  // off E, in the e_j
        for (int j = 0; j <= p.m; ++j) {
          js[j] = p.kappa[s] * p.gamma[j] + (j == s + 1 ? p.inverse[j] : 0.0) - (j == 0 ? p.inverse[0] : 0.0);
          jt[j] = p.kappa[t] * p.gamma[j] + (j == t + 1 ? p.inverse[j] : 0.0) - (j == 0 ? p.inverse[0] : 0.0);
        }
        dot += perp_dot(p, js, jt) / rho;
      }
      A[s * p.m + t] = A[t * p.m + s] = dot;
    }
  }
}

// delta as a combination of v and columns: sum_j gamma_j e_j off E, plus p.delta on E.
MFAKIT_HD void primal_of_dual(const Coordinates& q, LocalProblem& p, Combination& out) {
  const index_t r = p.rank, R = p.width;
  double* x = p.work;
  for (index_t i = 0; i < r; ++i) {
    x[i] = p.delta[i];
    for (int j = 0; j <= p.m; ++j) x[i] -= p.gamma[j] * p.e[j * R + i];
  }
  solve_upper(p.basis, r, x);  // from coordinates on E to coefficients of the rows that make E
  out.along_v = 0.0;
  out.count = 0;
  for (int j = 0; j <= p.m; ++j) out.along_v += p.gamma[j];
  for (int j = 0; j < p.members(); ++j) {
    out.index[out.count] = q.mean_column(p.component[j]);
    out.coefficient[out.count++] = -p.gamma[p.side(j)] * (j < p.n_targets ? p.mix[j] : 1.0);
  }
  for (index_t i = 0; i < r; ++i) {
    out.index[out.count] = row_column(q, p, p.pivot[i]);
    out.coefficient[out.count++] = x[i];
  }
}

}  // namespace mfakit
