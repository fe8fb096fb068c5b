// Distances between subspaces out of the inner products of their bases.
#define MFAKIT_UNROLL _Pragma("unroll")

#include "device.cuh"
#include "mfakit/subspace.hpp"

// The number of factors of side 1 that pairs_in_registers is compiled for.
#ifndef MFA_L1
#define MFA_L1 1
#endif

// Values of work of one pair, 2 l1^2 + 2 l1 or more: said at compilation, because a local array of a thread is
// interleaved with its neighbours', so that a warp's accesses to it are whole cache lines.
#ifndef MFA_PAIR_WORK
#define MFA_PAIR_WORK 256
#endif

constexpr int pair_threads = 128;  // of a block, at most: a pair of 12 factors takes 228 registers

// As pair_distances, but pairs with a sine that is or may be near zero are only marked `undecided`. Every index into
// `work` is known at compilation, which makes registers of it.
extern "C" __global__ void pairs_in_registers(const double* products, const Subspaces side0, const Subspaces side1,
                                              double* sq_distances, unsigned char* marks) {
  constexpr index_t l1 = MFA_L1;
  double work[2 * l1 * l1 + 2 * l1 + 1];
  const index_t l0 = side0.l, k1 = side1.k, ld = k1 * (l1 + 1);
  for (index_t ij = global_thread(); ij < side0.k * k1; ij += threads_of_grid()) {
    const index_t i = ij / k1, j = ij % k1;
    const double* C = products + i * (l0 + 1) * ld + j * (l1 + 1);
    unsigned char mark;
    sq_distances[ij] = sq_distance_by_cholesky(C, ld, l0, l1, side0.shift + i * l0, side0.norm[i], side1.shift + j * l1,
                                               side1.norm[j], work, &mark);
    marks[ij] = mark;
  }
}
// Declared once more with its bounds, as in pairs.cu; two blocks at least, or the compiler spills for a third.
extern "C" __global__ __launch_bounds__(pair_threads, 2) decltype(pairs_in_registers) pairs_in_registers;

// sq_distances, suspect [k0, k1] from products [k0, l0+1, k1, l1+1]; a thread per pair: all pairs, or `only_undecided`
// of what pairs_in_registers left in suspect. Where `global` is not null it holds `values` of work for each thread of
// the grid.
extern "C" __global__ void pair_distances(const double* products, const Subspaces side0, const Subspaces side1,
                                          double* sq_distances, unsigned char* suspect, double* global, index_t values,
                                          index_t only_undecided) {
  double local[MFA_PAIR_WORK];
  double* const work = global ? global + global_thread() * values : local;
  const index_t l0 = side0.l, l1 = side1.l, k1 = side1.k, ld = k1 * (l1 + 1);
  for (index_t ij = global_thread(); ij < side0.k * k1; ij += threads_of_grid()) {
    if (only_undecided && suspect[ij] != undecided) continue;
    const index_t i = ij / k1, j = ij % k1;
    const double* C = products + i * (l0 + 1) * ld + j * (l1 + 1);
    sq_distances[ij] = sq_distance_of_pair(C, ld, l0, l1, side0.shift + i * l0, side0.norm[i], side1.shift + j * l1,
                                           side1.norm[j], work, suspect + ij);
  }
}
