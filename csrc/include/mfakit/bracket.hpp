// What is known of one sample while its bracket is found, by target.
#pragma once

#include "boundary.hpp"
#include "dual_ascent.hpp"
#include "quadric.hpp"
#include "slices.hpp"

namespace mfakit {

// Subtracted from every lower bound for the rounding of all that follows the log-densities, relative.
constexpr double bound_margin = 1e-10;

// A source joins the dual if its density at the primal point is at least e^-this of the target's.
constexpr double worth_adding = 12.0;

// Relative gap below which no slice is cut, and the share of a gap that a cut must be predicted to close.
constexpr double closed = 1e-4, visible_share = 1e-2;

// Duals of one sample after which nothing more is parted or cut.
constexpr index_t most_duals = 200;

struct Certificate {
  double lower, upper;
  index_t source, target, rival;  // components numbered over all classes; rival: the target's class
  index_t n_pairs, n_duals;
};

struct CertifyScratch {
  BoundaryScratch boundary;
  PairScratch pair;
  LocalProblem problem;
  Slice slices[most_slices];
  Slice near;              // one that may turn out not to matter
  double* log_prob;        // [K] log p_j at x
  double* error;           // [K] how far log p_j at x may be off
  double* offset;          // [K] c_t
  double* bound;           // [K] lower bound by target
  unsigned char* refined;  // [K] whether the bound of a target is by its dual

  // Lays the buffers out in `memory`, or only counts the values of 8 bytes that they take; returns their number.
  MFAKIT_HD index_t lay_out(const Coordinates& q, double* memory) {
    Arena arena{memory, 0};
    boundary = make_boundary_scratch(arena, q, most_members * (q.l + 1));  // a dual's primal point is put in g
    pair = make_pair_scratch(arena, q);
    problem = make_local_problem(arena, q);
    for (int i = 0; i < most_slices; ++i) mfakit::lay_out(arena, q, slices[i]);
    mfakit::lay_out(arena, q, near);
    log_prob = arena.doubles(q.n_components);
    error = arena.doubles(q.n_components);
    offset = arena.doubles(q.n_components);
    bound = arena.doubles(q.n_components);
    refined = arena.bytes(q.n_components);
    return arena.used;
  }
};

// A bound on log p_j / p_t, at most 0, over the ball |delta| <= radius, whose log p at x are off by s.error at most.
MFAKIT_HD double largest_log_ratio(const Coordinates& q, const CertifyScratch& s, double radius, index_t j, index_t t) {
  if (s.log_prob[j] == -infinity_()) return -infinity_();
  if (s.log_prob[t] == -infinity_() || radius == infinity_()) return 0.0;
  const double maha_j = not_negative(2.0 * (q.log_const[j] - s.log_prob[j] - s.error[j]));
  const double maha_t = not_negative(2.0 * (q.log_const[t] - s.log_prob[t] + s.error[t]));
  const double near = not_negative(sqrt_(maha_j) - radius / sqrt_(q.variance[j]));
  const double far = sqrt_(maha_t) + radius / sqrt_(q.variance[t]);
  const double rounding = s.error[j] + s.error[t] + rounding_units * (near * near + far * far);
  const double log_ratio = q.log_const[j] - 0.5 * near * near - q.log_const[t] + 0.5 * far * far + rounding;
  return log_ratio < 0.0 ? log_ratio : 0.0;
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

}  // namespace mfakit
