// Walks of the gradient attack in factor coordinates, a sample at a time.
#include "mfakit/walk.hpp"

#include <vector>

#include "arena.hpp"
#include "kernels.hpp"
#include "parallel.hpp"

namespace mfakit {
namespace {

MFAKIT_CLONES WalkReport walk_one(const Coordinates& q, index_t y, const WalkSettings& settings, Point& p,
                                  WalkScratch& scratch) {
  return walk(Serial(), q, y, settings, p, scratch);
}

}  // namespace

void factor_walk(const Coordinates& q, const index_t* y, const WalkSettings& settings, index_t n, double* a, double* w,
                 double* alpha, double* sq, index_t* reports, int n_threads) {
  const index_t size = q.size();
  std::vector<Arena> arenas{std::size_t(n_threads)};
  std::vector<WalkScratch> scratch;
  for (Arena& arena : arenas) scratch.push_back(make_walk_scratch(arena, q));
  parallel_ranges(n, 4, n_threads, [&](int thread, index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i) {
      Point p{a + i * size, w + i * size, 1.0, sq[i]};
      const WalkReport report = walk_one(q, y[i], settings, p, scratch[std::size_t(thread)]);
      alpha[i] = p.alpha;
      sq[i] = p.sq;
      write_report(report, reports + 5 * i);
    }
  });
}

}  // namespace mfakit
