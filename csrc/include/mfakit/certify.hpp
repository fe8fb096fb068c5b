// The smallest perturbation of one sample, bracketed: a proven lower bound, and a point beyond the boundary.
//
// At a flip x + delta to another class T let t be its most likely component. Then log p_t + c_t >= log p_S for any c_t
// that is at least log p_T - log p_t, and log p_S >= log of the sum over any sources s. So the radius is at least min_t
// of any lower bound on min |delta| under that constraint: one source by its secular equation, a few by their dual. c_t
// <= log |T|, and usually much less: within a ball around x that is known to hold a flip, what the others of T can add
// is bounded by
//   sqrt(maha_j(x + delta)) within |delta| / sigma_j of sqrt(maha_j(x)).
// The dual's primal point, pushed along its ray to the mixture's own boundary, gives the upper bound.
#pragma once

#include "dual.hpp"
#include "quadric.hpp"
#include "walk.hpp"

namespace mfakit {

// What a lower bound gives away for the roundings of all that follows the densities, relative.
constexpr double bound_margin = 1e-10;

// A source joins the dual if its density at the primal point is at least e^-this of the target's.
constexpr double worth_adding = 12.0;

// A direction u = alpha v0 + w . columns from the sample, its inner products a with the columns, |u|^2 and v0 . u.
struct Ray {
  double alpha;
  double* w;  // [C]
  double* a;  // [C]
  double norm2, along;
};

struct Sample {
  const double* a;  // [C]
  double sq;
  index_t y;
};

struct Certificate {
  double lower, upper;
  index_t source, target, rival;
  index_t n_pairs, n_duals;
};

struct CertifyScratch {
  Decision decision;
  Combination g;  // room for the larger of (most_sources + 1)(l + 1) and 2 (most_active + 1)(l + 1) entries
  PairScratch pair;
  LocalProblem problem;
  double* bound;        // [K] lower bound by target
  double* offset;       // [K] c_t
  double* error;        // [K] how far log p_j at x may be off
  unsigned char* done;  // [K] targets that were refined
  double* trial;        // [C]
  double* point;        // [2 C] inner products and coefficients of a point
  Ray ray;
};

// min(1, largest p_j / p_t within `radius`), each log p at x off by `error` at most.
MFAKIT_HD double largest_ratio(const Coordinates& q, const double* log_prob, const double* error, double radius,
                               index_t j, index_t t) {
  if (log_prob[j] == -infinity_()) return 0.0;
  if (log_prob[t] == -infinity_() || radius == infinity_()) return 1.0;
  const double maha_j = not_negative(2.0 * (q.log_const[j] - log_prob[j] - error[j]));
  const double maha_t = not_negative(2.0 * (q.log_const[t] - log_prob[t] + error[t]));
  const double near = not_negative(sqrt_(maha_j) - radius / sqrt_(q.variance[j]));
  const double far = sqrt_(maha_t) + radius / sqrt_(q.variance[t]);
  const double rounding = error[j] + error[t] + rounding_units * (near * near + far * far);
  const double log_ratio = q.log_const[j] - 0.5 * near * near - q.log_const[t] + 0.5 * far * far + rounding;
  return log_ratio < 0.0 ? exp_(log_ratio) : 1.0;
}

constexpr int most_active = 6;  // components of a class that shape its boundary at one point

// The decision at x + tau u; returns log p_rival - log p_y, rival the best other class.
MFAKIT_HD double margin_at(const Coordinates& q, const Sample& x, const Ray& u, double tau, CertifyScratch& s) {
  for (index_t i = 0; i < q.size(); ++i) s.trial[i] = x.a[i] + tau * u.a[i];
  decide(q, s.trial, not_negative(x.sq + 2.0 * tau * u.along + tau * tau * u.norm2), s.decision);
  double best = -infinity_();
  for (index_t c = 0; c < q.n_classes; ++c) {
    if (c != x.y && s.decision.total[c] > best) best = s.decision.total[c];
  }
  return best - s.decision.total[x.y];
}

// The nearest crossing found along u from `inside` (not beyond the boundary) outwards, tau ~ start; infinite if there
// is none within 4 start. What is returned is beyond the boundary.
MFAKIT_HD double push(const Coordinates& q, const Sample& x, const Ray& u, double inside, double start,
                      CertifyScratch& s) {
  double high = start, f_high = margin_at(q, x, u, high, s), low = inside < high ? inside : 0.0;
  for (double factor = 1e-9; !(f_high > 0.0); factor *= 10.0) {
    if (factor > 4.0) return infinity_();
    low = high;
    high = start * (1.0 + factor);
    f_high = margin_at(q, x, u, high, s);
  }
  double f_low = margin_at(q, x, u, low, s);
  if (f_low > 0.0) {
    low = 0.0;
    f_low = margin_at(q, x, u, 0.0, s);
  }
  for (int i = 0; i < 100 && high - low > 1e-13 * high; ++i) {
    double middle = (low * f_high - high * f_low) / (f_high - f_low);  // false position, Illinois
    if (!(middle > low && middle < high) || i % 4 == 3) middle = 0.5 * (low + high);
    const double f = margin_at(q, x, u, middle, s);
    if (f > 0.0) {
      high = middle;
      f_high = f;
      f_low *= 0.5;
    } else {
      low = middle;
      f_low = f;
      f_high *= 0.5;
    }
  }
  return high;
}

// u = the combination g at the sample's own v0.
MFAKIT_HD void ray_of(const Coordinates& q, const Sample& x, const Combination& g, Ray& u) {
  u.norm2 = squared_norm(q, x.a, x.sq, g, &u.along);
  u.alpha = g.along_v;
  for (index_t i = 0; i < q.size(); ++i) {
    u.w[i] = 0.0;
    u.a[i] = g.along_v * x.a[i];
  }
  for (index_t k = 0; k < g.count; ++k) {
    u.w[g.index[k]] += g.coefficient[k];
    const double* row = q.row(g.index[k]);
    for (index_t i = 0; i < q.size(); ++i) u.a[i] += g.coefficient[k] * row[i];
  }
}

// If x + tau u is nearer than the best so far, keep it: alpha and w [C] of its delta.
MFAKIT_HD bool keep_if_nearer(const Coordinates& q, const Ray& u, double tau, Certificate& best, double* alpha,
                              double* w) {
  const double length = tau * sqrt_(u.norm2);
  if (!(length < best.upper)) return false;
  best.upper = length;
  *alpha = tau * u.alpha;
  for (index_t i = 0; i < q.size(); ++i) w[i] = tau * u.w[i];
  return true;
}

// Adds sign sum_j r_j grad log p_j of the components of class c that matter at the decided point.
MFAKIT_HD void add_class_gradient(const Coordinates& q, const double* a, index_t c, double sign, CertifyScratch& s) {
  double last = infinity_();
  for (int active = 0; active < most_active; ++active) {
    index_t next = -1;
    for (index_t j = q.first[c]; j < q.first[c + 1]; ++j) {  // the next largest
      if (s.decision.log_prob[j] < last && (next < 0 || s.decision.log_prob[j] > s.decision.log_prob[next])) next = j;
    }
    if (next < 0) return;
    last = s.decision.log_prob[next];
    const double r = exp_(last - s.decision.total[c]);
    if (r < 1e-9) return;
    add_gradient(q, a, next, sign * r, s.g);
  }
}

// Improve the upper bound on the mixture's own boundary. At the nearest point delta = theta g(x + delta) for the
// boundary's gradient g = kappa v + columns, v = v0 + delta, hence delta = theta / (1 - theta kappa) (kappa v0 +
// columns): cross along that ray, with g taken at the best point so far, and repeat while it gets nearer. Few columns
// whatever the number of rounds.
MFAKIT_HD void polish(const Coordinates& q, const Sample& x, Certificate& best, double* alpha, double* w,
                      CertifyScratch& s) {
  double* a = s.point;
  for (int round = 0; round < 30; ++round) {
    double norm2 = (1.0 + *alpha) * (1.0 + *alpha) * x.sq;  // |v|^2
    for (index_t i = 0; i < q.size(); ++i) a[i] = (1.0 + *alpha) * x.a[i];
    for (index_t k = 0; k < q.size(); ++k) {
      if (w[k] == 0.0) continue;
      const double* row = q.row(k);
      MFAKIT_SIMD
      for (index_t i = 0; i < q.size(); ++i) a[i] += w[k] * row[i];
      norm2 += w[k] * (1.0 + *alpha) * x.a[k];
    }
    for (index_t k = 0; k < q.size(); ++k) norm2 += w[k] * a[k];
    decide(q, a, norm2, s.decision);
    const index_t rival = rival_class(s.decision, q.n_classes, x.y);
    const double short_of = s.decision.total[x.y] - s.decision.total[rival];
    s.g.along_v = 0.0;
    s.g.count = 0;
    add_class_gradient(q, a, rival, 1.0, s);
    add_class_gradient(q, a, x.y, -1.0, s);
    ray_of(q, x, s.g, s.ray);
    const double length = sqrt_(s.ray.norm2);
    if (!(length > 0.0 && length < infinity_())) return;
    const double start = best.upper < infinity_() ? best.upper / length : short_of / s.ray.norm2;
    if (!(start > 0.0)) return;
    const double before = best.upper, tau = push(q, x, s.ray, best.lower / length, start, s);
    if (tau == infinity_() || !keep_if_nearer(q, s.ray, tau, best, alpha, w)) return;
    if (before - best.upper < 1e-9 * before) return;
  }
}

// Tighten the bound of one target by more sources, and try the primal points as upper bounds.
MFAKIT_HD void refine_target(const Coordinates& q, const PairTable& table, const Sample& x, index_t t,
                             index_t first_source, double first_lambda, double offset, const double* log_prob,
                             Certificate& best, double* alpha, double* w, CertifyScratch& s) {
  LocalProblem& p = s.problem;
  p.d = table.d;
  p.m = 1;
  p.component[0] = t;
  p.component[1] = first_source;
  double lambda[most_sources] = {first_lambda};
  for (;;) {
    for (int i = 0; i < p.m; ++i) {
      const index_t source = p.component[i + 1];
      p.q0[i] = log_prob[t] + offset - log_prob[source];
    }
    p.radius = best.upper;
    set_up(q, table.rounding, x.a, x.sq, log_prob, p);
    for (int tries = 0; tries < 200 && evaluate_dual(q, p, lambda).value == -infinity_(); ++tries) {
      for (int i = 0; i < p.m; ++i) lambda[i] *= tries < 8 ? 1.0 - 1e-8 : 0.9;  // inside the domain, from its edge
    }
    if (p.m > 1) wake_last(q, p, lambda);
    const double value = maximise_dual(q, p, lambda);
    ++best.n_duals;
    if (value > 0.0) {
      const double bound = sqrt_(2.0 * value) * (1.0 - bound_margin);
      if (bound > s.bound[t]) s.bound[t] = bound;
    }
    if (value == -infinity_()) return;
    primal_of_dual(q, p, s.g);
    ray_of(q, x, s.g, s.ray);
    if (!(s.ray.norm2 > 0.0)) return;
    // Which source is most in the way there? Asked before the ray is pushed on.
    margin_at(q, x, s.ray, 1.0, s);
    index_t worst = -1;
    double gap = -worth_adding;
    const double reference = s.decision.log_prob[t] + offset;
    for (index_t j = q.first[x.y]; j < q.first[x.y + 1]; ++j) {
      bool known = false;
      for (int i = 1; i <= p.m; ++i) known = known || p.component[i] == j;
      const double over = s.decision.log_prob[j] - reference;
      if (!known && over > gap) {
        gap = over;
        worst = j;
      }
    }
    const double tau = push(q, x, s.ray, best.lower / sqrt_(s.ray.norm2), 1.0, s);
    if (tau < infinity_()) keep_if_nearer(q, s.ray, tau, best, alpha, w);
    if (worst < 0 || p.m == most_sources || s.bound[t] >= best.upper) return;
    double total = 0.0;
    for (int i = 0; i < p.m; ++i) total += lambda[i];
    p.component[++p.m] = worst;
    lambda[p.m - 1] = 1e-3 * total;
  }
}

// c_t [K] of every target for flips within `radius` of the sample: log (1 + sum over the others of min(1, p_j / p_t)).
MFAKIT_HD void target_offsets(const Coordinates& q, const Sample& x, const double* log_prob, const double* error,
                              double radius, double* c) {
  for (index_t cls = 0; cls < q.n_classes; ++cls) {
    const index_t begin = q.first[cls], end = q.first[cls + 1];
    for (index_t t = begin; t < end; ++t) {
      double others = 0.0;
      for (index_t j = begin; j < end; ++j) {
        if (j != t) others += largest_ratio(q, log_prob, error, radius, j, t);
      }
      c[t] = cls == x.y ? 0.0 : log_(1.0 + others) * (1.0 + rounding_units);
    }
  }
}

// Lower bounds of all targets against the most likely source alone.
MFAKIT_HD void screen(const Coordinates& q, const PairTable& table, const Sample& x, const double* log_prob,
                      Certificate& best, CertifyScratch& s) {
  for (index_t c = 0; c < q.n_classes; ++c) {
    for (index_t t = q.first[c]; c != x.y && t < q.first[c + 1]; ++t) {
      const double q0 = log_prob[t] + s.offset[t] - log_prob[best.source] + s.error[t] + s.error[best.source];
      const SecularRoot root = solve_secular(pair_quadric(q, table, x.a, x.sq, best.source, t, q0, s.pair));
      s.done[t] = 0;
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
      if (!(open && s.done[t]) && (next < 0 || s.bound[t] < s.bound[next])) next = t;
    }
  }
  return next;
}

// A first point beyond the boundary: the gradient attack in steps of an eighth of the least it must go.
MFAKIT_HD void walk_across(const Coordinates& q, const Sample& x, double least, Certificate& best, double* alpha,
                           double* w, CertifyScratch& s) {
  if (!(least > 0.0 && least < infinity_())) return;
  Point p{s.ray.a, s.ray.w, 1.0, x.sq};
  for (index_t i = 0; i < q.size(); ++i) {
    p.a[i] = x.a[i];
    p.w[i] = 0.0;
  }
  WalkScratch scratch{s.decision, s.g, {s.point, s.point + q.size(), 1.0, 0.0}};
  const WalkReport report = walk(Serial(), q, x.y, {least / 8.0, 200, false, 30}, p, scratch);
  if (report.end != WalkEnd::flipped) return;
  Ray& u = s.ray;  // p lies in its buffers: delta = p - v0
  u.alpha = p.alpha - 1.0;
  u.along = -x.sq;  // v0 . (v - v0) and |v - v0|^2
  for (index_t i = 0; i < q.size(); ++i) u.along += u.w[i] * x.a[i];
  u.along += p.alpha * x.sq;
  u.norm2 = not_negative(p.sq - x.sq - 2.0 * u.along);
  for (index_t i = 0; i < q.size(); ++i) u.a[i] -= x.a[i];
  // Where the walk ended the margin is all but 0, and made up of other roundings here: push until it is positive.
  const double tau = push(q, x, u, 0.0, 1.0, s);
  if (tau < infinity_()) keep_if_nearer(q, u, tau, best, alpha, w);
}

// The bracket of one rightly classified sample; alpha and w [C] of the perturbation that attains `upper` (infinite if
// no point beyond the boundary was found).
MFAKIT_HD Certificate certify(const Coordinates& q, const PairTable& table, const Sample& x, double* log_prob /*[K]*/,
                              double* alpha, double* w, CertifyScratch& s) {
  Certificate best{0.0, infinity_(), -1, -1, -1, 0, 0};
  *alpha = 0.0;
  for (index_t i = 0; i < q.size(); ++i) w[i] = 0.0;
  decide(q, x.a, x.sq, s.decision);
  best.source = s.decision.best[x.y];
  if (!(fabs_(s.decision.total[x.y]) < infinity_())) {  // too far away for float64: nothing is known
    best.lower = best.upper = infinity_() - infinity_();
    return best;
  }
  for (index_t j = 0; j < q.n_components; ++j) {
    log_prob[j] = s.decision.log_prob[j];
    s.error[j] = log_prob_error(q, table.rounding, x.a, x.sq, log_prob[j], j);
  }
  target_offsets(q, x, log_prob, s.error, infinity_(), s.offset);  // log |T|
  screen(q, table, x, log_prob, best, s);
  walk_across(q, x, s.bound[nearest_target(q, x, false, s)], best, alpha, w, s);
  for (int pass = 0; pass < 3; ++pass) {
    polish(q, x, best, alpha, w, s);
    const double radius = best.upper;
    target_offsets(q, x, log_prob, s.error, radius, s.offset);
    screen(q, table, x, log_prob, best, s);
    for (;;) {  // the targets in the order of their bounds, while they can still beat the best point
      const index_t t = nearest_target(q, x, true, s);
      if (t < 0 || !(s.bound[t] < best.upper)) break;
      s.done[t] = 1;
      const Quadric pair =
          pair_quadric(q, table, x.a, x.sq, best.source, t, log_prob[t] + s.offset[t] - log_prob[best.source], s.pair);
      if (pair.q0 >= 0.0) continue;  // c_t alone bridges the gap: no bound from this target
      refine_target(q, table, x, t, best.source, solve_secular(pair).lambda, s.offset[t], log_prob, best, alpha, w, s);
    }
    polish(q, x, best, alpha, w, s);
    const double bound = s.bound[nearest_target(q, x, false, s)];
    if (bound > best.lower) best.lower = bound;
    // A tighter ball may tighten the c_t.
    if (best.upper - best.lower <= 1e-3 * best.upper || !(best.upper < 0.98 * radius)) break;
  }
  if (best.lower > best.upper) best.lower = best.upper;  // both within rounding of the truth
  if (best.upper < infinity_()) {
    best.rival = rival_class(s.decision, q.n_classes, x.y);  // as decided near the best point, by the last polish
    best.target = s.decision.best[best.rival];
  }
  return best;
}

}  // namespace mfakit
