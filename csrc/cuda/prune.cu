// Bounds of components from a projection of the samples: of all of them, the highest of each row, and finer ones of
// those that are open. The bound is mfakit/prune.hpp's.
#include "device.cuh"
#include "mfakit/prune.hpp"

// What all threads of a warp have in common is a component: each value of its table is read once for 32 samples.
struct Place {
  index_t i, j;
  __device__ __forceinline__ Place(index_t number, index_t n) : i(number % n), j(number / n) {}
};

// above [n, k]; a thread per sample and component.
extern "C" __global__ void bound_components(const Projected<Real> x, const Projection<Real> p,
                                            Real* __restrict__ above) {
  for (index_t number = global_thread(); number < x.n * p.k; number += threads_of_grid()) {
    const Place at(number, x.n);
    above[at.i * p.k + at.j] = pair_bound(x, at.i, p, at.j);
  }
}

// Tightens above [n, k] where it is at least threshold [n], and marks what still is, open [k, n]; a thread per sample
// and component.
extern "C" __global__ void tighten_bounds(const Projected<Real> x, const Projection<Real> p,
                                          const double* __restrict__ threshold, Real* __restrict__ above,
                                          unsigned char* __restrict__ open) {
  for (index_t number = global_thread(); number < x.n * p.k; number += threads_of_grid()) {
    const Place at(number, x.n);
    Real* const bound = above + at.i * p.k + at.j;
    Real value = *bound;
    if (!(double(value) < threshold[at.i]) && p.r > 0) {
      const Real finer = pair_bound(x, at.i, p, at.j);
      if (finer < value || value != value) *bound = value = finer;
    }
    open[number] = !(double(value) < threshold[at.i]);
  }
}

// Bounds by falling value, then by component; a NaN is below all others.
__device__ __forceinline__ Candidate ranked(Real value, index_t j, index_t k) {
  return value == value ? Candidate{double(value), j} : Candidate{-infinity_(), j + k};
}

__device__ __forceinline__ bool comes_after(Candidate a, Candidate b) {
  return a.value < b.value || (a.value == b.value && a.index > b.index);
}

// best [n, count], the components of a row whose bounds are the highest, one after the other; a warp per row.
extern "C" __global__ void highest_bounds(const Real* __restrict__ above, index_t n, index_t k, index_t count,
                                          index_t* __restrict__ best) {
  for (index_t i = global_thread() / warp_size; i < n; i += threads_of_grid() / warp_size) {
    Candidate last = {infinity_(), -1};
    for (index_t place = 0; place < count; ++place) {
      Candidate mine = {-infinity_(), 2 * k};
      for (index_t j = lane_number(); j < k; j += warp_size) {
        const Candidate found = ranked(above[i * k + j], j, k);
        if (comes_after(found, last)) mine = better(mine, found);
      }
      last = warp_best(mine);
      if (lane_number() == 0) best[i * count + place] = last.index % k;
    }
  }
}
