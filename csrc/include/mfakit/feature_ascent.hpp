// The maximum of the Lagrangian's dual over lambda = Lambda theta: over Lambda by feature_roots.hpp, over theta by
// damped Newton steps; the readable version is python/mfakit/attacks/minimal/roots.py.
#pragma once

#include "feature_roots.hpp"

namespace mfakit {

// Room for a step in theta.
struct ThetaStep {
  double *q, *change, *A, *theta;  // [m], [m], [m, m], [m]
  double *J, *solved;              // [m, d]
  double* z;                       // [d]
  index_t* on;                     // [m]

  MFAKIT_HD void lay_out(const FeatureDual& L, Arena& arena) {
    q = arena.doubles(L.m);
    change = arena.doubles(L.m);
    A = arena.doubles(L.m * L.m);
    theta = arena.doubles(L.m);
    J = arena.doubles(L.m * L.d);
    solved = arena.doubles((L.m + 1) * L.d);
    z = arena.doubles(L.d);
    on = arena.indices(L.m);
  }
};

// w.q := q_i; at the pole on average over the two points that complete the hard case.
template <class Steps>
void constraints_at(Steps& steps, FeatureDual& L, const FeatureRoot& root, const FeaturePoint& here, ThetaStep& w) {
  for (index_t i = 0; i < L.m; ++i) w.q[i] = here.q[i];
  if (!root.at_pole || !top_direction(steps, L, here, w.z)) return;
  double curve = 0.0, missing = 0.0;
  for (index_t i = 0; i < L.m; ++i) {
    w.change[i] = steps.curve(i, w.z);
    curve += here.lambda[i] * w.change[i];
    missing += here.lambda[i] * here.q[i];
  }
  for (index_t i = 0; curve > 0.0 && i < L.m; ++i) w.q[i] -= w.change[i] * missing / curve;
}

// w.change [n] := relative changes of the n multipliers w.on, by a Newton step in theta with Lambda eliminated; false
// where it gains nothing.
template <class Steps>
bool theta_step(Steps& steps, FeatureDual& L, const FeaturePoint& here, index_t n, double total, double least,
                ThetaStep& w) {
  const index_t d = L.d;
  double* const along = w.z;  // Lambda's own direction; the others are made orthogonal to it in P^-1
  double* const back = w.solved + L.m * d;
  for (index_t f = 0; f < d; ++f) along[f] = 0.0;
  for (index_t i = 0; i < n; ++i) {
    double* const J = w.J + i * d;
    steps.slope(w.on[i], here, J);
    for (index_t f = 0; f < d; ++f) along[f] += here.lambda[w.on[i]] * J[f];
  }
  steps.solve(here.factor, along, back);
  const double moved = dot(along, back, d);
  if (!(moved > 0.0)) return false;  // in a box where no feature is free
  for (index_t i = 0; i < n; ++i) {
    double* const J = w.J + i * d;
    const double share = dot(J, back, d) / moved;
    for (index_t f = 0; f < d; ++f) J[f] -= share * along[f];
    steps.solve(here.factor, J, w.solved + i * d);
  }
  double mean = 0.0, trace = 0.0;
  for (index_t i = 0; i < n; ++i) mean += here.lambda[w.on[i]] * w.q[w.on[i]] / total;
  for (index_t i = 0; i < n; ++i) {
    const double weight = here.lambda[w.on[i]];
    double of_class = 0.0;
    for (index_t k = 0; k < L.m; ++k) of_class += L.cls[k] == L.cls[w.on[i]] ? here.lambda[k] : 0.0;
    for (index_t j = 0; j < n; ++j) {
      const double softness = L.cls[w.on[j]] == L.cls[w.on[i]] ? 1.0 / of_class : 0.0;
      const double curve = 0.5 * (dot(w.J + i * d, w.solved + j * d, d) + dot(w.J + j * d, w.solved + i * d, d));
      w.A[i * n + j] = weight * (curve - softness) * here.lambda[w.on[j]] + (i == j ? weight : 0.0);
    }
    trace += w.A[i * n + i];
    w.change[i] = -weight * (w.q[w.on[i]] - mean);
  }
  for (index_t i = 0; i < n * n; ++i) w.A[i] += trace / double(n);  // singular along lambda, where D does not change
  if (!scaled_solve(w.A, n, w.change, w.theta)) return false;       // a source has no effect beyond rounding
  double drift = 0.0, predicted = 0.0;
  for (index_t i = 0; i < n; ++i) drift += here.lambda[w.on[i]] * w.change[i] / total;
  for (index_t i = 0; i < n; ++i) {
    w.change[i] -= drift;
    predicted -= 0.5 * here.lambda[w.on[i]] * w.change[i] * w.q[w.on[i]];
  }
  return predicted > least * fabs_(here.value);
}

// One damped Newton step in theta from `best`, which is replaced by what it gains; false if nothing gains.
template <class Steps>
bool improve_theta(Steps& steps, FeatureDual& L, const Reach& reach, FeatureRoot& root, FeaturePoint& best,
                   FeaturePoint& other, FeaturePoint& here, ThetaStep& w) {
  const double total = sum_of(best.lambda, L.m), least = larger(root_gain, reach.tolerance);
  index_t n = 0;
  double mean = 0.0;
  constraints_at(steps, L, root, best, w);
  for (index_t i = 0; i < L.m; ++i) {
    if (!(best.lambda[i] > 1e-13 * total)) continue;
    w.on[n++] = i;
    mean += best.lambda[i] * w.q[i] / total;
  }
  bool stationary = true;
  for (index_t i = 0; i < n; ++i) {
    stationary = stationary && fabs_(w.q[w.on[i]] - mean) <= 1e-9 + 1e-13 * fabs_(L.q0[w.on[i]]);
  }
  if (n < 2 || stationary || !theta_step(steps, L, best, n, total, least, w)) return false;
  double falls = 1e-300, rises = 1e-300;
  for (index_t i = 0; i < n; ++i) {
    falls = larger(falls, -w.change[i]);
    rises = larger(rises, w.change[i]);
  }
  double share = 0.9 / falls < 1.0 ? 0.9 / falls : 1.0;
  if (10.0 / rises < share) share = 10.0 / rises;
  for (int halving = 0; halving < most_theta_halvings; ++halving, share *= 0.5) {
    for (index_t i = 0; i < L.m; ++i) w.theta[i] = 0.0;
    for (index_t i = 0; i < n; ++i) w.theta[w.on[i]] = best.lambda[w.on[i]] * (1.0 + share * w.change[i]) / total;
    const double sum = sum_of(w.theta, L.m);
    for (index_t i = 0; i < L.m; ++i) w.theta[i] /= sum;
    const FeatureRoot there = nearest_on_quadric(steps, L, w.theta, total, reach, other, here);
    if (!(there.radius > root.radius)) continue;
    const FeaturePoint worse = best;
    best = other;
    other = worse;
    root = there;
    return true;
  }
  return false;
}

// Maximise D over lambda = Lambda theta: over Lambda by a root search, and over theta by damped Newton steps with
// Lambda eliminated. The dual is in `best`.
template <class Steps>
FeatureRoot maximise(Steps& steps, FeatureDual& L, const double* theta /*[m]*/, double guess, const Reach& reach,
                     FeaturePoint& best, FeaturePoint& other, FeaturePoint& here, ThetaStep& w) {
  FeatureRoot root = nearest_on_quadric(steps, L, theta, guess, reach, best, here);
  for (int step = 0; step < (L.m > 1 ? most_theta_steps : 0); ++step) {
    if (!root.found || root.radius >= reach.enough || root.radius == infinity_()) break;
    const double before = root.radius;
    if (!improve_theta(steps, L, reach, root, best, other, here, w)) break;
    if (root.radius - before <= larger(root_gain, reach.tolerance) * root.radius) break;
  }
  return root;
}

}  // namespace mfakit
