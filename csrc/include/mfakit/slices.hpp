// Upper bounds on log p_T that are quadratic, on slices of the range of u_j = log p_t - log p_j, where t is the
// likeliest component of T and so u_j >= 0.
//
// log p_T = log p_t + log Z with Z = 1 + sum_j e^-u_j. On a slice a_j <= u_j <= b_j the convex e^-u is below its chord
// h_j - k_j u (b infinite: k = 0, h = e^-a), and the concave logarithm below its tangent at any Z0 > 0:
//   log p_T <= log p_t + log Z0 - 1 + (1 + sum h_j) / Z0 - sum (k_j / Z0) u_j,
// a mixture of log p_t and log p_j with shares that sum to 1, plus a constant. Slices that cover all u_j >= 0 prove the
// least of their bounds.
//
// Where b_j is finite, pull (b_j - u_j) >= 0 may be added as often as wanted: another mixture, with more of p_j and
// less of p_t.
#pragma once

#include "local_problem.hpp"

namespace mfakit {

constexpr int most_slices = 49;

// A cut is worth it if it is this far inside its slice, and the bound on log p_T this loose there (nats).
constexpr double inside_slice = 1e-3, loose_nats = 1e-5;
// Components that add less than this to p_T / p_t are never cut.
constexpr double negligible_ratio = 1e-12;

// A slice for one t, and its dual: the radius proved, by which sources, and the u_j where the dual ended. Components of
// other classes than t's have no meaning in the arrays.
struct Slice {
  double *low, *high;  // [K] a and b
  double* at;          // [K] the u_j that the tangent of the logarithm is taken at
  double* u;           // [K]
  index_t pulled;      // the j of that, -1 for none
  double pull;         // how often, relative to what the chords leave of p_t
  double bound;
  int m;
  index_t source[most_sources];
  double lambda[most_sources];
};

MFAKIT_HD void lay_out(Arena& arena, const Coordinates& q, Slice& slice) {
  slice.low = arena.doubles(q.n_components);
  slice.high = arena.doubles(q.n_components);
  slice.at = arena.doubles(q.n_components);
  slice.u = arena.doubles(q.n_components);
}

// The chord h - k u of e^-u over low <= u <= high.
MFAKIT_HD void chord(double low, double high, double* h, double* k) {
  const double top = exp_(-low), length = high - low;
  *k = high == infinity_() ? 0.0 : top * -expm1_(-length) / length;
  *h = *k > 0.0 ? top + *k * low : top;
}

MFAKIT_HD double clipped(double x, double low, double high) { return x < low ? low : (x > high ? high : x); }

// One more target, or more of one that is there already.
MFAKIT_HD void add_target(LocalProblem& p, index_t j, double share) {
  int at = 1;
  while (at < p.n_targets && p.component[at] != j) ++at;
  if (at == p.n_targets) p.share[p.n_targets++] = 0.0;
  p.component[at] = j;
  p.share[at] += share;
}

// The targets and shares of the bound on log p_T, put into p; returns its constant, rounded up. `first` and `last`
// number T's components.
MFAKIT_HD double mixed_targets(const Slice& slice, index_t first, index_t last, index_t t, LocalProblem& p) {
  double z = 1.0, steep = 0.0, top = 1.0, largest = 0.0, h, k;
  for (index_t j = first; j < last; ++j) {
    if (j == t) continue;
    chord(slice.low[j], slice.high[j], &h, &k);
    z += k > 0.0 ? h - k * clipped(slice.at[j], slice.low[j], slice.high[j]) : h;
    steep += k;
    top += h;
  }
  if (z < steep) z = steep;
  p.component[0] = t;
  p.n_targets = 1;
  p.share[0] = 1.0;
  for (index_t j = first; j < last; ++j) {
    if (j == t) continue;
    chord(slice.low[j], slice.high[j], &h, &k);
    if (!(k > 0.0)) continue;
    add_target(p, j, k / z);
    p.share[0] -= k / z;
    largest += k / z * slice.high[j];
  }
  p.share[0] = not_negative(p.share[0]);
  const double log_z = log_(z);
  double offset = log_z - 1.0 + top / z;
  if (slice.pull > 0.0) {
    const double pull = slice.pull * p.share[0];
    add_target(p, slice.pulled, pull);
    p.share[0] -= pull;
    offset += pull * slice.high[slice.pulled];
    largest += pull * slice.high[slice.pulled];
  }
  return offset + rounding_units * (1.0 + log_z + top / z + largest);
}

// t, and those whose lead is bounded from above.
MFAKIT_HD int n_targets(const Slice& slice, index_t first, index_t last, index_t t) {
  int targets = 1;
  for (index_t j = first; j < last; ++j) targets += j != t && slice.high[j] < infinity_();
  return targets;
}

// Where to cut a slice: at u_j, for the component j whose chord is loosest where the dual ended, or, with none inside
// its slice there, where the chord itself is loosest. j is -1 if log p_T's bound is off by less than `visible` nats
// there, or if one more target would be too many.
struct Cut {
  index_t j;
  double u;
};

MFAKIT_HD Cut where_to_cut(const Slice& slice, index_t first, index_t last, index_t t, double visible) {
  const bool full = n_targets(slice, first, last, t) == most_targets;
  Cut best{-1, 0.0};
  double slack = visible > loose_nats ? visible : loose_nats, h, k;
  for (int from_chord = 0; from_chord < 2 && best.j < 0; ++from_chord) {
    for (index_t j = first; j < last; ++j) {
      const double low = slice.low[j], high = slice.high[j];
      if (j == t || !(exp_(-low) >= negligible_ratio) || (high == infinity_() && full)) continue;
      chord(low, high, &h, &k);
      if (from_chord && !(k > 0.0)) continue;
      const double u = from_chord ? -log_(k) : slice.u[j];
      if (!(u > low + inside_slice && u < high - inside_slice)) continue;
      const double over = (k > 0.0 ? h - k * u : h) - exp_(-not_negative(u));
      if (over > slack) {
        slack = over;
        best = {j, u};
      }
    }
  }
  return best;
}

// `to` becomes a copy of `from`, with all that its dual has found.
MFAKIT_HD void copy(const Slice& from, index_t first, index_t last, Slice& to) {
  for (index_t i = first; i < last; ++i) {
    to.low[i] = from.low[i];
    to.high[i] = from.high[i];
    to.at[i] = from.at[i];
    to.u[i] = from.u[i];
  }
  to.pulled = from.pulled;
  to.pull = from.pull;
  to.bound = from.bound;
  to.m = from.m;
  for (int i = 0; i < from.m; ++i) {
    to.source[i] = from.source[i];
    to.lambda[i] = from.lambda[i];
  }
}

// Cut `slice`: it keeps u_j <= u, and `rest` becomes its copy with u_j >= u.
MFAKIT_HD void cut(Slice& slice, index_t first, index_t last, const Cut& where, Slice& rest) {
  for (index_t i = first; i < last; ++i) slice.at[i] = slice.u[i];
  slice.pull = 0.0;
  copy(slice, first, last, rest);
  slice.high[where.j] = rest.low[where.j] = where.u;
}

// Whether nothing keeps component j from being less than `lead` nats below t.
MFAKIT_HD bool is_free(const Slice& slice, index_t j, index_t t, double lead) {
  return j != t && slice.low[j] < lead && slice.high[j] == infinity_();
}

// `apart` becomes the part of `slice` where all that were free are at least `lead` below t.
MFAKIT_HD void part_apart(const Slice& slice, index_t first, index_t last, index_t t, double lead, Slice& apart) {
  copy(slice, first, last, apart);
  apart.pull = 0.0;
  for (index_t j = first; j < last; ++j) {
    if (!is_free(slice, j, t, lead)) continue;
    apart.low[j] = lead;
    if (apart.at[j] < lead) apart.at[j] = lead;
  }
}

// `near` becomes the part of `slice` where component j is at most `lead` below t.
MFAKIT_HD void part_near(const Slice& slice, index_t first, index_t last, index_t j, double lead, Slice& near) {
  copy(slice, first, last, near);
  near.high[j] = lead;
  near.pulled = j;
  near.pull = 0.0;
}

MFAKIT_HD void swap(Slice& a, Slice& b) {
  const Slice c = a;
  a = b;
  b = c;
}

}  // namespace mfakit
