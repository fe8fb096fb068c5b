// The smallest perturbation of one sample, bracketed: a proven lower bound, and a point beyond the boundary.
//
// At a flip x + delta to another class T let t be its most likely component. Then log p_t + c_t >= log p_S for any c_t
// that is at least log p_T - log p_t, and log p_S >= log of the sum over any sources s. So the radius is at least min_t
// of any lower bound on min |delta| under that constraint: one source by its secular equation, a few by their dual. c_t
// <= log |T|, and usually much less: within a ball around x that is known to contain a flip, what the others of T can
// add is bounded by
//   sqrt(maha_j(x + delta)) within |delta| / sigma_j of sqrt(maha_j(x)).
// The dual's primal point, pushed along its ray to the mixture's own boundary, gives the upper bound.
#pragma once

#include "boundary.hpp"
#include "dual_ascent.hpp"
#include "quadric.hpp"

namespace mfakit {

// Subtracted from every lower bound for the rounding of all that follows the log-densities, relative.
constexpr double bound_margin = 1e-10;

// A source joins the dual if its density at the primal point is at least e^-this of the target's.
constexpr double worth_adding = 12.0;

struct Certificate {
  double lower, upper;
  index_t source, target, rival;  // components numbered over all classes; rival: the target's class
  index_t n_pairs, n_duals;
};

struct CertifyScratch {
  BoundaryScratch boundary;
  PairScratch pair;
  LocalProblem problem;
  double* log_prob;        // [K] log p_j at x
  double* error;           // [K] how far log p_j at x may be off
  double* offset;          // [K] c_t
  double* bound;           // [K] lower bound by target
  unsigned char* refined;  // [K] whether the bound of a target is by its dual

  // Lays the buffers out in `memory`, or only counts the values of 8 bytes that they take; returns their number.
  MFAKIT_HD index_t lay_out(const Coordinates& q, double* memory) {
    Arena arena{memory, 0};
    boundary = make_boundary_scratch(arena, q, (most_sources + 1) * (q.l + 1));  // a dual's primal point is put in g
    pair = make_pair_scratch(arena, q);
    problem = make_local_problem(arena, q);
    log_prob = arena.doubles(q.n_components);
    error = arena.doubles(q.n_components);
    offset = arena.doubles(q.n_components);
    bound = arena.doubles(q.n_components);
    refined = arena.bytes(q.n_components);
    return arena.used;
  }
};

// A bound on min(1, p_j / p_t) over the ball |delta| <= radius, whose log p at x are off by s.error at most.
MFAKIT_HD double largest_ratio(const Coordinates& q, const CertifyScratch& s, double radius, index_t j, index_t t) {
  if (s.log_prob[j] == -infinity_()) return 0.0;
  if (s.log_prob[t] == -infinity_() || radius == infinity_()) return 1.0;
  const double maha_j = not_negative(2.0 * (q.log_const[j] - s.log_prob[j] - s.error[j]));
  const double maha_t = not_negative(2.0 * (q.log_const[t] - s.log_prob[t] + s.error[t]));
  const double near = not_negative(sqrt_(maha_j) - radius / sqrt_(q.variance[j]));
  const double far = sqrt_(maha_t) + radius / sqrt_(q.variance[t]);
  const double rounding = s.error[j] + s.error[t] + rounding_units * (near * near + far * far);
  const double log_ratio = q.log_const[j] - 0.5 * near * near - q.log_const[t] + 0.5 * far * far + rounding;
  return log_ratio < 0.0 ? exp_(log_ratio) : 1.0;
}

// s.offset: c_t of every target for flips within `radius` of the sample, log (1 + sum over the others of min(1, p_j /
// p_t)).
MFAKIT_HD void target_offsets(const Coordinates& q, const Sample& x, double radius, CertifyScratch& s) {
  for (index_t cls = 0; cls < q.n_classes; ++cls) {
    const index_t begin = q.first[cls], end = q.first[cls + 1];
    for (index_t t = begin; t < end; ++t) {
      double others = 0.0;
      for (index_t j = begin; j < end; ++j) {
        if (j != t) others += largest_ratio(q, s, radius, j, t);
      }
      s.offset[t] = cls == x.y ? 0.0 : log_(1.0 + others) * (1.0 + rounding_units);
    }
  }
}

// s.bound: the lower bounds of all targets against the most likely source alone.
MFAKIT_HD void screen(const Coordinates& q, const PairQuadrics& table, const Sample& x, Certificate& best,
                      CertifyScratch& s) {
  for (index_t c = 0; c < q.n_classes; ++c) {
    for (index_t t = q.first[c]; c != x.y && t < q.first[c + 1]; ++t) {
      const double q0 = s.log_prob[t] + s.offset[t] - s.log_prob[best.source] + s.error[t] + s.error[best.source];
      const SecularRoot root = solve_secular(pair_quadric(q, table, x.a, x.sq, best.source, t, q0, s.pair));
      s.refined[t] = 0;
      s.bound[t] = root.bound > 0.0 ? sqrt_(2.0 * root.bound) * (1.0 - bound_margin) : 0.0;
      ++best.n_pairs;
    }
  }
}

// The target with the smallest bound, among those not yet refined if `open`; -1 if there is none.
MFAKIT_HD index_t nearest_target(const Coordinates& q, const Sample& x, bool open, const CertifyScratch& s) {
  index_t next = -1;
  for (index_t c = 0; c < q.n_classes; ++c) {
    for (index_t t = q.first[c]; c != x.y && t < q.first[c + 1]; ++t) {
      if (!(open && s.refined[t]) && (next < 0 || s.bound[t] < s.bound[next])) next = t;
    }
  }
  return next;
}

// The source that is furthest above the target at the decided point and not in the dual yet; -1 if none is worth
// adding.
MFAKIT_HD index_t missing_source(const Coordinates& q, const Sample& x, double log_target, const CertifyScratch& s) {
  const LocalProblem& p = s.problem;
  index_t missing = -1;
  double gap = -worth_adding;
  for (index_t j = q.first[x.y]; j < q.first[x.y + 1]; ++j) {
    bool known = false;
    for (int i = 1; i <= p.m; ++i) known = known || p.component[i] == j;
    const double over = s.boundary.decision.log_prob[j] - log_target;
    if (!known && over > gap) {
      gap = over;
      missing = j;
    }
  }
  return missing;
}

// Tighten the bound of target t by more sources than the first one, which starts with lambda; the duals' primal points
// are tried as flips.
MFAKIT_HD void refine_target(const Coordinates& q, const PairQuadrics& table, const Sample& x, index_t t,
                             double first_lambda, Certificate& best, NearestFlip& nearest, CertifyScratch& s) {
  LocalProblem& p = s.problem;
  BoundaryScratch& on = s.boundary;
  p.d = table.d;
  p.m = 1;
  p.component[0] = t;
  p.component[1] = best.source;
  double lambda[most_sources] = {first_lambda};
  for (;;) {
    for (int i = 0; i < p.m; ++i) p.q0[i] = s.log_prob[t] + s.offset[t] - s.log_prob[p.component[i + 1]];
    p.radius = nearest.length;
    set_up(q, table.rounding, x.a, x.sq, s.log_prob, p);
    shrink_into_domain(q, p, lambda);
    if (p.m > 1) start_last_multiplier(q, p, lambda);
    const double value = maximise_dual(q, p, lambda);
    ++best.n_duals;
    if (value > 0.0) {
      const double bound = sqrt_(2.0 * value) * (1.0 - bound_margin);
      if (bound > s.bound[t]) s.bound[t] = bound;
    }
    if (value == -infinity_()) return;
    primal_of_dual(q, p, on.g);
    ray_of(q, x, on.g, on.ray);
    if (!(on.ray.norm2 > 0.0)) return;
    margin_at(q, x, on.ray, 1.0, on);  // at the primal point itself, before it is pushed on
    const index_t missing = missing_source(q, x, on.decision.log_prob[t] + s.offset[t], s);
    const double tau = push(q, x, on.ray, best.lower / sqrt_(on.ray.norm2), 1.0, on);
    if (tau < infinity_()) keep_if_nearer(q, on.ray, tau, nearest);
    if (missing < 0 || p.m == most_sources || s.bound[t] >= nearest.length) return;
    const double total = sum_of(lambda, p.m);
    p.component[++p.m] = missing;
    lambda[p.m - 1] = 1e-3 * total;
  }
}

// Refine the targets in the order of their bounds, while these are shorter than the nearest flip.
MFAKIT_HD void refine_targets(const Coordinates& q, const PairQuadrics& table, const Sample& x, Certificate& best,
                              NearestFlip& nearest, CertifyScratch& s) {
  for (;;) {
    const index_t t = nearest_target(q, x, true, s);
    if (t < 0 || !(s.bound[t] < nearest.length)) return;
    s.refined[t] = 1;
    const double q0 = s.log_prob[t] + s.offset[t] - s.log_prob[best.source];
    const Quadric pair = pair_quadric(q, table, x.a, x.sq, best.source, t, q0, s.pair);
    if (pair.q0 >= 0.0) continue;  // c_t alone bridges the gap: no bound from this target
    refine_target(q, table, x, t, solve_secular(pair).lambda, best, nearest, s);
  }
}

// s.log_prob and s.error at the sample, and the most likely source; false if it is too far away for float64.
MFAKIT_HD bool start_at(const Coordinates& q, const PairQuadrics& table, const Sample& x, Certificate& best,
                        CertifyScratch& s) {
  const Decision& decision = s.boundary.decision;
  decide(q, x.a, x.sq, decision);
  best.source = decision.best[x.y];
  if (!(fabs_(decision.total[x.y]) < infinity_())) return false;
  for (index_t j = 0; j < q.n_components; ++j) {
    s.log_prob[j] = decision.log_prob[j];
    s.error[j] = log_prob_error(q, table.rounding, x.a, x.sq, s.log_prob[j], j);
  }
  return true;
}

// The bracket of one rightly classified sample, NaN where nothing is known, and the perturbation that attains `upper`.
MFAKIT_HD Certificate certify(const Coordinates& q, const PairQuadrics& table, const Sample& x, NearestFlip& nearest,
                              CertifyScratch& s) {
  Certificate best{0.0, infinity_(), -1, -1, -1, 0, 0};
  nearest.length = infinity_();
  nearest.alpha = 0.0;
  for (index_t i = 0; i < q.size(); ++i) nearest.w[i] = 0.0;
  if (!start_at(q, table, x, best, s)) {
    best.lower = best.upper = infinity_() - infinity_();
    return best;
  }
  target_offsets(q, x, infinity_(), s);  // log |T|
  screen(q, table, x, best, s);
  walk_across(q, x, s.bound[nearest_target(q, x, false, s)], nearest, s.boundary);
  for (int pass = 0; pass < 3; ++pass) {
    polish(q, x, best.lower, nearest, s.boundary);
    const double radius = nearest.length;
    target_offsets(q, x, radius, s);
    screen(q, table, x, best, s);
    refine_targets(q, table, x, best, nearest, s);
    polish(q, x, best.lower, nearest, s.boundary);
    const double bound = s.bound[nearest_target(q, x, false, s)];
    if (bound > best.lower) best.lower = bound;
    // A tighter ball may tighten the c_t.
    if (nearest.length - best.lower <= 1e-3 * nearest.length || !(nearest.length < 0.98 * radius)) break;
  }
  best.upper = nearest.length;
  if (best.lower > best.upper) best.lower = best.upper;  // both within rounding of the truth
  if (best.upper < infinity_()) {
    const Decision& decision = s.boundary.decision;  // as decided near the nearest flip, by the last polish
    best.rival = rival_class(decision, q.n_classes, x.y);
    best.target = decision.best[best.rival];
  }
  return best;
}

}  // namespace mfakit
