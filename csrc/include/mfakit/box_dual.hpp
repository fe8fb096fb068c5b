// The same within a box low <= delta <= high, with the box's own multipliers (python/mfakit/attacks/minimal/box.py says
// how, and is the readable version): mu >= 0 for features with two bounds, nu for others.
#pragma once

#include "feature_dual.hpp"

namespace mfakit {

// Steps of one minimisation and halvings of one step; where they do not suffice the bound is looser.
constexpr int most_box_steps = 30, most_box_halvings = 20;
// Relative gain below which a step counts as the last one.
constexpr double least_box_gain = 1e-15;

struct FeatureBox {
  const double *low, *high;            // [d], infinite where there is no bound
  double* start;                       // [d] where the last minimisation ended
  unsigned char* held;                 // [d] pressed against their bounds
  double *force, *step, *trial, *its;  // [d]
  LowRankFactor whole;                 // of P with the multipliers on its diagonal

  MFAKIT_HD void lay_out(const FeatureDual& L, Arena& arena) {
    start = arena.doubles(L.d);
    held = arena.bytes(L.d);
    force = arena.doubles(L.d);
    step = arena.doubles(L.d);
    trial = arena.doubles(L.d);
    its = arena.doubles(L.d);
    whole.lay_out(L.P, arena);
  }
  MFAKIT_HD double clip(double value, index_t f) const {
    if (value < low[f]) return low[f];
    return value > high[f] ? high[f] : value;
  }
  MFAKIT_HD bool is_finite(index_t f) const {
    return low[f] > -infinity_() && high[f] < infinity_() && high[f] > low[f];
  }
  // Whether delta is at a bound that the force points out of.
  MFAKIT_HD bool presses(double delta, double pull, index_t f) const {
    return (delta <= low[f] && pull < 0.0) || (delta >= high[f] && pull > 0.0);
  }
};

// force [d] := b - P delta; returns 1/2 delta^T P delta - b^T delta.
MFAKIT_HD double force_at(FeatureDual& L, const double* delta, double* force) {
  apply(L.P, delta, L.coefficients, force);
  double sum = 0.0;
  MFAKIT_SIMD_SUM(sum)
  for (index_t f = 0; f < L.d; ++f) {
    force[f] = L.total_b[f] - force[f];
    sum += (L.total_b[f] + force[f]) * delta[f];
  }
  return -0.5 * sum;
}

// step [d] := Newton's step between the features that are not held, refined once.
MFAKIT_HD void newton_step(FeatureDual& L, const FeatureBox& box, const LowRankFactor& F, double* step) {
  solve(L.P, F, box.force, step, L.back);
  apply(L.P, step, L.coefficients, L.left);
  MFAKIT_SIMD
  for (index_t f = 0; f < L.d; ++f) L.left[f] = box.force[f] - L.left[f];  // a solve reads what is free only
  solve(L.P, F, L.left, L.extra, L.back);
  MFAKIT_SIMD
  for (index_t f = 0; f < L.d; ++f) step[f] += L.extra[f];
}

// box.held := which features are pressed against their bounds at delta; false if the same as before.
MFAKIT_HD bool press(FeatureBox& box, const double* delta, index_t d) {
  bool differs = false;
  for (index_t f = 0; f < d; ++f) {
    const unsigned char now = box.presses(delta[f], box.force[f], f);
    differs = differs || now != box.held[f];
    box.held[f] = now;
  }
  return differs;
}

// A minimiser of 1/2 delta^T P delta - b^T delta in the box, with its force in box.force and P's factors between the
// features that are free; false where P is not positive definite between them on the way.
MFAKIT_HD bool minimise_inside(FeatureDual& L, FeatureBox& box, FeaturePoint& here) {
  double* const delta = here.delta;
  for (index_t f = 0; f < L.d; ++f) delta[f] = box.clip(box.start[f], f);
  double value = force_at(L, delta, box.force);
  bool whole = false;
  for (int steps = 0; steps < most_box_steps; ++steps) {
    if (press(box, delta, L.d) || steps == 0) {
      if (!factorize(L.P, box.held, here.factor, L.extra, L.T)) return false;
    } else if (whole) {
      return true;
    }
    newton_step(L, box, here.factor, box.step);
    double share = 1.0, after = 0.0;
    bool falls = false, inside = true;
    for (int halving = 0; halving < most_box_halvings && !falls; ++halving) {
      if (halving > 0) share *= 0.5;
      inside = true;
      for (index_t f = 0; f < L.d; ++f) {
        const double aim = delta[f] + share * box.step[f];
        box.trial[f] = box.clip(aim, f);
        inside = inside && box.trial[f] == aim;
      }
      after = force_at(L, box.trial, box.its);
      falls = after <= value;
    }
    if (!falls) return true;
    whole = share == 1.0 && inside;
    const bool last = whole && value - after <= least_box_gain * fabs_(value);
    for (index_t f = 0; f < L.d; ++f) {
      delta[f] = box.trial[f];
      box.force[f] = box.its[f];
    }
    value = after;
    if (last) return true;
  }
  return true;
}

// As least_anywhere, in the box: false also where the multipliers do not prove that it is the minimum. What is
// rounded is given away.
MFAKIT_HD bool least_inside(FeatureDual& L, FeatureBox& box, FeaturePoint& here) {
  if (!minimise_inside(L, box, here)) return false;
  double lost = 0.0, rounded = 0.0, sum = 0.0;
  // From here on P has the multipliers on its diagonal; what is left of the gradient is in box.its.
  for (index_t f = 0; f < L.d; ++f) {
    const double delta = here.delta[f], force = box.presses(delta, box.force[f], f) ? box.force[f] : 0.0;
    double b = L.total_b[f], left = box.force[f];
    if (box.is_finite(f)) {
      const double mu = fabs_(force) / (box.high[f] - box.low[f]), total = box.low[f] + box.high[f];
      const double widest = -box.low[f] > box.high[f] ? -box.low[f] : box.high[f];
      b += mu * total;
      left += mu * total - 2.0 * mu * delta;
      lost -= 2.0 * mu * box.low[f] * box.high[f];
      rounded += mu * widest * widest;
      L.P.e[f] += 2.0 * mu;
      L.P.terms[f] += 2.0 * mu;
    } else {
      b -= force;
      left -= force;
      lost += 2.0 * force * delta;  // delta is at the bound
      rounded += fabs_(force * delta);
    }
    rounded += fabs_(b * delta);
    sum += (b + left) * delta;
    box.its[f] = left;
  }
  if (!factorize(L.P, nullptr, box.whole, L.extra, L.T)) return false;
  solve(L.P, box.whole, box.its, L.extra, L.back);
  for (index_t f = 0; f < L.d; ++f) box.start[f] = here.delta[f];
  here.quadratic = sum + 2.0 * fabs_(dot(box.its, L.extra, L.d)) + lost + rounding_units * rounded;
  return true;
}

}  // namespace mfakit
