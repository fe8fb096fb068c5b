// The fixed-step gradient attack (appendix C.2) in factor coordinates: the whole walk of one sample, on the same
// trajectory as in d dimensions. Only the 2 l + 2 columns of the current pair and v itself are touched per step.
#pragma once

#include "coordinates.hpp"

namespace mfakit {

enum class WalkEnd : unsigned char { max_steps, flipped, no_gradient, already_wrong };

struct WalkReport {
  WalkEnd end = WalkEnd::max_steps;
  index_t n_steps = 0, source = -1, target = -1, rival = -1;  // components over all classes; rival: the target's class
};

MFAKIT_HD void write_report(const WalkReport& report, index_t* out /*[5]*/) {
  out[0] = index_t(report.end);
  out[1] = report.n_steps;
  out[2] = report.source;
  out[3] = report.target;
  out[4] = report.rival;
}

MFAKIT_HD WalkReport read_report(const index_t* in /*[5]*/) {
  WalkReport report;
  report.end = WalkEnd(in[0]);
  report.n_steps = in[1];
  report.source = in[2];
  report.target = in[3];
  report.rival = in[4];
  return report;
}

struct WalkScratch {
  Decision decision;
  Combination g;
  Point before;  // one step earlier

  // Lays the buffers out in `memory`, or only counts the values of 8 bytes that they take; returns their number.
  MFAKIT_HD index_t lay_out(const Coordinates& q, double* memory) {
    Arena arena{memory, 0};
    decision = make_decision(arena, q);
    // The bisection makes points in the coefficients, of which a gradient needs only 2 l + 2.
    g = {0.0, arena.indices(2 * q.l + 2), arena.doubles(q.size()), 0};
    before = make_point(arena, q);
    return arena.used;
  }
};

template <class Team>
MFAKIT_HD void copy_point(const Team& team, const Coordinates& q, const Point& from, Point& to) {
  team.stream(q.size(), [&](index_t i) {
    to.a[i] = from.a[i];
    to.w[i] = from.w[i];
  });
  to.alpha = from.alpha;
  to.sq = from.sq;
}

// Bisect the step from s.before to p: s.before stays decided for y, p for another class.
template <class Team>
MFAKIT_HD void bisect(const Team& team, const Coordinates& q, index_t y, index_t times, double tau, double norm2,
                      double along, Point& p, WalkScratch& s) {
  const double start = s.before.sq;
  double low = 0.0, high = 1.0;  // shares of the step
  // The point in between is written to the coefficients of g, which are no longer needed.
  for (index_t i = 0; i < times; ++i) {
    const double share = 0.5 * (low + high);
    const double sq = not_negative(start + 2.0 * share * tau * along + share * share * tau * tau * norm2);
    team.stream(q.size(), [&](index_t k) { s.g.coefficient[k] = s.before.a[k] + share * (p.a[k] - s.before.a[k]); });
    team.sync();
    decide(team, q, s.g.coefficient, sq, s.decision);
    (decided_class(s.decision, q.n_classes) != y ? high : low) = share;
    team.sync();
  }
  p.sq = not_negative(start + 2.0 * high * tau * along + high * high * tau * tau * norm2);
  p.alpha = s.before.alpha + high * (p.alpha - s.before.alpha);
  team.stream(q.size(), [&](index_t k) {
    p.a[k] = s.before.a[k] + high * (p.a[k] - s.before.a[k]);
    p.w[k] = s.before.w[k] + high * (p.w[k] - s.before.w[k]);
  });
  team.sync();
}

// Go on with a walk that is at p, of which `report` tells, until the decision is no longer y, or until `last` steps
// have been taken in all. The arrays are shared by the team, the numbers are each member's own. A walk that goes on
// does not flip before its next step: the same decision has just said so.
template <class Team>
MFAKIT_HD void walk_on(const Team& team, const Coordinates& q, index_t y, const WalkSettings& settings, index_t last,
                       Point& p, WalkScratch& s, WalkReport& report) {
  double tau = 0.0, norm2 = 0.0, along = 0.0;
  for (;;) {
    decide(team, q, p.a, p.sq, s.decision);
    if (decided_class(s.decision, q.n_classes) != y) {
      report.end = report.n_steps == 0 ? WalkEnd::already_wrong : WalkEnd::flipped;
      if (report.n_steps > 0 && settings.bisections > 0) {
        bisect(team, q, y, settings.bisections, tau, norm2, along, p, s);
      }
      return;
    }
    if (report.n_steps == last) return;
    if (report.n_steps == 0 || !settings.frozen) {
      report.rival = rival_class(s.decision, q.n_classes, y);
      report.source = s.decision.best[y];
      report.target = s.decision.best[report.rival];
    }
    s.g.along_v = 0.0;
    s.g.count = 0;
    add_gradient(team, q, p.a, report.target, 1.0, s.g);
    add_gradient(team, q, p.a, report.source, -1.0, s.g);
    team.sync();
    norm2 = squared_norm(team, q, p.a, p.sq, s.g, &along);
    if (!(norm2 > 0.0 && norm2 < infinity_())) {
      report.end = WalkEnd::no_gradient;
      return;
    }
    tau = settings.step_size / sqrt_(norm2);
    if (settings.bisections > 0) copy_point(team, q, p, s.before);
    move(team, q, p, s.g, tau, norm2, along);
    ++report.n_steps;
  }
}

// Walk from p (alpha = 1, w = 0) until the decision is no longer y.
template <class Team>
MFAKIT_HD WalkReport walk(const Team& team, const Coordinates& q, index_t y, const WalkSettings& settings, Point& p,
                          WalkScratch& s) {
  WalkReport report;
  walk_on(team, q, y, settings, settings.max_steps, p, s, report);
  return report;
}

}  // namespace mfakit
