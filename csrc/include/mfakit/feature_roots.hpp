// Searches over lambda by evaluations of a Lagrangian in the d features; python/mfakit/attacks/minimal/roots.py says
// why they end, and is the readable version. By weak duality nothing rests on where they do.
//
// `Steps` has the parts that run over features: evaluate(point) at point.lambda, false where P is not positive
// definite; solve(factor, b, x); slope(i, point, out); curve(i, x).
#pragma once

#include "box_dual.hpp"
#include "team.hpp"

namespace mfakit {

constexpr int most_root_steps = 300, most_theta_steps = 40, most_theta_halvings = 12, most_ball_steps = 24;
// Relative: q counts as 0, a bracket as a point, a gain as none.
constexpr double root_zero = 1e-13, root_point = 1e-14, root_gain = 1e-13;
// A radius that is proved beyond this length is infinite: it is above all lengths and noise that are accepted.
constexpr double beyond_lengths = 1e90, largest_lambda = 1e200;

struct FeatureRoot {
  double radius;
  bool found, at_pole;  // whether there is a dual, and whether the search stopped at the pole of P^-1
};

// How far searches have to go.
struct Reach {
  double enough;     // the radius at which they end
  double farthest;   // no delta that is allowed is longer
  double tolerance;  // relative gain at which they may end, if it is not the least
};

// A point inside a bracket: by magnitude while it is wide.
MFAKIT_HD double between(double low, double high) {
  if (high == infinity_()) return 16.0 * low;
  if (low == 0.0) return 1e-2 * high;
  return high > 2.0 * low ? sqrt_(low * high) : 0.5 * (low + high);
}

// x^T P^-1 x for Newton's steps, between the features that are free: there delta = Lambda (b + H delta).
template <class Steps>
double moved_by_lambda(Steps& steps, FeatureDual& L, const FeaturePoint& here, double total) {
  steps.solve(here.factor, here.delta, L.extra);
  return dot(here.delta, L.extra, L.d) / (total * total);
}

// The nearest delta with sum theta_i q_i(delta) >= H(theta), one quadric: its dual in `best`, and the radius that it
// proves, infinite where the quadric cannot be reached. `here` is overwritten.
template <class Steps>
FeatureRoot nearest_on_quadric(Steps& steps, FeatureDual& L, const double* theta /*[m]*/, double guess,
                               const Reach& reach, FeaturePoint& best, FeaturePoint& here) {
  FeatureRoot root{0.0, false, false};
  double need = 0.0;
  for (index_t i = 0; i < L.m; ++i) need -= theta[i] * (L.q0[i] + log_share(L, theta, i));
  if (!(need > 0.0 && need < infinity_())) return root;
  double slope = 0.0;
  for (index_t f = 0; f < L.d; ++f) {
    double sum = 0.0;
    for (index_t i = 0; i < L.m; ++i) sum += theta[i] * L.b[i * L.d + f];
    slope += sum * sum;
  }
  double low = 0.0, high = infinity_(), total = guess;
  if (!(guess > 0.0)) total = slope > 0.0 ? need / slope : need;
  bool pole = false;
  for (int step = 0; step < most_root_steps && total <= largest_lambda; ++step) {
    for (index_t i = 0; i < L.m; ++i) here.lambda[i] = total * theta[i];
    double wanted = 0.0;
    if (!steps.evaluate(here)) {
      high = total;
      pole = true;
    } else {
      const double proved = proved_radius(here.value);
      double reached = 0.0;
      for (index_t i = 0; i < L.m; ++i) reached += theta[i] * here.q[i];
      FeaturePoint* last = &here;
      if (!root.found || proved > root.radius) {
        const FeaturePoint worse = best;
        best = here;
        here = worse;
        last = &best;
        root.found = true;
        root.radius = proved;
      }
      if (fabs_(reached) <= larger(root_zero, reach.tolerance) * need || proved >= reach.enough) return root;
      (reached < 0.0 ? low : high) = total;
      if (!(reached < 0.0)) pole = false;
      if (proved > reach.farthest || (high == infinity_() && proved > beyond_lengths)) {
        root.radius = infinity_();  // proved is the last, and the largest
        return root;
      }
      const double rise = reached + need, bend = moved_by_lambda(steps, L, *last, total);
      if (rise > 0.0 && bend > 0.0) wanted = total - 2.0 * rise / bend * (sqrt_(rise / need) - 1.0);
    }
    if (high < infinity_() && high - low <= larger(root_point, reach.tolerance) * high) {
      root.at_pole = pole;
      return root;
    }
    // Where q stays below 0 Newton's steps grow like lambda^3; they are not to leave the range before a radius is
    // proved.
    total = low < wanted && wanted < high && wanted <= largest_lambda ? wanted : between(low, high);
  }
  return root;
}

// z [d] := the unit eigenvector of P's smallest eigenvalue, by inverse iteration; accurate enough for a step along it.
// False in a box where no feature is free.
template <class Steps>
bool top_direction(Steps& steps, FeatureDual& L, const FeaturePoint& here, double* z) {
  for (index_t f = 0; f < L.d; ++f) z[f] = cospi_(double(f + 1) / 3.14159265358979323846);
  double length = sqrt_(dot(z, z, L.d));
  for (int round = 0; round < 4; ++round) {
    for (index_t f = 0; f < L.d; ++f) L.left[f] = z[f] / length;
    steps.solve(here.factor, L.left, z);
    length = sqrt_(dot(z, z, L.d));
    if (!(length > 0.0)) return false;
  }
  for (index_t f = 0; f < L.d; ++f) z[f] /= length;
  return true;
}

// The hard case: delta does not reach the quadric, and the steps tau along z in either direction do, which do not
// change the Lagrangian. False where there are none.
template <class Steps>
bool steps_aside(Steps& steps, FeatureDual& L, const FeaturePoint& here, double* z /*[d]*/, double* tau /*[2]*/) {
  if (!top_direction(steps, L, here, z)) return false;
  double missing = 0.0, curve = 0.0;
  for (index_t i = 0; i < L.m; ++i) {
    missing += here.lambda[i] * here.q[i];
    curve += here.lambda[i] * steps.curve(i, z);
  }
  if (!(missing < 0.0 && curve > 0.0)) return false;
  const double slope = dot(here.delta, z, L.d), root = sqrt_(slope * slope - 2.0 * curve * missing);
  tau[0] = (root - slope) / curve;
  tau[1] = (-root - slope) / curve;
  return true;
}

// An upper bound on q(delta) over |delta| <= radius for one source, at most 0 or not needed: 0 where q may reach 0.
// Weak duality again: q(delta) <= q(0) + r^2 / 2 lambda + 1/2 lambda b^T P^-1 b for every lambda with P > 0.
template <class Steps>
double highest_within(Steps& steps, FeatureDual& L, double radius, double enough, FeaturePoint& here) {
  const double slope = sqrt_(dot(L.b, L.b, L.d));
  double low = 0.0, high = infinity_(), best = 0.0;
  double lambda = slope > 0.0 ? radius / slope : radius * radius / larger(-L.q0[0], 1.0);
  for (int step = 0; step < most_ball_steps && lambda <= largest_lambda; ++step) {
    double wanted = 0.0;
    here.lambda[0] = lambda;
    if (!steps.evaluate(here)) {
      high = lambda;
    } else {
      const double bound = L.q0[0] + 0.5 * (radius * radius + here.quadratic) / lambda;
      if (bound < best) best = bound;
      const double length = sqrt_(dot(here.delta, here.delta, L.d));
      if (best < enough || fabs_(length - radius) <= 1e-2 * radius) break;
      if (length > radius) {
        high = lambda;
      } else if (here.q[0] >= 0.0) {
        return 0.0;  // reached inside the ball
      } else {
        low = lambda;
      }
      if (length > 0.0) wanted = lambda * radius / length;
    }
    if (high < infinity_() && high - low <= 1e-6 * high) break;
    lambda = low < wanted && wanted < high ? wanted : between(low, high);
  }
  return best;
}

}  // namespace mfakit
