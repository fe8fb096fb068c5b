// Several sources at once: min 1/2 |delta|^2 subject to log p_t + c >= log sum_i p_s_i at x + delta, for one target t
// and m sources. By Gibbs' inequality log sum_i p_i >= sum theta_i log p_i + H(theta) for every theta of the simplex
// (H: entropy), so the constraint implies sum_i theta_i q_i(delta) >= H(theta) with the quadratics q_i = log p_t + c -
// log p_s_i, whatever theta is. With lambda_i = Lambda theta_i, P = I - sum lambda_i H_i positive definite and b = sum
// lambda_i b_i, the dual
//   D(lambda) = -sum lambda_i q0_i + Lambda H(lambda / Lambda) - 1/2 b^T P^-1 b
// is concave, and a lower bound on 1/2 |delta|^2 for every lambda >= 0; at its maximum q_i(delta) = -log theta_i, which
// is the constraint itself with equality. It is small: on E, an orthonormal basis of span{U_t, U_s_i}, P is r x r, and
// on the complement it is rho = 1 - sum lambda_i kappa_i.
#pragma once

#include "rounding.hpp"

namespace mfakit {

constexpr int most_sources = 6;

// In place Cholesky of the lower triangle of P [r, r]; false if it is not (safely) positive definite.
MFAKIT_HD bool cholesky(double* P, index_t r) {
  for (index_t i = 0; i < r; ++i) {
    for (index_t j = 0; j <= i; ++j) {
      double sum = P[i * r + j];
      for (index_t k = 0; k < j; ++k) sum -= P[i * r + k] * P[j * r + k];
      if (i == j) {
        if (!(sum > 1e-14)) return false;
        P[i * r + i] = sqrt_(sum);
      } else {
        P[i * r + j] = sum / P[j * r + j];
      }
    }
  }
  return true;
}

MFAKIT_HD void solve_lower(const double* L, index_t r, double* x /*[r]*/) {
  for (index_t i = 0; i < r; ++i) {
    for (index_t k = 0; k < i; ++k) x[i] -= L[i * r + k] * x[k];
    x[i] /= L[i * r + i];
  }
}

MFAKIT_HD void solve_upper(const double* L, index_t r, double* x /*[r]*/) {  // with L^T
  for (index_t i = r; i-- > 0;) {
    for (index_t k = i + 1; k < r; ++k) x[i] -= L[k * r + i] * x[k];
    x[i] /= L[i * r + i];
  }
}

// x := A^-1 x for a positive definite A [m, m] whose entries differ by many orders of magnitude: scaled to a unit
// diagonal first. Overwrites A; false if that is not positive definite.
MFAKIT_HD bool scaled_solve(double* A, int m, double* x) {
  double scale[most_sources];
  for (int i = 0; i < m; ++i) {
    if (!(A[i * m + i] > 0.0)) return false;
    scale[i] = 1.0 / sqrt_(A[i * m + i]);
  }
  for (int i = 0; i < m; ++i) {
    x[i] *= scale[i];
    for (int j = 0; j < m; ++j) A[i * m + j] *= scale[i] * scale[j];
    A[i * m + i] = 1.0 + 1e-12;
  }
  if (!cholesky(A, m)) return false;
  solve_lower(A, m, x);
  solve_upper(A, m, x);
  for (int i = 0; i < m; ++i) x[i] *= scale[i];
  return true;
}

// The problem in local coordinates. Component 0 is the target, 1 .. m the sources.
struct LocalProblem {
  index_t component[most_sources + 1];
  int m;
  index_t rank;  // r
  index_t d;     // features: space is larger than span E if r < d
  bool has_complement;
  double radius;                                              // what is asked about delta is asked within this ball
  double units;                                               // of rounding on E, from make_basis
  double kappa[most_sources];                                 // 1/s2_source - 1/s2_target, raised by roundings
  double q0[most_sources];                                    // at delta = 0, negative or not; raised by set_up
  double inverse[most_sources + 1];                           // 1/s2
  double gram_perp[(most_sources + 1) * (most_sources + 1)];  // of the parts of e_j = v - m_j off E
  // Buffers, r <= R = l (most_sources + 1):
  double* rows;                    // [R, R] coordinates of the rows U_j on E
  double* basis;                   // [R, R] lower triangle that makes E: rows[pivot] = basis
  index_t* pivot;                  // [R]
  double* e;                       // [(m+1), R] e_j on E
  double* b;                       // [m, R] b_i on E
  double* K;                       // [(m+1), R, R] rows_j^T gain_j rows_j
  double* P;                       // [R, R] work
  double* delta;                   // [R] on E
  double* work;                    // [(m+1) * R]
  double gamma[most_sources + 1];  // delta off E = sum_j gamma_j e_j off E
};

// Rows of U over all components of the problem, in order: the f-th factor of component j is row j l + f.
MFAKIT_HD index_t row_column(const Coordinates& q, const LocalProblem& p, index_t row) {
  return q.column(p.component[row / q.l]) + row % q.l;
}

// Below this squared length the Gram matrix does not say accurately where a direction points, and it is dropped.
constexpr double shared_direction = 1e-4;

// E by a pivoted Cholesky factorization of the rows' Gram matrix: shared directions drop out. Leaves in p.work the
// squared length that each row has off E, 0 for those that make E.
MFAKIT_HD void make_basis(const Coordinates& q, LocalProblem& p) {
  const index_t R = q.l * (p.m + 1);
  double* left = p.work;  // what is left of each row's squared length
  for (index_t i = 0; i < R; ++i) {
    const index_t c = row_column(q, p, i);
    left[i] = q.row(c)[c];
    for (index_t k = 0; k < R; ++k) p.rows[i * R + k] = 0.0;
  }
  p.rank = 0;
  double shortest = clear_length;
  while (p.rank < R) {
    index_t best = 0;
    for (index_t i = 1; i < R; ++i) {
      if (left[i] > left[best]) best = i;
    }
    if (!(left[best] > shared_direction)) break;
    if (left[best] < shortest) shortest = left[best];
    const index_t k = p.rank++;
    const double length = sqrt_(left[best]);
    const double* gram = q.row(row_column(q, p, best));
    p.pivot[k] = best;
    for (index_t i = 0; i < R; ++i) {
      double dot = gram[row_column(q, p, i)];
      for (index_t a = 0; a < k; ++a) dot -= p.rows[i * R + a] * p.rows[best * R + a];
      p.rows[i * R + k] = i == best ? length : dot / length;
      left[i] -= p.rows[i * R + k] * p.rows[i * R + k];
    }
    for (index_t a = 0; a <= k; ++a) left[p.pivot[a]] = 0.0;
  }
  p.units = rounding_units * clear_length / shortest;
}

// How far log p_j may be, anywhere in the ball, from what it is with its rows cut to E: for a row u of gain g that
// loses a part of length r it is 1/2 g (y^2 - y'^2) with |y - y'| <= r (|e_j off E| + radius). 0 where nothing is lost.
MFAKIT_HD double dropped_nats(const Coordinates& q, const double* a, const LocalProblem& p, int j) {
  const index_t l = q.l;
  double sum = 0.0;
  if (p.rank == l * (p.m + 1) || p.rank == p.d) return sum;
  const double off = sqrt_(p.gram_perp[j * (most_sources + 1) + j]) + p.radius;
  for (index_t f = 0; f < l; ++f) {
    const double gain = q.gain[p.component[j] * l + f];
    bool made = gain == 0.0;
    for (index_t i = 0; i < p.rank; ++i) made = made || p.pivot[i] == j * l + f;
    if (made) continue;
    const double moved = sqrt_(not_negative(p.work[j * l + f]) + p.units) * off;  // with the length's own rounding
    sum += gain * moved * (fabs_(latent_at(q, a, p.component[j], f)) + p.radius + 0.5 * moved);
  }
  return sum;
}

// Everything of the problem that does not depend on lambda, at the point with inner products a and squared length sq,
// where the components have log_prob. All roundings are added here: to q0, to kappa, and to the squares off E.
MFAKIT_HD void set_up(const Coordinates& q, const Rounding& all, const double* a, double sq, const double* log_prob,
                      LocalProblem& p) {
  const index_t l = q.l, R = l * (p.m + 1);
  make_basis(q, p);
  const index_t r = p.rank;
  const Rounding rounding{p.units, all.tilt, all.size};
  p.has_complement = r < p.d;
  for (index_t i = 0; i < r; ++i) {
    for (index_t k = 0; k < r; ++k) p.basis[i * r + k] = k <= i ? p.rows[p.pivot[i] * R + k] : 0.0;
  }
  for (int j = 0; j <= p.m; ++j) {
    const index_t mean = q.mean_column(p.component[j]);
    p.inverse[j] = 1.0 / q.variance[p.component[j]];
    double* e = p.e + j * R;
    for (index_t i = 0; i < r; ++i) {
      const index_t c = row_column(q, p, p.pivot[i]);
      e[i] = a[c] - q.row(c)[mean];
    }
    solve_lower(p.basis, r, e);
  }
  for (int j = 0; j <= p.m; ++j) {
    for (int k = 0; k <= p.m; ++k) {
      const index_t mj = q.mean_column(p.component[j]), mk = q.mean_column(p.component[k]);
      double dot = sq - a[mj] - a[mk] + q.row(mj)[mk];
      for (index_t i = 0; i < r; ++i) dot -= p.e[j * R + i] * p.e[k * R + i];
      p.gram_perp[j * (most_sources + 1) + k] =
          j == k ? not_negative(dot) + (p.m + 1) * p.units * magnitude(q, a, sq, p.component[j]) : dot;
    }
  }
  double lost[most_sources + 1];
  for (int j = 0; j <= p.m; ++j) {
    lost[j] =
        log_prob_error(q, rounding, a, sq, log_prob[p.component[j]], p.component[j]) + 2.0 * dropped_nats(q, a, p, j);
  }
  for (int s = 0; s < p.m; ++s) p.q0[s] += lost[0] + lost[s + 1];
  for (int j = 0; j <= p.m; ++j) {  // K_j, and grad log p_j on E in the place of work
    const double* gain = q.gain + p.component[j] * l;
    double *K = p.K + j * R * R, *g = p.work + j * R;
    for (index_t i = 0; i < r; ++i) g[i] = -p.inverse[j] * p.e[j * R + i];
    for (index_t i = 0; i < r * r; ++i) K[i] = 0.0;
    for (index_t f = 0; f < l; ++f) {
      const double* u = p.rows + (j * l + f) * R;
      double y = 0.0;  // of the row cut to E
      for (index_t i = 0; i < r; ++i) y += u[i] * p.e[j * R + i];
      for (index_t i = 0; i < r; ++i) {
        g[i] += gain[f] * y * u[i];
        for (index_t k = 0; k <= i; ++k) K[i * r + k] += gain[f] * u[i] * u[k];
      }
    }
  }
  for (int s = 0; s < p.m; ++s) {
    p.kappa[s] = p.inverse[s + 1] - p.inverse[0] + hessian_error(q, rounding, p.component[0]) +
                 hessian_error(q, rounding, p.component[s + 1]);
    for (index_t i = 0; i < r; ++i) p.b[s * R + i] = p.work[i] - p.work[(s + 1) * R + i];
  }
}

// y += K x for a symmetric K [r, r] of which the lower triangle is stored.
MFAKIT_HD void add_product(const double* K, index_t r, double scale, const double* x, double* y) {
  for (index_t i = 0; i < r; ++i) {
    for (index_t k = 0; k < i; ++k) {
      y[i] += scale * K[i * r + k] * x[k];
      y[k] += scale * K[i * r + k] * x[i];
    }
    y[i] += scale * K[i * r + i] * x[i];
  }
}

// c^T Gamma c' of two vectors off E, by their coefficients in the e_j.
MFAKIT_HD double perp_dot(const LocalProblem& p, const double* c, const double* c2) {
  double sum = 0.0;
  for (int j = 0; j <= p.m; ++j) {
    for (int k = 0; k <= p.m; ++k) sum += c[j] * p.gram_perp[j * (most_sources + 1) + k] * c2[k];
  }
  return sum;
}

struct DualPoint {
  double value;  // D(lambda); -inf where P is not positive definite
  double rho;
  double q[most_sources];  // q_i + log theta_i at delta = P^-1 b: minus the gradient
};

// D(lambda), delta and the gradient there; sources with lambda = 0 are left out. Leaves P's Cholesky factor in p.P and
// J_i = b_i + H_i delta on E in p.work.
MFAKIT_HD DualPoint evaluate_dual(const Coordinates& q, LocalProblem& p, const double* lambda) {
  const index_t r = p.rank, R = q.l * (p.m + 1);
  DualPoint out{-infinity_(), 1.0, {}};
  double total = 0.0, linear = 0.0;
  for (int s = 0; s < p.m; ++s) {
    out.rho -= lambda[s] * p.kappa[s];
    total += lambda[s];
    linear -= lambda[s] * p.q0[s];
  }
  for (int s = 0; s < p.m; ++s) {
    if (lambda[s] > 0.0) linear -= lambda[s] * log_(lambda[s] / total);
  }
  if (p.has_complement && !(out.rho > 1e-14)) return out;
  for (index_t i = 0; i < r; ++i) {
    for (index_t k = 0; k <= i; ++k) p.P[i * r + k] = (i == k ? out.rho : 0.0) - total * p.K[i * r + k];
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
  if (!cholesky(p.P, r)) return out;
  solve_lower(p.P, r, p.delta);
  double quadratic = 0.0;
  for (index_t i = 0; i < r; ++i) quadratic += p.delta[i] * p.delta[i];
  solve_upper(p.P, r, p.delta);
  // Off E: b = sum_s lambda_s (e_s / s2_s - e_t / s2_t), delta = b / rho.
  p.gamma[0] = p.has_complement ? -total * p.inverse[0] / out.rho : 0.0;
  for (int s = 0; s < p.m; ++s) p.gamma[s + 1] = p.has_complement ? lambda[s] * p.inverse[s + 1] / out.rho : 0.0;
  const double off = perp_dot(p, p.gamma, p.gamma);
  out.value = linear - 0.5 * (quadratic + out.rho * off);
  for (int s = 0; s < p.m; ++s) {
    double* J = p.work + s * R;
    for (index_t i = 0; i < r; ++i) J[i] = p.kappa[s] * p.delta[i];
    add_product(p.K, r, 1.0, p.delta, J);
    add_product(p.K + (s + 1) * R * R, r, -1.0, p.delta, J);
    double gradient[most_sources + 1] = {};
    gradient[0] = -p.inverse[0];
    gradient[s + 1] = p.inverse[s + 1];
    double rise = perp_dot(p, gradient, p.gamma) + 0.5 * p.kappa[s] * off;
    for (index_t i = 0; i < r; ++i) {
      rise += p.delta[i] * (p.b[s * R + i] + 0.5 * J[i]);
      J[i] += p.b[s * R + i];
    }
    out.q[s] = lambda[s] > 0.0 ? p.q0[s] + rise + log_(lambda[s] / total) : 0.0;
  }
  return out;
}

// -Hessian of D: J_i^T P^-1 J_j, on E and off it. Overwrites p.work.
MFAKIT_HD void dual_curvature(const Coordinates& q, LocalProblem& p, double rho, double* A /*[m, m]*/) {
  const index_t r = p.rank, R = q.l * (p.m + 1);
  for (int s = 0; s < p.m; ++s) solve_lower(p.P, r, p.work + s * R);
  for (int s = 0; s < p.m; ++s) {
    for (int t = 0; t <= s; ++t) {
      double dot = 0.0;
      for (index_t i = 0; i < r; ++i) dot += p.work[s * R + i] * p.work[t * R + i];
      if (p.has_complement) {
        double js[most_sources + 1], jt[most_sources + 1];
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

// A first value for the multiplier of the last source: what would lift its constraint alone, by its own curvature.
// Newton's steps with the entropy only double a multiplier that starts many orders of magnitude too small.
MFAKIT_HD void wake_last(const Coordinates& q, LocalProblem& p, double* lambda /*[m]*/) {
  const int last = p.m - 1;
  double A[most_sources * most_sources];
  const DualPoint here = evaluate_dual(q, p, lambda);
  if (here.value == -infinity_()) return;
  dual_curvature(q, p, here.rho, A);
  const double old = lambda[last];
  double wanted = -here.q[last] / A[last * p.m + last];
  for (int halving = 0; halving < 60 && wanted > old; ++halving, wanted *= 0.5) {
    lambda[last] = wanted;
    if (evaluate_dual(q, p, lambda).value > here.value) return;
  }
  lambda[last] = old;
}

// Maximise D by damped Newton steps from a feasible lambda > 0; a lambda_i that all but vanishes is left out for good.
// Returns the value at the last lambda, a lower bound wherever it stopped, and leaves the primal delta in p.
MFAKIT_HD double maximise_dual(const Coordinates& q, LocalProblem& p, double* lambda /*[m]*/) {
  DualPoint here = evaluate_dual(q, p, lambda);
  for (int iteration = 0; iteration < 80 && here.value > -infinity_(); ++iteration) {
    double A[most_sources * most_sources], step[most_sources], total = 0.0;
    dual_curvature(q, p, here.rho, A);
    bool stationary = true;
    for (int s = 0; s < p.m; ++s) {
      total += lambda[s];
      stationary = stationary && fabs_(here.q[s]) <= 1e-9 + 1e-13 * fabs_(p.q0[s]);
    }
    if (stationary) break;
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
    if (!scaled_solve(A, p.m, step)) break;
    double share = 1.0;
    for (int s = 0; s < p.m; ++s) {  // no lambda_i falls below a tenth of itself at once
      if (step[s] < 0.0 && -0.9 * lambda[s] > share * step[s]) share = -0.9 * lambda[s] / step[s];
    }
    bool moved = false;
    for (int halving = 0; halving < 40; ++halving, share *= 0.5) {
      double trial[most_sources];
      for (int s = 0; s < p.m; ++s) {
        trial[s] = lambda[s] + share * step[s];
        if (!(trial[s] > 1e-13 * total)) trial[s] = 0.0;
      }
      const DualPoint there = evaluate_dual(q, p, trial);
      if (there.value > here.value) {
        moved = there.value - here.value > 1e-15 * fabs_(there.value);
        for (int s = 0; s < p.m; ++s) lambda[s] = trial[s];
        here = there;
        break;
      }
    }
    if (!moved) break;
  }
  return evaluate_dual(q, p, lambda).value;
}

// delta as a combination of v and columns: sum_j gamma_j e_j off E, plus p.delta on E.
MFAKIT_HD void primal_of_dual(const Coordinates& q, LocalProblem& p, Combination& out) {
  const index_t r = p.rank, R = q.l * (p.m + 1);
  double* x = p.work;
  for (index_t i = 0; i < r; ++i) {
    x[i] = p.delta[i];
    for (int j = 0; j <= p.m; ++j) x[i] -= p.gamma[j] * p.e[j * R + i];
  }
  solve_upper(p.basis, r, x);  // from coordinates on E to coefficients of the pivot rows
  out.along_v = 0.0;
  out.count = 0;
  for (int j = 0; j <= p.m; ++j) {
    out.along_v += p.gamma[j];
    out.index[out.count] = q.mean_column(p.component[j]);
    out.coefficient[out.count++] = -p.gamma[j];
  }
  for (index_t i = 0; i < r; ++i) {
    out.index[out.count] = row_column(q, p, p.pivot[i]);
    out.coefficient[out.count++] = x[i];
  }
}

}  // namespace mfakit
