// The bound of one target made tighter: more sources, and slices of what its class adds to it.
#pragma once

#include "slice_dual.hpp"

namespace mfakit {

// How far below t others are set apart, nats, and how far where the dual does not say it: below this share of the
// nearest flip's length; and how often the pull of one that is near is halved.
constexpr double least_lead = 1.0, most_lead = 30.0, usual_lead = 14.0, known_from = 0.1;
constexpr int most_pulls = 6;

// How the slices of one target t are worked through. A slice whose bound is not good enough is parted: where all other
// components are well below t (`apart`), and, for each that was free, where that one is near t (`near`), which is
// mostly far from the sample. What is left is cut in two.
struct Refinement {
  index_t t, rival, first, last;  // first, last: of the rival's components
  Slice* current;                 // whose dual is to be solved
  int count;                      // of slices
  enum { whole, apart, near, half, rest } stage;
  int parent;          // the slice that is parted, or the second half of one that was cut
  index_t j;           // the component that is near
  double lead;         // how far below t is well below, nats
  double enough;       // a bound that need not be raised
  double floor;        // the least bound of the parts that need not be kept
  double least, most;  // between these is the best pull
  int tries;
};

// A bound on the radius where log p_j + nats bounds log p_T, by the most likely source alone.
MFAKIT_HD double pair_bound(const Coordinates& q, const PairQuadrics& table, const Sample& x, index_t source, index_t j,
                            double nats, CertifyScratch& s) {
  const double q0 = s.log_prob[j] + nats - s.log_prob[source] + s.error[j] + s.error[source];
  const SecularRoot root = solve_secular(pair_quadric(q, table, x.a, x.sq, source, j, q0, s.pair));
  return root.bound > 0.0 ? sqrt_(2.0 * root.bound) * (1.0 - bound_margin) : 0.0;
}

// The near part is kept where it may have the least bound later, as far as there is room.
MFAKIT_HD void put_aside(const NearestFlip& nearest, CertifyScratch& s, Refinement& w) {
  Slice& near = s.near;
  if (near.bound < (1.0 - closed) * nearest.length && w.count < most_slices) {
    near.pull = 0.0;
    swap(near, s.slices[w.count++]);
  } else if (near.bound < w.floor) {
    w.floor = near.bound;
  }
}

// The next free component of the parent, unless its part is far away already by a pair; false if there is none.
MFAKIT_HD bool next_near(const Coordinates& q, const PairQuadrics& table, const Sample& x, const Certificate& best,
                         const NearestFlip& nearest, CertifyScratch& s, Refinement& w) {
  const Slice& parent = s.slices[w.parent];
  while (++w.j < w.last) {
    if (!is_free(parent, w.j, w.t, w.lead)) continue;
    part_near(parent, w.first, w.last, w.j, w.lead, s.near);
    const double nats = mixed_targets(s.near, w.first, w.last, w.t, s.problem) + w.lead;
    const double bound = pair_bound(q, table, x, best.source, w.j, nats, s);
    if (bound > s.near.bound) s.near.bound = bound;
    if (s.near.bound >= w.enough || best.n_duals >= most_duals) {
      put_aside(nearest, s, w);
      continue;
    }
    w.least = 0.0;
    w.most = 1.0;
    w.tries = most_pulls;
    s.near.pull = 0.5;
    w.current = &s.near;
    return true;
  }
  swap(s.slices[w.parent], s.slices[--w.count]);
  return false;
}

// After the dual of the near part: whether another pull is to be tried. If not, the part is kept where it matters.
MFAKIT_HD bool pull_again(const Certificate& best, const NearestFlip& nearest, CertifyScratch& s, Refinement& w) {
  Slice& near = s.near;
  if (near.bound < w.enough && --w.tries > 0 && best.n_duals < most_duals) {
    (near.u[w.j] <= w.lead ? w.most : w.least) = near.pull;
    near.pull = 0.5 * (w.least + w.most);
    return true;
  }
  put_aside(nearest, s, w);
  return false;
}

// Part or cut the slice with the least bound; false if that bound is good enough, or the best that can be had.
MFAKIT_HD bool divide(const Certificate& best, const NearestFlip& nearest, CertifyScratch& s, Refinement& w) {
  int at = 0;
  for (int i = 1; i < w.count; ++i) {
    if (s.slices[i].bound < s.slices[at].bound) at = i;
  }
  Slice& worst = s.slices[at];
  const double bound = worst.bound < w.floor ? worst.bound : w.floor;
  if (bound > s.bound[w.t]) s.bound[w.t] = bound;
  const double missing = nearest.length - bound, open = closed * nearest.length;
  if (w.count == most_slices || best.n_duals >= most_duals || w.floor <= worst.bound || !(missing > open)) return false;
  int others = 1;  // and one more, that its logarithm is not 0
  for (index_t j = w.first; j < w.last; ++j) others += j != w.t && worst.low[j] < infinity_();
  // c nats less of p_T / p_t raise D by total c. What is left of the others apart should cost half of what may be open.
  const double total = sum_of(worst.lambda, worst.m);
  // Where D is nearly 0, total says nothing of how it will rise.
  const bool known = total > 0.0 && bound > known_from * nearest.length && missing < infinity_();
  w.lead = known ? clipped(log_(others * total / (0.5 * open * bound)), least_lead, most_lead) : usual_lead;
  bool any = false;
  for (index_t j = w.first; j < w.last; ++j) any = any || is_free(worst, j, w.t, w.lead);
  if (any && n_targets(worst, w.first, w.last, w.t) == most_targets) return false;  // no room for one that is near
  if (any) {
    w.parent = at;
    w.stage = Refinement::apart;
    w.current = s.slices + w.count++;
    part_apart(worst, w.first, w.last, w.t, w.lead, *w.current);
    return true;
  }
  const double visible = known ? visible_share * missing * worst.bound / total : 0.0;
  const Cut where = where_to_cut(worst, w.first, w.last, w.t, visible);
  if (where.j < 0) return false;
  w.stage = Refinement::half;
  w.parent = w.count++;
  w.current = &worst;
  cut(worst, w.first, w.last, where, s.slices[w.parent]);
  return true;
}

// What is to be solved next, after the dual of w.current; false if nothing is.
MFAKIT_HD bool advance(const Coordinates& q, const PairQuadrics& table, const Sample& x, const Certificate& best,
                       const NearestFlip& nearest, CertifyScratch& s, Refinement& w) {
  if (w.stage == Refinement::near && pull_again(best, nearest, s, w)) return true;
  if (w.stage == Refinement::apart) {
    w.j = w.first - 1;
    w.enough = (1.0 - closed) * nearest.length;
    if (w.current->bound < w.enough) w.enough = w.current->bound;
    w.stage = Refinement::near;
  }
  if (w.stage == Refinement::near && next_near(q, table, x, best, nearest, s, w)) return true;
  if (w.stage == Refinement::half) {
    w.current = s.slices + w.parent;
    w.stage = Refinement::rest;
    return true;
  }
  w.enough = infinity_();
  return divide(best, nearest, s, w);
}

// Tighten the bound of target t of class `rival`: more sources than the first one, which starts with lambda, and slices
// of what its class adds to it where that costs more than the bracket may be wide.
MFAKIT_HD void refine_target(const Coordinates& q, const PairQuadrics& table, const Sample& x, index_t t, index_t rival,
                             double first_lambda, Certificate& best, NearestFlip& nearest, CertifyScratch& s) {
  Slice& all = s.slices[0];
  Refinement w{t,
               rival,
               q.first[rival],
               q.first[rival + 1],
               &all,
               1,
               Refinement::whole,
               0,
               0,
               0.0,
               infinity_(),
               infinity_(),
               0.0,
               0.0,
               0};
  for (index_t j = w.first; j < w.last; ++j) {
    all.low[j] = all.at[j] = j == t ? 0.0 : -largest_log_ratio(q, s, nearest.length, j, t);
    all.high[j] = infinity_();
    all.u[j] = 0.0;
  }
  all.pulled = -1;
  all.pull = 0.0;
  all.bound = s.bound[t];
  all.m = first_lambda > 0.0;
  all.source[0] = best.source;
  all.lambda[0] = first_lambda;
  do {
    solve_slice(q, table, x, t, rival, *w.current, w.enough, best, nearest, s);
  } while (advance(q, table, x, best, nearest, s, w));
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
    index_t rival = 0;
    while (t >= q.first[rival + 1]) ++rival;
    refine_target(q, table, x, t, rival, pair.q0 < 0.0 ? solve_secular(pair).lambda : 0.0, best, nearest, s);
  }
}

}  // namespace mfakit
