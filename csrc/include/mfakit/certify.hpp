// The smallest perturbation of one sample, bracketed: a proven lower bound, and a point beyond the boundary.
//
// At a flip x + delta to another class T let t be its most likely component. Then log p_t + c_t >= log p_S for any c_t
// that is at least log p_T - log p_t, and log p_S >= log of the sum over any sources s. So the radius is at least min_t
// of any lower bound on min |delta| under that constraint: one source by its secular equation, a few by their dual. c_t
// <= log |T|, and usually much less: within a ball around x that is known to contain a flip, what the others of T can
// add is bounded by
//   sqrt(maha_j(x + delta)) within |delta| / sigma_j of sqrt(maha_j(x)),
// and where that leaves the bracket open, flips are sorted by how near the others are to t (slices.hpp).
// The dual's primal point, pushed along its ray to the mixture's own boundary, gives the upper bound.
#pragma once

#include "refine.hpp"

namespace mfakit {

// s.offset: c_t of every target for flips within `radius` of the sample, log (1 + sum over the others of min(1, p_j /
// p_t)).
MFAKIT_HD void target_offsets(const Coordinates& q, const Sample& x, double radius, CertifyScratch& s) {
  for (index_t cls = 0; cls < q.n_classes; ++cls) {
    const index_t begin = q.first[cls], end = q.first[cls + 1];
    for (index_t t = begin; t < end; ++t) {
      double others = 0.0;
      for (index_t j = begin; j < end; ++j) {
        if (j != t) others += exp_(largest_log_ratio(q, s, radius, j, t));
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
