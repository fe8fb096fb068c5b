// Distances between subspaces out of the inner products of their bases.
#include "mfakit/subspace.hpp"

#include <vector>

#include "kernels.hpp"
#include "parallel.hpp"

namespace mfakit {

void pair_distances(const double* products, const Subspaces& side0, const Subspaces& side1, double* sq_distances,
                    unsigned char* suspect, int n_threads) {
  const index_t l0 = side0.l, l1 = side1.l, ld = side1.k * (l1 + 1);
  const size_t size = size_t(2 * l1 * l1 + l0 + 2 * l1 + 1);
  std::vector<double> scratch(size_t(n_threads) * size);
  double* const work_of_thread = scratch.data();
  parallel_ranges(side0.k, 1, n_threads, [&](int thread, index_t begin, index_t end) {
    double* work = work_of_thread + size_t(thread) * size;
    for (index_t i = begin; i < end; ++i) {
      for (index_t j = 0; j < side1.k; ++j) {
        const double* C = products + i * (l0 + 1) * ld + j * (l1 + 1);
        const index_t ij = i * side1.k + j;
        sq_distances[ij] = sq_distance_of_pair(C, ld, l0, l1, side0.shift + i * l0, side0.norm[i], side1.shift + j * l1,
                                               side1.norm[j], work, suspect + ij);
      }
    }
  });
}

}  // namespace mfakit
