// Steps of the gradient attack in d dimensions, and whole walks in factor coordinates, a sample at a time.
#include "mfakit/attack.hpp"

#include <memory>

#include "kernels.hpp"
#include "mfakit/walk.hpp"
#include "parallel.hpp"

namespace mfakit {
namespace {

MFAKIT_CLONES void step_range(double* X, const double* direction, double step_size, index_t begin, index_t end,
                              index_t d) {
  for (index_t i = begin; i < end; ++i) step_along(X + i * d, direction + i * d, d, step_size);
}

MFAKIT_CLONES WalkReport walk_one(const Coordinates& q, index_t y, const WalkSettings& settings, Point& p,
                                  WalkScratch& scratch) {
  return walk(Serial(), q, y, settings, p, scratch);
}

}  // namespace

void attack_step(double* X, const double* direction, double step_size, index_t n, index_t d, int n_threads) {
  parallel_ranges(n, row_grain(d), n_threads,
                  [=](int, index_t begin, index_t end) { step_range(X, direction, step_size, begin, end, d); });
}

void factor_walk(const Coordinates& q, const index_t* y, const WalkSettings& settings, const Points& points,
                 index_t* reports, int n_threads) {
  const index_t size = q.size(), per_thread = WalkScratch().lay_out(q, nullptr);
  // Not initialised: it holds numbers of both kinds.
  const std::unique_ptr<double[]> memory(new double[size_t(n_threads) * size_t(per_thread)]);
  parallel_ranges(points.n, 4, n_threads, [&](int thread, index_t begin, index_t end) {
    WalkScratch scratch;
    scratch.lay_out(q, memory.get() + thread * per_thread);
    for (index_t i = begin; i < end; ++i) {
      Point p{points.a + i * size, points.w + i * size, 1.0, points.sq[i]};
      const WalkReport report = walk_one(q, y[i], settings, p, scratch);
      points.alpha[i] = p.alpha;
      points.sq[i] = p.sq;
      write_report(report, reports + 5 * i);
    }
  });
}

}  // namespace mfakit
