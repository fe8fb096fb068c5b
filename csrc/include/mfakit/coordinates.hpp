// A Bayes classifier of isotropic mixtures in factor coordinates: nothing of length d.
//
// With the thin SVD A_j = U_j^T S_j V_j^T (rows of U_j orthonormal, zero rows where A_j lacks rank) the columns of all
// components are U_j [l, d] and m_j = mu_j - c. A point x = c + v with v = alpha v0 + sum_i w_i column_i is known by
// its inner products a = columns . v [C], C = K (l + 1), and |v|^2; the Gram matrix of the columns gives all the rest.
//
//   log p_j(x) = const_j - 1/2 ( (|v - m_j|^2 - |y|^2) / s2_j + sum_a y_a^2 / (S_ja^2 + s2_j) ),   y = U_j (v - m_j)
//   grad log p_j(x) = -(v - m_j) / s2_j + U_j^T (gain_j y),   gain = 1/s2 - 1/(S^2 + s2)
#pragma once

#include "arena.hpp"
#include "mixture.hpp"
#include "operands.hpp"

namespace mfakit {

// y_a = U_ja (v - m_j).
MFAKIT_HD double latent_at(const Coordinates& q, const double* a /*[C]*/, index_t j, index_t factor) {
  const index_t i = q.column(j) + factor;
  return a[i] - q.offset[i];
}

// log (prior weight p_j) at the point with inner products a and squared length sq = |v|^2.
MFAKIT_HD double component_log_prob(const Coordinates& q, const double* a /*[C]*/, double sq, index_t j) {
  const index_t m = q.mean_column(j);
  double off = sq - 2.0 * a[m] + q.offset[m], on = 0.0;
  for (index_t f = 0; f < q.l; ++f) {
    const double y = latent_at(q, a, j, f);
    off -= y * y;
    on += q.spread[j * q.l + f] * y * y;
  }
  return q.log_const[j] - 0.5 * (not_negative(off) / q.variance[j] + on);
}

// What a decision needs of a point: each component's log-probability, each class's total and most likely component.
struct Decision {
  double* log_prob;  // [K]
  double* total;     // [n_classes]
  index_t* best;     // [n_classes]
};

MFAKIT_HD Decision make_decision(Arena& arena, const Coordinates& q) {
  Decision decision{};
  decision.log_prob = arena.doubles(q.n_components);
  decision.total = arena.doubles(q.n_classes);
  decision.best = arena.indices(q.n_classes);
  return decision;
}

template <class Team>
MFAKIT_HD void decide(const Team& team, const Coordinates& q, const double* a /*[C]*/, double sq, const Decision& out) {
  double* const log_prob = out.log_prob;
  team.each(q.n_components, [&](index_t j) { log_prob[j] = component_log_prob(q, a, sq, j); });
  team.sync();
  for (index_t c = 0; c < q.n_classes; ++c) {
    const index_t begin = q.first[c], count = q.first[c + 1] - begin;
    const double total = log_sum_exp(team, log_prob + begin, count);
    const index_t best = begin + team.argmax(count, [&](index_t j) { return log_prob[begin + j]; });
    team.each(1, [&](index_t) {
      out.total[c] = total;
      out.best[c] = best;
    });
  }
  team.sync();
}

MFAKIT_HD void decide(const Coordinates& q, const double* a /*[C]*/, double sq, const Decision& out) {
  decide(Serial(), q, a, sq, out);
}

// The class with the largest total; a tie goes to the lower label.
MFAKIT_HD index_t decided_class(const Decision& decision, index_t n_classes) {
  index_t best = 0;
  for (index_t c = 1; c < n_classes; ++c) {
    if (decision.total[c] > decision.total[best]) best = c;
  }
  return best;
}

// The class other than `c` whose most likely component is the most likely of all.
MFAKIT_HD index_t rival_class(const Decision& decision, index_t n_classes, index_t c) {
  index_t rival = c == 0 ? 1 : 0;
  for (index_t o = rival + 1; o < n_classes; ++o) {
    if (o != c && decision.log_prob[decision.best[o]] > decision.log_prob[decision.best[rival]]) rival = o;
  }
  return rival;
}

// A vector along_v v + sum_i coefficient_i column_{index_i}: few columns.
struct Combination {
  double along_v;
  index_t* index;       // [count]
  double* coefficient;  // [count]
  index_t count;
};

MFAKIT_HD Combination make_combination(Arena& arena, index_t most) {
  Combination g{};
  g.index = arena.indices(most);
  g.coefficient = arena.doubles(most);
  return g;
}

// out += scale * grad log p_j; out.count must be a plain number of each member of the team, its arrays shared.
template <class Team>
MFAKIT_HD void add_gradient(const Team& team, const Coordinates& q, const double* a /*[C]*/, index_t j, double scale,
                            Combination& out) {
  const double inverse = scale / q.variance[j];
  index_t* const index = out.index + out.count;
  double* const coefficient = out.coefficient + out.count;
  team.each(q.l + 1, [&](index_t f) {
    index[f] = q.column(j) + f;  // the last one is the mean's
    coefficient[f] = f == q.l ? inverse : scale * q.gain[j * q.l + f] * latent_at(q, a, j, f);
  });
  out.along_v -= inverse;
  out.count += q.l + 1;
}

MFAKIT_HD void add_gradient(const Coordinates& q, const double* a /*[C]*/, index_t j, double scale, Combination& out) {
  add_gradient(Serial(), q, a, j, scale, out);
}

// |g|^2 of a combination g at the point (a, sq), and v . g in *along.
template <class Team>
MFAKIT_HD double squared_norm(const Team& team, const Coordinates& q, const double* a /*[C]*/, double sq,
                              const Combination& g, double* along) {
  const index_t* const index = g.index;
  const double* const coefficient = g.coefficient;
  const index_t count = g.count;
  const double linear = team.sum(count, [&](index_t i) { return coefficient[i] * a[index[i]]; });
  const double quadratic = team.sum(count, [&](index_t i) {
    const double* row = q.row(index[i]);
    double dot = 0.0;
    for (index_t k = 0; k < count; ++k) dot += row[index[k]] * coefficient[k];
    return coefficient[i] * dot;
  });
  *along = g.along_v * sq + linear;
  return not_negative(g.along_v * g.along_v * sq + 2.0 * g.along_v * linear + quadratic);
}

MFAKIT_HD double squared_norm(const Coordinates& q, const double* a /*[C]*/, double sq, const Combination& g,
                              double* along) {
  return squared_norm(Serial(), q, a, sq, g, along);
}

// A point of the walk: v = alpha v0 + w . columns, its inner products and squared length.
struct Point {
  double* a;  // [C]
  double* w;  // [C]
  double alpha, sq;
};

MFAKIT_HD Point make_point(Arena& arena, const Coordinates& q) {
  Point p{};
  p.a = arena.doubles(q.size());
  p.w = arena.doubles(q.size());
  return p;
}

// v += tau g, where |g|^2 = norm2 and v . g = along.
template <class Team>
MFAKIT_HD void move(const Team& team, const Coordinates& q, Point& p, const Combination& g, double tau, double norm2,
                    double along) {
  const double keep = 1.0 + tau * g.along_v;
  p.sq = not_negative(p.sq + 2.0 * tau * along + tau * tau * norm2);
  const index_t size = q.size();
  double *const a = p.a, *const w = p.w;
  if (keep != 1.0) {
    p.alpha *= keep;
    team.stream(size, [=](index_t i) { a[i] *= keep; });
    team.stream(size, [=](index_t i) { w[i] *= keep; });
  }
  // The Gram matrix is symmetric: a row is a column. Four at a time, so that a is read and written less often.
  for (index_t k = 0; k < g.count; k += 4) {
    const double* row[4];
    double step[4];
    for (index_t b = 0; b < 4; ++b) {
      const index_t at = k + b < g.count ? k + b : k;
      row[b] = q.row(g.index[at]);
      step[b] = k + b < g.count ? tau * g.coefficient[at] : 0.0;
    }
    team.stream(size, [=](index_t i) {
      a[i] += step[0] * row[0][i] + step[1] * row[1][i] + step[2] * row[2][i] + step[3] * row[3][i];
    });
  }
  team.sync();
  team.each(g.count, [&](index_t k) { w[g.index[k]] += tau * g.coefficient[k]; });
  team.sync();
}

MFAKIT_HD void move(const Coordinates& q, Point& p, const Combination& g, double tau, double norm2, double along) {
  move(Serial(), q, p, g, tau, norm2, along);
}

}  // namespace mfakit
