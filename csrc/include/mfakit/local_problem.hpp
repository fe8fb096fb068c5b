// A mixture of targets t with shares phi_t that sum to 1, and m sources s_i at a sample, in local coordinates: the
// quadratics
//   q_i(delta) = sum_t phi_t log p_t(x + delta) + c - log p_s_i(x + delta)
// on E, an orthonormal basis of span{U_t, ..., U_s_1, ...}, and on E's complement, where the Hessian of q_i is kappa_i
// I. What rounding may do to the densities is added to the q_i here (rounding.hpp), so that each is above the exact one
// wherever it is asked for. Targets and sources are the members; the sides are the targets together, and each source.
#pragma once

#include "cholesky.hpp"
#include "rounding.hpp"

namespace mfakit {

constexpr int most_sources = 6, most_targets = 6;
constexpr int most_members = most_targets + most_sources, most_sides = 1 + most_sources;

struct LocalProblem {
  index_t component[most_members];  // the targets, then the sources
  double share[most_targets];       // phi
  int n_targets, m;
  index_t rank;   // of E, r
  index_t width;  // R = l (n_targets + m), the row length of buffers with R columns
  index_t d;      // features
  bool has_complement;
  double radius;               // the roundings hold for |delta| up to this
  double units;                // of rounding on E, from make_basis
  double kappa[most_sources];  // 1/s2_source - 1/s2_target, roundings added
  double q0[most_sources];     // q_i(0), roundings added by set_up
  double inverse[most_sides];  // 1/s2; of the targets, the mean
  double mix[most_targets];    // of the targets' side e = v - sum_t mix_t m_t: phi_t / s2_t over that mean
  double gram_perp[most_sides * most_sides];  // of the parts of the sides' e off E
  double gamma[most_sides];                   // delta off E = sum_j gamma_j e_j off E
  double off2[most_members];                  // |e_j off E|^2
  // Buffers.
  double* rows;    // [R, R] coordinates on E of the members' rows U_j
  double* basis;   // [r, r] the lower triangle that makes E: rows[pivot] = basis
  index_t* pivot;  // [r] the rows that make E
  double* e;       // [members, R] e_j = v - m_j on E; in the end of the sides
  double* b;       // [m, R] grad q_i(0) on E
  double* K;       // [sides, R, R] sum_j phi_j rows_j^T gain_j rows_j, stored [r, r]
  double* P;       // [r, r]
  double* delta;   // [r] on E
  double* work;    // [members, R]

  MFAKIT_HD int members() const { return n_targets + m; }
  MFAKIT_HD int side(int j) const { return j < n_targets ? 0 : j - n_targets + 1; }
  MFAKIT_HD double weight(int j) const { return j < n_targets ? share[j] : 1.0; }
};

// The buffers of the largest problem.
MFAKIT_HD LocalProblem make_local_problem(Arena& arena, const Coordinates& q) {
  const index_t R = q.l * most_members;
  LocalProblem p{};
  p.rows = arena.doubles(R * R);
  p.basis = arena.doubles(R * R);
  p.pivot = arena.indices(R);
  p.e = arena.doubles(most_members * R);
  p.b = arena.doubles(most_sources * R);
  p.K = arena.doubles(most_sides * R * R);
  p.P = arena.doubles(R * R);
  p.delta = arena.doubles(R);
  p.work = arena.doubles(most_members * R);
  return p;
}

// The column of row i of the members' rows: the f-th row of U_j is row j l + f.
MFAKIT_HD index_t row_column(const Coordinates& q, const LocalProblem& p, index_t i) {
  return q.column(p.component[i / q.l]) + i % q.l;
}

// Below this squared length the Gram matrix does not say accurately where a direction points, and it is dropped.
constexpr double shared_direction = 1e-4;

// E by a pivoted Cholesky factorization of the rows' Gram matrix, which drops directions that rows share. Leaves in
// p.work the squared length that each row has off E, 0 for the rows that make E.
MFAKIT_HD void make_basis(const Coordinates& q, LocalProblem& p) {
  const index_t R = p.width;
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
  if (p.rank == p.width || p.rank == p.d) return sum;
  const double off = sqrt_(p.off2[j]) + p.radius;
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

// e_j = v - m_j on E at the point with inner products a.
MFAKIT_HD void project_on_basis(const Coordinates& q, const double* a /*[C]*/, LocalProblem& p) {
  const index_t r = p.rank, R = p.width;
  for (index_t i = 0; i < r; ++i) {
    for (index_t k = 0; k < r; ++k) p.basis[i * r + k] = k <= i ? p.rows[p.pivot[i] * R + k] : 0.0;
  }
  for (int j = 0; j < p.members(); ++j) {
    const index_t mean = q.mean_column(p.component[j]);
    double* e = p.e + j * R;
    for (index_t i = 0; i < r; ++i) {
      const index_t c = row_column(q, p, p.pivot[i]);
      e[i] = a[c] - q.row(c)[mean];
    }
    solve_lower(p.basis, r, e);
  }
}

// 1/s2 of the sides, and how the targets' e are mixed.
MFAKIT_HD void mix_noise(const Coordinates& q, LocalProblem& p) {
  for (int s = 0; s <= p.m; ++s) p.inverse[s] = 0.0;
  for (int j = 0; j < p.members(); ++j) p.inverse[p.side(j)] += p.weight(j) / q.variance[p.component[j]];
  for (int t = 0; t < p.n_targets; ++t) p.mix[t] = p.share[t] / q.variance[p.component[t]] / p.inverse[0];
}

// Inner products of the sides' e off E. The squares of the members have their rounding added, as often as there are
// members: that bounds the rounding of every combination of them.
MFAKIT_HD void gram_off_basis(const Coordinates& q, const double* a /*[C]*/, double sq, LocalProblem& p) {
  const index_t R = p.width;
  const int n = p.members();
  for (int i = 0; i < most_sides * most_sides; ++i) p.gram_perp[i] = 0.0;
  for (int j = 0; j < n; ++j) {
    for (int k = 0; k < n; ++k) {
      const index_t mj = q.mean_column(p.component[j]), mk = q.mean_column(p.component[k]);
      double dot = sq - a[mj] - a[mk] + q.row(mj)[mk];
      for (index_t i = 0; i < p.rank; ++i) dot -= p.e[j * R + i] * p.e[k * R + i];
      if (j == k) dot = p.off2[j] = not_negative(dot) + n * p.units * magnitude(q, a, sq, p.component[j]);
      const double of_j = j < p.n_targets ? p.mix[j] : 1.0, of_k = k < p.n_targets ? p.mix[k] : 1.0;
      p.gram_perp[p.side(j) * most_sides + p.side(k)] += of_j * of_k * dot;
    }
  }
}

// kappa, and q0 raised, by all that rounding and the directions dropped from E may change.
MFAKIT_HD void add_roundings(const Coordinates& q, const Rounding& all, const double* a /*[C]*/, double sq,
                             const double* log_prob /*[K]*/, LocalProblem& p) {
  const Rounding rounding{p.units, all.tilt, all.size};
  double nats[most_sides] = {}, curvature[most_sides] = {};
  for (int j = 0; j < p.members(); ++j) {
    const index_t component = p.component[j];
    const double error = log_prob_error(q, rounding, a, sq, log_prob[component], component);
    nats[p.side(j)] += p.weight(j) * (error + 2.0 * dropped_nats(q, a, p, j));
    curvature[p.side(j)] += p.weight(j) * hessian_error(q, rounding, component);
  }
  for (int s = 0; s < p.m; ++s) {
    p.q0[s] += nats[0] + nats[s + 1];
    p.kappa[s] = p.inverse[s + 1] - p.inverse[0] + curvature[0] + curvature[s + 1];
  }
}

// K and the gradients of log p on E, of the sides; the gradients, left in p.work, make the b_i.
MFAKIT_HD void differentiate(const Coordinates& q, LocalProblem& p) {
  const index_t l = q.l, r = p.rank, R = p.width;
  for (int s = 0; s <= p.m; ++s) {
    for (index_t i = 0; i < r; ++i) p.work[s * R + i] = 0.0;
    for (index_t i = 0; i < r * r; ++i) p.K[s * R * R + i] = 0.0;
  }
  for (int j = 0; j < p.members(); ++j) {
    const double *gain = q.gain + p.component[j] * l, *e = p.e + j * R;
    const double weight = p.weight(j);
    double *K = p.K + p.side(j) * R * R, *gradient = p.work + p.side(j) * R;
    for (index_t i = 0; i < r; ++i) gradient[i] -= weight / q.variance[p.component[j]] * e[i];
    for (index_t f = 0; f < l; ++f) {
      const double* u = p.rows + (j * l + f) * R;
      double y = 0.0;  // of the row cut to E
      for (index_t i = 0; i < r; ++i) y += u[i] * e[i];
      for (index_t i = 0; i < r; ++i) {
        gradient[i] += weight * gain[f] * y * u[i];
        for (index_t k = 0; k <= i; ++k) K[i * r + k] += weight * gain[f] * u[i] * u[k];
      }
    }
  }
  for (int s = 0; s < p.m; ++s) {
    for (index_t i = 0; i < r; ++i) p.b[s * R + i] = p.work[i] - p.work[(s + 1) * R + i];
  }
}

// The e of the sides in place of those of the members.
MFAKIT_HD void mix_targets(LocalProblem& p) {
  const index_t R = p.width;
  for (index_t i = 0; i < p.rank; ++i) {
    double sum = 0.0;
    for (int t = 0; t < p.n_targets; ++t) sum += p.mix[t] * p.e[t * R + i];
    p.e[i] = sum;
    for (int s = 0; s < p.m; ++s) p.e[(s + 1) * R + i] = p.e[(p.n_targets + s) * R + i];
  }
}

// All of the problem that does not depend on lambda, at the point with inner products a and squared length sq, where
// the components have log_prob. Reads p.component, share, n_targets, m, d, radius, and q0 without roundings.
MFAKIT_HD void set_up(const Coordinates& q, const Rounding& rounding, const double* a /*[C]*/, double sq,
                      const double* log_prob /*[K]*/, LocalProblem& p) {
  p.width = q.l * p.members();
  make_basis(q, p);
  p.has_complement = p.rank < p.d;
  project_on_basis(q, a, p);
  mix_noise(q, p);
  gram_off_basis(q, a, sq, p);
  add_roundings(q, rounding, a, sq, log_prob, p);  // reads the lengths off E, which differentiate() overwrites
  differentiate(q, p);
  mix_targets(p);
}

}  // namespace mfakit
