// The quadric of one pair at a sample: q(delta) = log p_t(x + delta) + c - log p_s(x + delta), source s, target t, in
// the eigenvectors of its Hessian, with the roundings of both densities added.
#pragma once

#include "rounding.hpp"
#include "secular.hpp"

namespace mfakit {

// Eigendecompositions of H - kappa I = U_t^T gain_t U_t - U_s^T gain_s U_s for every pair s < t of different classes.
struct PairQuadrics {
  const index_t* rows;    // [K, K] row of the tables below, -1 within a class; symmetric
  const index_t* rank;    // [P]
  const double* theta;    // [P, 2 l] eigenvalues for source s, target t (the other way round they change sign)
  const double* vectors;  // [P, 2 l, 2 l] eigenvectors as rows of coefficients of [U_s; U_t]
  index_t d;
  Rounding rounding;
};

struct PairScratch {
  double* y;      // [6 l]
  double* beta2;  // [2 l + 1]
  double* h;      // [2 l + 1]
};

MFAKIT_HD PairScratch make_pair_scratch(Arena& arena, const Coordinates& q) {
  PairScratch s{};
  s.y = arena.doubles(6 * q.l);
  s.beta2 = arena.doubles(2 * q.l + 1);
  s.h = arena.doubles(2 * q.l + 1);
  return s;
}

// On the rows of [U_s; U_t], source rows first: e_s = v - m_s, e_t = v - m_t and b = grad log p_t - grad log p_s at the
// point with inner products a; [2 l] each.
MFAKIT_HD void project_on_pair(const Coordinates& q, const double* a /*[C]*/, index_t s, index_t t, double* es,
                               double* et, double* b) {
  const index_t l = q.l, ms = q.mean_column(s), mt = q.mean_column(t);
  for (index_t f = 0; f < l; ++f) {
    const double *us = q.row(q.column(s) + f), *ut = q.row(q.column(t) + f);
    es[f] = a[q.column(s) + f] - us[ms];
    et[f] = a[q.column(s) + f] - us[mt];
    es[l + f] = a[q.column(t) + f] - ut[ms];
    et[l + f] = a[q.column(t) + f] - ut[mt];
  }
  for (index_t f = 0; f < l; ++f) {
    const double *us = q.row(q.column(s) + f), *ut = q.row(q.column(t) + f);
    double from_t = 0.0, from_s = 0.0;  // U_s U_t^T gain_t y_t and U_t U_s^T gain_s y_s
    for (index_t g = 0; g < l; ++g) {
      from_t += us[q.column(t) + g] * q.gain[t * l + g] * et[l + g];
      from_s += ut[q.column(s) + g] * q.gain[s * l + g] * es[g];
    }
    b[f] = q.spread[s * l + f] * es[f] - et[f] / q.variance[t] + from_t;
    b[l + f] = -q.spread[t * l + f] * et[l + f] + es[l + f] / q.variance[s] - from_s;
  }
}

// The quadric of one source s and target t at the point (a, sq) in the eigenbasis of H; its arrays are in `scratch`.
// What rounding may change of H and b is added, so that q is above the exact one wherever it is asked for; q0 is q(0)
// with its own part of the rounding added by the caller.
MFAKIT_HD Quadric pair_quadric(const Coordinates& q, const PairQuadrics& table, const double* a /*[C]*/, double sq,
                               index_t s, index_t t, double q0, PairScratch& scratch) {
  const index_t l = q.l, pair = table.rows[s * q.n_components + t], rank = table.rank[pair];
  const bool swapped = s > t;
  const Rounding& rounding = table.rounding;
  const double kappa =
      1.0 / q.variance[s] - 1.0 / q.variance[t] + hessian_error(q, rounding, s) + hessian_error(q, rounding, t);
  const index_t ms = q.mean_column(s), mt = q.mean_column(t);
  double *es = scratch.y, *et = es + 2 * l, *b = et + 2 * l;
  project_on_pair(q, a, s, t, es, et, b);
  double ss = sq - 2.0 * a[ms] + q.row(ms)[ms], tt = sq - 2.0 * a[mt] + q.row(mt)[mt];
  double st = sq - a[ms] - a[mt] + q.row(ms)[mt];
  Quadric out{scratch.beta2, scratch.h, rank, kappa, q0};
  const double* theta = table.theta + pair * 2 * l;
  for (index_t i = 0; i < rank; ++i) {
    const double* T = table.vectors + (pair * 2 * l + i) * 2 * l;
    double zs = 0.0, zt = 0.0, beta = 0.0;
    for (index_t f = 0; f < 2 * l; ++f) {
      const index_t at = swapped ? (f < l ? f + l : f - l) : f;  // the table has the smaller component's rows first
      zs += T[f] * es[at];
      zt += T[f] * et[at];
      beta += T[f] * b[at];
    }
    ss -= zs * zs;
    tt -= zt * zt;
    st -= zs * zt;
    scratch.beta2[i] = beta * beta;
    scratch.h[i] = kappa + (swapped ? -theta[i] : theta[i]);
    out.h_max = i == 0 && rank == table.d ? scratch.h[0] : (scratch.h[i] > out.h_max ? scratch.h[i] : out.h_max);
  }
  if (rank < table.d) {  // off the span H is kappa, and only the length of b there matters
    const double is = 1.0 / q.variance[s], it = 1.0 / q.variance[t];
    scratch.h[rank] = kappa;
    // These squares may cancel almost completely, so their own rounding is added: a larger b only lowers the bound. A
    // quarter of a log-density's for each square, and twice that for the cross term, which their sum bounds.
    const double error = 0.5 * rounding.units * (magnitude(q, a, sq, s) * is * is + magnitude(q, a, sq, t) * it * it);
    scratch.beta2[rank] =
        error + not_negative(not_negative(tt) * it * it + not_negative(ss) * is * is - 2.0 * st * it * is);
    out.count = rank + 1;
  }
  return out;
}

}  // namespace mfakit
