// One target t and m sources s_i at a sample, in local coordinates: the quadratics
//   q_i(delta) = log p_t(x + delta) + c - log p_s_i(x + delta)
// on E, an orthonormal basis of span{U_t, U_s_1, ...}, r dimensions at most l (m + 1), and on E's complement, where the
// Hessian of q_i is kappa_i I. What rounding may do to the densities is added to the q_i here (rounding.hpp), so that
// each is above the exact one wherever it is asked for.
#pragma once

#include "cholesky.hpp"
#include "rounding.hpp"

namespace mfakit {

constexpr int most_sources = 6;

struct LocalProblem {
  index_t component[most_sources + 1];  // the target, then the sources
  int m;
  index_t rank;  // r
  index_t d;     // features
  bool has_complement;
  double radius;                                              // the roundings hold for |delta| up to this
  double units;                                               // of rounding on E, from make_basis
  double kappa[most_sources];                                 // 1/s2_source - 1/s2_target, roundings added
  double q0[most_sources];                                    // q_i(0), roundings added by set_up
  double inverse[most_sources + 1];                           // 1/s2
  double gram_perp[(most_sources + 1) * (most_sources + 1)];  // of the parts of e_j = v - m_j off E
  double gamma[most_sources + 1];                             // delta off E = sum_j gamma_j e_j off E
  // Buffers; R = l (m + 1) is the row length of those that have R columns.
  double* rows;    // [R, R] coordinates on E of the rows U_j
  double* basis;   // [r, r] the lower triangle that makes E: rows[pivot] = basis
  index_t* pivot;  // [r] the rows that make E
  double* e;       // [m+1, R] e_j on E
  double* b;       // [m, R] grad q_i(0) on E
  double* K;       // [m+1, R, R] rows_j^T gain_j rows_j, stored [r, r]
  double* P;       // [r, r]
  double* delta;   // [r] on E
  double* work;    // [m+1, R]
};

// The buffers of the largest problem.
MFAKIT_HD LocalProblem make_local_problem(Arena& arena, const Coordinates& q) {
  constexpr index_t m = most_sources;
  const index_t R = q.l * (m + 1);
  LocalProblem p{};
  p.rows = arena.doubles(R * R);
  p.basis = arena.doubles(R * R);
  p.pivot = arena.indices(R);
  p.e = arena.doubles((m + 1) * R);
  p.b = arena.doubles(m * R);
  p.K = arena.doubles((m + 1) * R * R);
  p.P = arena.doubles(R * R);
  p.delta = arena.doubles(R);
  p.work = arena.doubles((m + 1) * R);
  return p;
}

// The column of row i of [U_t; U_s_1; ...]: the f-th row of U_j is row j l + f.
MFAKIT_HD index_t row_column(const Coordinates& q, const LocalProblem& p, index_t i) {
  return q.column(p.component[i / q.l]) + i % q.l;
}

// Below this squared length the Gram matrix does not say accurately where a direction points, and it is dropped.
constexpr double shared_direction = 1e-4;

// E by a pivoted Cholesky factorization of the rows' Gram matrix, which drops directions that rows share. Leaves in
// p.work the squared length that each row has off E, 0 for the rows that make E.
MFAKIT_HD void make_basis(const Coordinates& q, LocalProblem& p) {
  const index_t R = q.l * (p.m + 1);
  double* left = p.work;
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

// How far log p_j may be, for any |delta| <= radius, from what it is with its rows cut to E: for a row u of gain g that
// loses a part of length r it is 1/2 g (y^2 - y'^2) with |y - y'| <= r (|e_j off E| + radius). 0 where nothing is lost.
MFAKIT_HD double dropped_nats(const Coordinates& q, const double* a /*[C]*/, const LocalProblem& p, int j) {
  const index_t l = q.l;
  double sum = 0.0;
  if (p.rank == l * (p.m + 1) || p.rank == p.d) return sum;
  const double off = sqrt_(p.gram_perp[j * (most_sources + 1) + j]) + p.radius;
  for (index_t f = 0; f < l; ++f) {
    const double gain = q.gain[p.component[j] * l + f];
    bool exact = gain == 0.0;
    for (index_t i = 0; i < p.rank; ++i) exact = exact || p.pivot[i] == j * l + f;
    if (exact) continue;
    const double moved = sqrt_(not_negative(p.work[j * l + f]) + p.units) * off;  // with the length's own rounding
    sum += gain * moved * (fabs_(latent_at(q, a, p.component[j], f)) + p.radius + 0.5 * moved);
  }
  return sum;
}

// e_j = v - m_j on E, and 1/s2, at the point with inner products a.
MFAKIT_HD void project_on_basis(const Coordinates& q, const double* a /*[C]*/, LocalProblem& p) {
  const index_t r = p.rank, R = q.l * (p.m + 1);
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
}

// Inner products of the e_j off E, the squares with their rounding added.
MFAKIT_HD void gram_off_basis(const Coordinates& q, const double* a /*[C]*/, double sq, LocalProblem& p) {
  const index_t R = q.l * (p.m + 1);
  for (int j = 0; j <= p.m; ++j) {
    for (int k = 0; k <= p.m; ++k) {
      const index_t mj = q.mean_column(p.component[j]), mk = q.mean_column(p.component[k]);
      double dot = sq - a[mj] - a[mk] + q.row(mj)[mk];
      for (index_t i = 0; i < p.rank; ++i) dot -= p.e[j * R + i] * p.e[k * R + i];
      p.gram_perp[j * (most_sources + 1) + k] =
          j == k ? not_negative(dot) + (p.m + 1) * p.units * magnitude(q, a, sq, p.component[j]) : dot;
    }
  }
}

// kappa, and q0 raised, by all that rounding and the directions dropped from E may change.
MFAKIT_HD void add_roundings(const Coordinates& q, const Rounding& all, const double* a /*[C]*/, double sq,
                             const double* log_prob /*[K]*/, LocalProblem& p) {
  const Rounding rounding{p.units, all.tilt, all.size};
  double error[most_sources + 1];
  for (int j = 0; j <= p.m; ++j) {
    const index_t component = p.component[j];
    error[j] = log_prob_error(q, rounding, a, sq, log_prob[component], component) + 2.0 * dropped_nats(q, a, p, j);
  }
  for (int s = 0; s < p.m; ++s) {
    p.q0[s] += error[0] + error[s + 1];
    p.kappa[s] = p.inverse[s + 1] - p.inverse[0] + hessian_error(q, rounding, p.component[0]) +
                 hessian_error(q, rounding, p.component[s + 1]);
  }
}

// K_j, and b_i from the gradients of the log p_j on E; the gradients are left in p.work.
MFAKIT_HD void differentiate(const Coordinates& q, LocalProblem& p) {
  const index_t l = q.l, r = p.rank, R = l * (p.m + 1);
  for (int j = 0; j <= p.m; ++j) {
    const double* gain = q.gain + p.component[j] * l;
    double *K = p.K + j * R * R, *gradient = p.work + j * R;
    for (index_t i = 0; i < r; ++i) gradient[i] = -p.inverse[j] * p.e[j * R + i];
    for (index_t i = 0; i < r * r; ++i) K[i] = 0.0;
    for (index_t f = 0; f < l; ++f) {
      const double* u = p.rows + (j * l + f) * R;
      double y = 0.0;  // of the row cut to E
      for (index_t i = 0; i < r; ++i) y += u[i] * p.e[j * R + i];
      for (index_t i = 0; i < r; ++i) {
        gradient[i] += gain[f] * y * u[i];
        for (index_t k = 0; k <= i; ++k) K[i * r + k] += gain[f] * u[i] * u[k];
      }
    }
  }
  for (int s = 0; s < p.m; ++s) {
    for (index_t i = 0; i < r; ++i) p.b[s * R + i] = p.work[i] - p.work[(s + 1) * R + i];
  }
}

// All of the problem that does not depend on lambda, at the point with inner products a and squared length sq, where
// the components have log_prob. Reads p.component, m, d, radius, and q0 without roundings.
MFAKIT_HD void set_up(const Coordinates& q, const Rounding& rounding, const double* a /*[C]*/, double sq,
                      const double* log_prob /*[K]*/, LocalProblem& p) {
  make_basis(q, p);
  p.has_complement = p.rank < p.d;
  project_on_basis(q, a, p);
  gram_off_basis(q, a, sq, p);
  add_roundings(q, rounding, a, sq, log_prob, p);  // reads the lengths off E, which differentiate() overwrites
  differentiate(q, p);
}

}  // namespace mfakit
