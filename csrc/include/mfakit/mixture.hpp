// The mixture's epilogue: from one row of the block product to log-probabilities, and what is summed over them.
//
//   log (w N(x)) = log_norm - 1/2 ( |x-mu|^2_{D^-1} - |W (x-mu)|^2 )
//   |x-mu|^2_{D^-1} = |xc|^2_{D^-1} - 2 xc . D^-1 m + |m|^2_{D^-1},   xc = x - c,  m = mu - c
#pragma once

#include "operands.hpp"
#include "team.hpp"

namespace mfakit {

// Components further than this below the best carry less than e^-40 = 4e-18 of the density: nothing in float64.
constexpr double cutoff_nats = 40.0;

// |W (x-mu)|^2 from y [l] = W xc and shift [l] = W m.
template <class Real>
MFAKIT_HD double explained(const Real* y /*[l]*/, const double* shift /*[l]*/, index_t l) {
  double sum = 0.0;
  for (index_t a = 0; a < l; ++a) {
    const double t = double(constant(y + a)) - constant(shift + a);
    sum += t * t;
  }
  return sum;
}

// A squared length that rounding may have pushed below zero; NaN stays NaN.
MFAKIT_HD double not_negative(double x) { return x < 0.0 ? 0.0 : x; }

// log (w N(x)) from y [l+1] = xc . [W rows, D^-1 m] and quad = |xc|^2_{D^-1}.
template <class Real>
MFAKIT_HD double component_log_prob(const Real* y /*[l+1]*/, const double* shift /*[l]*/, index_t l, double quad,
                                    double mean_norm, double log_norm) {
  const double maha = quad - 2.0 * double(constant(y + l)) + mean_norm - explained(y, shift, l);
  return log_norm - 0.5 * not_negative(maha);
}

// |xc|^2_{D^-1} of sample i for component j.
template <class Real>
MFAKIT_HD double weighted_norm(const Coarse<Real>& coarse, const Mixture& q, index_t i, index_t j) {
  return coarse.quad ? double(constant(coarse.quad + i * q.k + j))
                     : constant(coarse.sq_norms + i) * constant(q.inv_noise + j);
}

// log (w N(x)) of sample i for component j.
template <class Real>
MFAKIT_HD double component_log_prob(const Coarse<Real>& coarse, const Mixture& q, index_t i, index_t j) {
  return component_log_prob(coarse.products + i * coarse.stride + j * (q.l + 1), q.shift + j * q.l, q.l,
                            weighted_norm(coarse, q, i, j), constant(q.mean_norm + j), constant(q.log_norm + j));
}

// How far rounding may have moved that.
template <class Real>
MFAKIT_HD double coarse_error(const Coarse<Real>& coarse, const Mixture& q, index_t i, index_t j) {
  return coarse.slack * (weighted_norm(coarse, q, i, j) + constant(q.mean_norm + j));
}

// log sum exp of a row; a row of -inf gives -inf, a NaN gives NaN.
template <class Team>
MFAKIT_HD double log_sum_exp(const Team& team, const double* log_prob /*[k]*/, index_t k) {
  const double top = team.max(k, [=](index_t j) { return log_prob[j]; });
  if (top != top || top == -infinity_() || top == infinity_()) return top;
  return top + log_(team.sum(k, [=](index_t j) { return exp_(log_prob[j] - top); }));
}

MFAKIT_HD double log_sum_exp(const double* log_prob /*[k]*/, index_t k) { return log_sum_exp(Serial(), log_prob, k); }

// out = exp(log_prob) / sum exp(log_prob) of a row. Of what the best component has, so that the sum is 1 also where a
// log-density is so large that its rounding exceeds log k; a row of -inf, which no component explains, gives 1/k each.
template <class Team>
MFAKIT_HD void softmax(const Team& team, const double* log_prob /*[k]*/, index_t k, double* out /*[k]*/) {
  const double top = team.max(k, [=](index_t j) { return log_prob[j]; });
  if (top == -infinity_()) {
    team.each(k, [=](index_t j) { out[j] = 1.0 / double(k); });
    return;
  }
  const double total = team.sum(k, [=](index_t j) { return out[j] = exp_(log_prob[j] - top); });
  team.each(k, [=](index_t j) { out[j] /= total; });  // each member reads what it wrote itself
}

}  // namespace mfakit
