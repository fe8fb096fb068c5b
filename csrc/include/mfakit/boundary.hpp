// Points beyond a mixture's own boundary, in factor coordinates: the crossing of a ray from the sample (push), the
// first point by a walk (walk_across), and the descent to a nearer one along the boundary (polish).
#pragma once

#include "walk.hpp"

namespace mfakit {

// One sample x = c + v0, by its inner products a with the columns and sq = |v0|^2; y is its class.
struct Sample {
  const double* a;  // [C]
  double sq;
  index_t y;
};

// A direction u = alpha v0 + w . columns from the sample, its inner products a with the columns, |u|^2 and v0 . u.
struct Ray {
  double alpha;
  double* w;  // [C]
  double* a;  // [C]
  double norm2, along;
};

// The nearest point beyond the boundary that is known: x + alpha v0 + w . columns.
struct NearestFlip {
  double length;  // of the perturbation; infinite where no such point is known
  double alpha;
  double* w;  // [C]
};

struct BoundaryScratch {
  Decision decision;
  Combination g;
  double* trial;  // [C]
  Point point;
  Ray ray;
};

constexpr int most_active = 6;  // components of a class that shape its boundary at one point

// `entries`: how many the combination g must have room for, besides what is needed here.
MFAKIT_HD BoundaryScratch make_boundary_scratch(Arena& arena, const Coordinates& q, index_t entries) {
  entries = entries > 2 * most_active * (q.l + 1) ? entries : 2 * most_active * (q.l + 1);
  BoundaryScratch s{};
  s.decision = make_decision(arena, q);
  s.g = make_combination(arena, entries > q.size() ? entries : q.size());  // the walk's bisection keeps a point there
  s.trial = arena.doubles(q.size());
  s.point = make_point(arena, q);
  s.ray.w = arena.doubles(q.size());
  s.ray.a = arena.doubles(q.size());
  return s;
}

// The decision at x + tau u, left in s.decision; returns log p_rival - log p_y, rival the most likely other class.
MFAKIT_HD double margin_at(const Coordinates& q, const Sample& x, const Ray& u, double tau, BoundaryScratch& s) {
  for (index_t i = 0; i < q.size(); ++i) s.trial[i] = x.a[i] + tau * u.a[i];
  decide(q, s.trial, not_negative(x.sq + 2.0 * tau * u.along + tau * tau * u.norm2), s.decision);
  double best = -infinity_();
  for (index_t c = 0; c < q.n_classes; ++c) {
    if (c != x.y && s.decision.total[c] > best) best = s.decision.total[c];
  }
  return best - s.decision.total[x.y];
}

// The least tau found, near `start`, at which x + tau u is beyond the boundary; infinite if there is none within 4
// start. `inside` is a tau that is not beyond.
MFAKIT_HD double push(const Coordinates& q, const Sample& x, const Ray& u, double inside, double start,
                      BoundaryScratch& s) {
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

// A combination that is shorter than this share of its parts has cancelled to rounding: nobody knows where it points.
constexpr double cancelled_length = 1e-5;

MFAKIT_HD bool has_cancelled(double norm2, double parts) {
  return !(norm2 > cancelled_length * cancelled_length * parts * parts);
}

MFAKIT_HD double column_length(const Coordinates& q, index_t i) { return sqrt_(q.row(i)[i]); }

// u = the combination g at the sample's own v0; of length 0 where g has cancelled.
MFAKIT_HD void ray_of(const Coordinates& q, const Sample& x, const Combination& g, Ray& u) {
  u.norm2 = squared_norm(q, x.a, x.sq, g, &u.along);
  double parts = fabs_(g.along_v) * sqrt_(x.sq);
  for (index_t k = 0; k < g.count; ++k) parts += fabs_(g.coefficient[k]) * column_length(q, g.index[k]);
  if (has_cancelled(u.norm2, parts)) u.norm2 = 0.0;
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

// Keep x + tau u as the nearest flip if it is nearer; returns whether it is.
MFAKIT_HD bool keep_if_nearer(const Coordinates& q, const Ray& u, double tau, NearestFlip& nearest) {
  const double length = tau * sqrt_(u.norm2);
  if (!(length < nearest.length)) return false;
  nearest.length = length;
  nearest.alpha = tau * u.alpha;
  for (index_t i = 0; i < q.size(); ++i) nearest.w[i] = tau * u.w[i];
  return true;
}

// s.g += sign sum_j r_j grad log p_j, j over the most likely components of class c at the decided point, r_j their
// shares.
MFAKIT_HD void add_class_gradient(const Coordinates& q, const double* a /*[C]*/, index_t c, double sign,
                                  BoundaryScratch& s) {
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

// a = the inner products of the nearest flip with the columns; returns its squared length |v|^2.
MFAKIT_HD double locate(const Coordinates& q, const Sample& x, const NearestFlip& nearest, double* a /*[C]*/) {
  const double keep = 1.0 + nearest.alpha, *w = nearest.w;
  double norm2 = keep * keep * x.sq;
  for (index_t i = 0; i < q.size(); ++i) a[i] = keep * x.a[i];
  for (index_t k = 0; k < q.size(); ++k) {
    if (w[k] == 0.0) continue;
    const double* row = q.row(k);
    MFAKIT_SIMD
    for (index_t i = 0; i < q.size(); ++i) a[i] += w[k] * row[i];
    norm2 += w[k] * keep * x.a[k];
  }
  for (index_t k = 0; k < q.size(); ++k) norm2 += w[k] * a[k];
  return norm2;
}

// Move the nearest flip closer along the mixture's own boundary; nothing shorter than `lower` flips. At the nearest
// point delta = theta g(x + delta) for the boundary's gradient g = kappa v + columns, v = v0 + delta, hence delta =
// theta / (1 - theta kappa) (kappa v0 + columns): cross along that ray, with g taken at the best point so far, and
// repeat while it gets nearer. Few columns whatever the number of rounds. Without a flip it starts from x.
MFAKIT_HD void polish(const Coordinates& q, const Sample& x, double lower, NearestFlip& nearest, BoundaryScratch& s) {
  const double* a = s.point.a;
  for (int round = 0; round < 30; ++round) {
    const double norm2 = locate(q, x, nearest, s.point.a);
    decide(q, a, norm2, s.decision);
    const index_t rival = rival_class(s.decision, q.n_classes, x.y);
    const double lead = s.decision.total[x.y] - s.decision.total[rival];
    s.g.along_v = 0.0;
    s.g.count = 0;
    add_class_gradient(q, a, rival, 1.0, s);
    add_class_gradient(q, a, x.y, -1.0, s);
    ray_of(q, x, s.g, s.ray);
    const double length = sqrt_(s.ray.norm2);
    if (!(length > 0.0 && length < infinity_())) return;
    const double start = nearest.length < infinity_() ? nearest.length / length : lead / s.ray.norm2;
    if (!(start > 0.0)) return;
    const double before = nearest.length, tau = push(q, x, s.ray, lower / length, start, s);
    if (tau == infinity_() || !keep_if_nearer(q, s.ray, tau, nearest)) return;
    if (before - nearest.length < 1e-9 * before) return;
  }
}

// A first point beyond the boundary: the gradient attack in steps of an eighth of `least`, which nothing shorter flips.
MFAKIT_HD void walk_across(const Coordinates& q, const Sample& x, double least, NearestFlip& nearest,
                           BoundaryScratch& s) {
  if (!(least > 0.0 && least < infinity_())) return;
  Point p{s.ray.a, s.ray.w, 1.0, x.sq};
  for (index_t i = 0; i < q.size(); ++i) {
    p.a[i] = x.a[i];
    p.w[i] = 0.0;
  }
  WalkScratch scratch{s.decision, s.g, s.point};
  const WalkReport report = walk(Serial(), q, x.y, {least / 8.0, 200, 0, 30}, p, scratch);
  if (report.end != WalkEnd::flipped) return;
  Ray& u = s.ray;  // p is kept in its buffers: u = delta = v - v0
  u.alpha = p.alpha - 1.0;
  u.along = -x.sq;  // v0 . (v - v0) and |v - v0|^2
  for (index_t i = 0; i < q.size(); ++i) u.along += u.w[i] * x.a[i];
  u.along += p.alpha * x.sq;
  u.norm2 = not_negative(p.sq - x.sq - 2.0 * u.along);
  double parts = fabs_(u.alpha) * sqrt_(x.sq);  // a walk over a point where the gradient vanishes ends anywhere
  for (index_t i = 0; i < q.size(); ++i) parts += fabs_(u.w[i]) * column_length(q, i);
  if (has_cancelled(u.norm2, parts)) return;
  for (index_t i = 0; i < q.size(); ++i) u.a[i] -= x.a[i];
  // The margin where the walk ended is close to 0 and was computed with other roundings: push until it is positive.
  const double tau = push(q, x, u, 0.0, 1.0, s);
  if (tau < infinity_()) keep_if_nearer(q, u, tau, nearest);
}

}  // namespace mfakit
