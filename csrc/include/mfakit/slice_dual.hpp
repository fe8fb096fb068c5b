// The dual of one slice of a target (slices.hpp): as many sources as it needs. Its primal points are tried as flips.
#pragma once

#include "bracket.hpp"

namespace mfakit {

// The source that is furthest above the target at the decided point and not in the dual yet; -1 if none is worth
// adding.
MFAKIT_HD index_t missing_source(const Coordinates& q, const Sample& x, double log_target, const CertifyScratch& s) {
  const LocalProblem& p = s.problem;
  index_t missing = -1;
  double gap = -worth_adding;
  for (index_t j = q.first[x.y]; j < q.first[x.y + 1]; ++j) {
    bool known = false;
    for (int i = p.n_targets; i < p.members(); ++i) known = known || p.component[i] == j;
    const double over = s.boundary.decision.log_prob[j] - log_target;
    if (!known && over > gap) {
      gap = over;
      missing = j;
    }
  }
  return missing;
}

// Of the first multipliers: Newton's steps do not bring back a share that is smaller by orders of magnitude.
constexpr double least_share = 1e-6;

// The first multipliers of the sources in p: by their shares at x, none too small to grow, and in all what reaches q =
// 0 without curvature. False if c alone bridges the gap, so that nothing can be proved.
MFAKIT_HD bool first_multipliers(const Coordinates& q, const CertifyScratch& s, LocalProblem& p, double* lambda) {
  double height = -infinity_(), sum = 0.0, need = 0.0, nearest_noise = infinity_();
  for (int i = 0; i < p.m; ++i) {
    const double own = s.log_prob[p.component[p.n_targets + i]];
    if (own > height) height = own;
  }
  for (int i = 0; i < p.m; ++i) {
    const double share = exp_(s.log_prob[p.component[p.n_targets + i]] - height);
    sum += lambda[i] = share > least_share ? share : least_share;
  }
  for (int i = 0; i < p.m; ++i) {
    lambda[i] /= sum;
    need -= lambda[i] * (p.q0[i] + log_(lambda[i]));
  }
  for (int j = 0; j < p.members(); ++j) {
    const double variance = q.variance[p.component[j]];
    if (variance < nearest_noise) nearest_noise = variance;
  }
  if (!(need > 0.0)) return false;
  for (int i = 0; i < p.m; ++i) lambda[i] *= 1e-6 * nearest_noise;  // P is close to I
  double A[most_sources * most_sources], reach = 0.0, total = sum_of(lambda, p.m);
  const DualPoint here = evaluate_dual(p, lambda);
  if (here.value == -infinity_()) return false;
  dual_curvature(p, here.rho, A);
  for (int i = 0; i < p.m; ++i) {
    for (int j = 0; j < p.m; ++j) reach += lambda[i] * A[i * p.m + j] * lambda[j] / (total * total);
  }
  if (!(reach > 0.0)) return false;
  for (int i = 0; i < p.m; ++i) lambda[i] *= need / reach / total;
  return true;
}

// The sources that a slice of target t starts with: the most likely one, or all that are likely where that one alone is
// not above log p_T's bound.
MFAKIT_HD void first_sources(const Coordinates& q, const Sample& x, double log_target, index_t source, Slice& slice,
                             const CertifyScratch& s) {
  slice.m = 1;
  slice.source[0] = source;
  slice.lambda[0] = 0.0;
  if (s.log_prob[source] > log_target) return;
  for (index_t j = q.first[x.y]; j < q.first[x.y + 1] && slice.m < most_sources; ++j) {
    if (j == source || s.log_prob[j] < s.log_prob[source] - worth_adding) continue;
    slice.lambda[slice.m] = 0.0;
    slice.source[slice.m++] = j;
  }
}

// The dual of one slice of target t, from its sources and multipliers on, with as many sources more as it needs; the
// duals' primal points are tried as flips.
MFAKIT_HD void solve_slice(const Coordinates& q, const PairQuadrics& table, const Sample& x, index_t t, index_t rival,
                           Slice& slice, double enough, Certificate& best, NearestFlip& nearest, CertifyScratch& s) {
  LocalProblem& p = s.problem;
  BoundaryScratch& on = s.boundary;
  p.d = table.d;
  const double offset = mixed_targets(slice, q.first[rival], q.first[rival + 1], t, p);
  double log_target = offset;
  for (int i = 0; i < p.n_targets; ++i) log_target += p.share[i] * s.log_prob[p.component[i]];
  if (slice.m == 0) first_sources(q, x, log_target, best.source, slice, s);
  bool joins = false;  // whether the last source is new
  for (;;) {
    p.m = slice.m;
    for (int i = 0; i < p.m; ++i) {
      p.component[p.n_targets + i] = slice.source[i];
      p.q0[i] = log_target - s.log_prob[slice.source[i]];
    }
    p.radius = nearest.length;
    set_up(q, table.rounding, x.a, x.sq, s.log_prob, p);
    shrink_into_domain(p, slice.lambda);
    // Multipliers of another slice that prove nothing here are too large, or have been made too small by one.
    if (!(evaluate_dual(p, slice.lambda).value > 0.0)) {
      if (!first_multipliers(q, s, p, slice.lambda)) return;
      shrink_into_domain(p, slice.lambda);
    }
    if (joins) start_last_multiplier(p, slice.lambda);
    const double value = maximise_dual(p, slice.lambda);
    ++best.n_duals;
    if (value > 0.0) {
      const double bound = sqrt_(2.0 * value) * (1.0 - bound_margin);
      if (bound > slice.bound) slice.bound = bound;
    }
    if (value == -infinity_()) return;
    primal_of_dual(q, p, on.g);
    ray_of(q, x, on.g, on.ray);
    if (!(on.ray.norm2 > 0.0)) return;
    margin_at(q, x, on.ray, 1.0, on);  // at the primal point itself, before it is pushed on
    const double* there = on.decision.log_prob;
    double target_there = offset;
    for (int i = 0; i < p.n_targets; ++i) target_there += p.share[i] * there[p.component[i]];
    for (index_t j = q.first[rival]; j < q.first[rival + 1]; ++j) slice.u[j] = there[t] - there[j];
    const index_t missing = missing_source(q, x, target_there, s);
    const double tau = push(q, x, on.ray, best.lower / sqrt_(on.ray.norm2), 1.0, on);
    if (tau < infinity_()) keep_if_nearer(q, on.ray, tau, nearest);
    if (missing < 0 || p.m == most_sources || slice.bound >= enough || slice.bound >= nearest.length) return;
    const double total = sum_of(slice.lambda, p.m);
    slice.source[slice.m] = missing;
    slice.lambda[slice.m++] = 1e-3 * total;
    joins = true;
  }
}

}  // namespace mfakit
