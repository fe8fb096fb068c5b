// Walks of the gradient attack in factor coordinates, a sample at a time.
#include "mfakit/walk.hpp"

#include <vector>

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
  const index_t size = q.size(), k = q.n_components, c = q.n_classes;
  const index_t per_thread = 3 * size + k + c;
  std::vector<double> scratch(size_t(n_threads) * size_t(per_thread));
  std::vector<index_t> indices(size_t(n_threads) * size_t(c + 2 * q.l + 2));
  parallel_ranges(n, 4, n_threads, [&](int thread, index_t begin, index_t end) {
    double* values = scratch.data() + thread * per_thread;
    index_t* integers = indices.data() + thread * (c + 2 * q.l + 2);
    WalkScratch s{{values + 3 * size, values + 3 * size + k, integers},
                  {0.0, integers + c, values, 0},
                  {values + size, values + 2 * size, 1.0, 0.0}};
    for (index_t i = begin; i < end; ++i) {
      Point p{a + i * size, w + i * size, 1.0, sq[i]};
      const WalkReport report = walk_one(q, y[i], settings, p, s);
      alpha[i] = p.alpha;
      sq[i] = p.sq;
      write_report(report, reports + 5 * i);
    }
  });
}

}  // namespace mfakit
