// The Lagrangian of the nearest flip in the d features, for any noise, as far as it does not depend on lambda (at one
// lambda: feature_dual.hpp): min 1/2 |delta|^2 such that
// sum_t phi_t log p_t + offset >= log sum_i p_s_i at x + delta (dual.hpp is the same in factor coordinates; the
// readable version is python/mfakit/attacks/minimal/lagrangian.py). With the precision A_j = D_j^-1 - W_j^T W_j
//   q_i(delta) = q0_i + b_i . delta + 1/2 delta^T H_i delta,    H_i = A_s_i - sum_t phi_t A_t + what rounding may add,
//   D(lambda) = -sum lambda_i (q0_i + log theta_i) - 1/2 b^T P^-1 b,    b = sum lambda_i b_i,  P = I - sum lambda_i
//   H_i,
// where theta_i is lambda_i's share among the sources of its class.
#pragma once

#include "low_rank.hpp"
#include "rounding.hpp"

namespace mfakit {

// The last relative margin of a bound, as in bracket.hpp.
constexpr double feature_bound_margin = 1e-10;

// The components of a classifier, and what is known of them at one sample.
struct FeatureComponents {
  const double* inv_noise;        // [K, d] 1/D
  const double* log_const;        // [K]
  const double* tilt;             // [K] how far rounding tilts the loadings
  const index_t* owner;           // [K] classes
  const double* const* whitened;  // [K] of W [l, d]
  const index_t* factors;         // [K] l of each
  const double* maha;             // [K] squared Mahalanobis distances of x
  const double* rounding;         // [K] of log p_j(x + delta), what does not depend on delta
  const double* gradients;        // [K, d] of log p_j at x
  index_t K, d;
};

// Which components: sum_t share_t log p_t + offset against p sources.
struct FeatureProblem {
  const index_t* targets;  // [p]
  const double* share;     // [p]
  const index_t* sources;  // [m]
  index_t p, m;
  double offset;
  bool safe;           // whether the roundings of the log-densities are in q
  bool equal;          // one source and one target of the same density: log p_t - log p_s is the same everywhere
  const index_t* cls;  // [m] classes of the sources
};

// One lambda and what follows from it.
struct FeaturePoint {
  double* lambda;        // [m]
  double* delta;         // [d] the minimiser
  double* q;             // [m] q_i(delta) + log theta_i: minus D's gradient; 0 where lambda_i is
  LowRankFactor factor;  // of P, in a box between the features that are free
  double value;          // D(lambda)
  double quadratic;      // b^T P^-1 b; in a box -2 min 1/2 delta^T P delta - b^T delta
};

struct FeatureDual {
  index_t d, m, members;  // members: m sources and then the targets
  const index_t* cls;     // [m] classes of the sources
  index_t* first;         // [members + 1] the rows of each
  double* scale;          // [members] of A_j: rounding may make a target broader, and a source narrower
  double* q0;             // [m]
  double* b;              // [m, d]
  double* change;         // [m, d] diagonal of -H_i
  double* squares;        // [members, d] of the rows of W_j, added up
  LowRank P;              // at the last lambda
  double* total_b;        // [d] sum lambda_i b_i
  // Scratch of the functions below.
  double *left, *back, *extra, *coefficients, *T;

  MFAKIT_HD void lay_out(const FeatureComponents& c, const FeatureProblem& problem, Arena& arena) {
    d = c.d;
    m = problem.m;
    members = problem.m + problem.p;
    index_t rows = 0, plus = 0;
    for (index_t j = 0; j < members; ++j) {
      const index_t l = c.factors[j < m ? problem.sources[j] : problem.targets[j - m]];
      rows += l;
      if (j < m) plus += l;
    }
    first = arena.indices(members + 1);
    scale = arena.doubles(members);
    q0 = arena.doubles(m);
    b = arena.doubles(m * d);
    change = arena.doubles(m * d);
    squares = arena.doubles(members * d);
    P.d = d;
    P.n_rows = rows;
    P.n_plus = plus;
    P.row = reinterpret_cast<const double**>(arena.indices(rows));
    P.root = arena.doubles(rows);
    P.e = arena.doubles(d);
    P.terms = arena.doubles(d);
    P.spread = arena.doubles(d);
    P.y = arena.doubles(P.most());
    total_b = arena.doubles(d);
    left = arena.doubles(d);
    back = arena.doubles(d);
    extra = arena.doubles(d);
    coefficients = arena.doubles(rows);
    T = arena.doubles(P.most() * P.most());
  }

  MFAKIT_HD void lay_out(FeaturePoint& point, Arena& arena) const {
    point.lambda = arena.doubles(m);
    point.delta = arena.doubles(d);
    point.q = arena.doubles(m);
    point.factor.lay_out(P, arena);
  }
};

// q0, b, H's diagonal and the rows of a problem, errors of q0 and H added.
MFAKIT_HD void set_up(const FeatureComponents& c, const FeatureProblem& problem, FeatureDual& L) {
  const index_t d = c.d, m = problem.m;
  const double shift = 6.0 * rounding_units;  // of H, in units of D^-1: (|r| + |delta|)^2 <= 3/2 r^2 + 3 delta^2
  const bool tilted = problem.safe && !problem.equal;
  L.cls = problem.cls;
  const double** rows = const_cast<const double**>(L.P.row);
  index_t row = 0;
  double log_target = problem.offset, target_rounding = 0.0;
  for (index_t i = 0; i < L.members; ++i) {
    const index_t j = i < m ? problem.sources[i] : problem.targets[i - m];
    const double tilt = tilted ? 2.0 * c.tilt[j] : 0.0, share = i < m ? 1.0 : problem.share[i - m];
    L.scale[i] = i < m ? 1.0 + tilt : share * (tilt < 1.0 ? 1.0 - tilt : 0.0);
    L.first[i] = row;
    double* const squares = L.squares + i * d;
    for (index_t f = 0; f < d; ++f) squares[f] = 0.0;
    for (index_t a = 0; a < c.factors[j]; ++a) {
      const double* const w = c.whitened[j] + a * d;
      rows[row++] = w;
      MFAKIT_SIMD
      for (index_t f = 0; f < d; ++f) squares[f] += w[f] * w[f];
    }
    if (i < m) continue;
    log_target += share * c.log_const[j] - 0.5 * L.scale[i] * c.maha[j];
    target_rounding += share * c.rounding[j];
  }
  L.first[L.members] = row;
  for (index_t i = 0; i < m; ++i) {
    const index_t s = problem.sources[i];
    L.q0[i] = log_target - c.log_const[s] + 0.5 * L.scale[i] * c.maha[s];
    if (problem.safe) L.q0[i] += c.rounding[s] + target_rounding + rounding_units * fabs_(problem.offset);
    double* const b = L.b + i * d;
    double* const change = L.change + i * d;
    const double units = tilted ? shift * L.scale[i] : 0.0;
    for (index_t f = 0; f < d; ++f) {
      b[f] = -L.scale[i] * c.gradients[s * d + f];
      change[f] = 0.0;
    }
    for (index_t k = m; k < L.members; ++k) {
      const index_t t = problem.targets[k - m];
      const double share = problem.share[k - m], scale = L.scale[k];
      const double more = tilted ? share * shift * (1.0 + 2.0 * c.tilt[t]) : 0.0;
      MFAKIT_SIMD
      for (index_t f = 0; f < d; ++f) {
        b[f] += scale * c.gradients[t * d + f];
        change[f] += (scale - more) * c.inv_noise[t * d + f];
      }
    }
    MFAKIT_SIMD
    for (index_t f = 0; f < d; ++f) change[f] -= (L.scale[i] + units) * c.inv_noise[s * d + f];
  }
}

}  // namespace mfakit
