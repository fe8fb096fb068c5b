// Steps of the gradient attack and distances between subspaces.
#include <vector>

#include "kernels.hpp"
#include "mfakit/attack.hpp"
#include "mfakit/subspace.hpp"
#include "parallel.hpp"

namespace mfakit {
namespace {

MFAKIT_CLONES void step_range(double* X, const double* direction, double step_size, index_t begin, index_t end,
                              index_t d) {
  for (index_t i = begin; i < end; ++i) step_along(X + i * d, direction + i * d, d, step_size);
}

}  // namespace

void attack_step(double* X, const double* direction, double step_size, index_t n, index_t d, int n_threads) {
  parallel_ranges(n, row_grain(d), n_threads,
                  [=](int, index_t begin, index_t end) { step_range(X, direction, step_size, begin, end, d); });
}

void pair_distances(const double* products, const double* shift0, const double* norm0, const double* shift1,
                    const double* norm1, index_t k0, index_t l0, index_t k1, index_t l1, double* sq_distances,
                    unsigned char* suspect, int n_threads) {
  const index_t ld = k1 * (l1 + 1);
  const size_t size = size_t(2 * l1 * l1 + l0 + 2 * l1 + 1);
  std::vector<double> scratch(size_t(n_threads) * size);
  double* const work_of_thread = scratch.data();
  parallel_ranges(k0, 1, n_threads, [&](int thread, index_t begin, index_t end) {
    double* work = work_of_thread + size_t(thread) * size;
    for (index_t i = begin; i < end; ++i) {
      for (index_t j = 0; j < k1; ++j) {
        const double* C = products + i * (l0 + 1) * ld + j * (l1 + 1);
        sq_distances[i * k1 + j] = sq_distance_of_pair(C, ld, l0, l1, shift0 + i * l0, norm0[i], shift1 + j * l1,
                                                       norm1[j], work, suspect + i * k1 + j);
      }
    }
  });
}

}  // namespace mfakit
