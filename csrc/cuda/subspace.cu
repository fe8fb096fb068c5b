// Distances between subspaces out of the inner products of their bases.
#include "device.cuh"
#include "mfakit/subspace.hpp"

// Values of work of one pair, 2 l1^2 + l0 + 2 l1 or more: said at compilation, because a local array of a thread lies
// interleaved with its neighbours', so that a warp's accesses to it are whole cache lines.
#ifndef MFA_PAIR_WORK
#define MFA_PAIR_WORK 256
#endif

// sq_distances, suspect [k0, k1] from products [k0, l0+1, k1, l1+1]; a thread per pair. Where `global` is not null it
// holds `values` of work for each thread of the grid.
extern "C" __global__ void pair_distances(const double* products, const double* shift0, const double* norm0,
                                          const double* shift1, const double* norm1, index_t k0, index_t l0, index_t k1,
                                          index_t l1, double* sq_distances, unsigned char* suspect, double* global,
                                          index_t values) {
  double local[MFA_PAIR_WORK];
  double* const work = global ? global + global_thread() * values : local;
  const index_t ld = k1 * (l1 + 1);
  for (index_t ij = global_thread(); ij < k0 * k1; ij += threads_of_grid()) {
    const index_t i = ij / k1, j = ij % k1;
    const double* C = products + i * (l0 + 1) * ld + j * (l1 + 1);
    sq_distances[ij] =
        sq_distance_of_pair(C, ld, l0, l1, shift0 + i * l0, norm0[i], shift1 + j * l1, norm1[j], work, suspect + ij);
  }
}
