// What the kernels share: teams of CUDA threads (see mfakit/team.hpp) and runs of pairs with one component.
//
// Kernels are compiled by NVRTC with MFA_REAL (float or double), the type of samples and products. Every index is 64
// bits: n * k passes 2^31 at n = 1e7, k = 256. Blocks have a multiple of 32 threads. Sums are made in a fixed order:
// equal inputs give equal bits.
#pragma once

#include "mfakit/mixture.hpp"
#include "mfakit/operands.hpp"
#include "mfakit/residual.hpp"

#ifndef MFA_REAL
#define MFA_REAL double
#endif
#ifndef MFA_DYNAMIC_SHARED  // the emulator of the tests has its own
#define MFA_DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

using namespace mfakit;
using Real = MFA_REAL;

constexpr unsigned full_warp = 0xffffffffu;
constexpr int warp_size = 32;
constexpr int most_warps = 32;  // of a block

// Of this thread: its number in its warp, its warp's number in the block.
__device__ __forceinline__ int lane_number() { return int(threadIdx.x) % warp_size; }
__device__ __forceinline__ int warp_number() { return int(threadIdx.x) / warp_size; }
__device__ __forceinline__ int warps_of_block() { return int(blockDim.x) / warp_size; }

// This thread's and the grid's number of threads, for loops over independent items.
__device__ __forceinline__ index_t global_thread() { return index_t(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ index_t threads_of_grid() { return index_t(gridDim.x) * blockDim.x; }

__device__ __forceinline__ double warp_sum(double x) {
  for (int offset = warp_size / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(full_warp, x, offset);
  return x;
}

__device__ __forceinline__ double warp_max(double x) {
  for (int offset = warp_size / 2; offset > 0; offset /= 2) x = larger(__shfl_xor_sync(full_warp, x, offset), x);
  return x;
}

// A candidate of an argmax: value and index; the larger value wins, the lower index among equals, and NaN never.
struct Candidate {
  double value;
  index_t index;
};

__device__ __forceinline__ Candidate better(Candidate a, Candidate b) {
  const bool take_b = b.value > a.value || (b.value == a.value && b.index < a.index);
  return take_b ? b : a;
}

__device__ __forceinline__ Candidate warp_best(Candidate x) {
  for (int offset = warp_size / 2; offset > 0; offset /= 2) {
    x = better(x, {__shfl_xor_sync(full_warp, x.value, offset), __shfl_xor_sync(full_warp, x.index, offset)});
  }
  return x;
}

// A warp on one sample.
struct WarpTeam {
  template <class F>
  __device__ __forceinline__ void each(index_t n, F f) const {
    for (index_t i = lane_number(); i < n; i += warp_size) f(i);
  }
  template <class F>
  __device__ __forceinline__ double sum(index_t n, F f) const {
    double total = 0.0;
    each(n, [&](index_t i) { total += f(i); });
    return warp_sum(total);
  }
  template <class F>
  __device__ __forceinline__ double max(index_t n, F f) const {
    double top = -infinity_();
    each(n, [&](index_t i) { top = larger(f(i), top); });
    return warp_max(top);
  }
};

// A block on one sample. `scratch` is shared, of most_warps entries.
struct BlockTeam {
  Candidate* scratch;

  template <class F>
  __device__ __forceinline__ void each(index_t n, F f) const {
    for (index_t i = threadIdx.x; i < n; i += blockDim.x) f(i);
  }
  template <class F>
  __device__ __forceinline__ void stream(index_t n, F f) const {
#pragma unroll 4  // loads in flight at once
    for (index_t i = threadIdx.x; i < n; i += blockDim.x) f(i);
  }
  template <class F>
  __device__ __forceinline__ double sum(index_t n, F f) const {
    double total = 0.0;
    each(n, [&](index_t i) { total += f(i); });
    return sum_of(total);
  }
  // The sum of one number of each thread.
  __device__ __forceinline__ double sum_of(double mine) const {
    mine = warp_sum(mine);
    if (lane_number() == 0) scratch[warp_number()].value = mine;
    __syncthreads();
    double total = 0.0;
    for (int w = 0; w < warps_of_block(); ++w) total += scratch[w].value;
    __syncthreads();
    return total;
  }
  template <class F>
  __device__ __forceinline__ double max(index_t n, F f) const {
    double mine = -infinity_();
    each(n, [&](index_t i) { mine = larger(f(i), mine); });
    mine = warp_max(mine);
    if (lane_number() == 0) scratch[warp_number()].value = mine;
    __syncthreads();
    double top = -infinity_();
    for (int w = 0; w < warps_of_block(); ++w) top = larger(scratch[w].value, top);
    __syncthreads();
    return top;
  }
  template <class F>
  __device__ __forceinline__ index_t argmax(index_t n, F f) const {
    Candidate mine = {-infinity_(), n};
    each(n, [&](index_t i) { mine = better(mine, {f(i), i}); });
    mine = warp_best(mine);
    if (lane_number() == 0) scratch[warp_number()] = mine;
    __syncthreads();
    for (int w = 0; w < warps_of_block(); ++w) mine = better(mine, scratch[w]);
    __syncthreads();
    return mine.index < n ? mine.index : 0;
  }
  __device__ __forceinline__ void sync() const { __syncthreads(); }
};

// Copies from global to shared memory that go on beside the computation, each thread's own, in batches: as many as are
// begun may be waited for in turn. `there` false writes a zero. On devices before compute capability 8.0 a copy is made
// at once.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
template <class T>
__device__ __forceinline__ void copy_async(T* to, const T* from, bool there) {
  const unsigned target = unsigned(__cvta_generic_to_shared(to));
  const int bytes = there ? int(sizeof(T)) : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(target), "l"(from), "n"(int(sizeof(T))),
               "r"(bytes));
}
__device__ __forceinline__ void end_batch() { asm volatile("cp.async.commit_group;"); }
template <int left>
__device__ __forceinline__ void wait_for_batches() {
  asm volatile("cp.async.wait_group %0;" ::"n"(left));
}
#else
template <class T>
__device__ __forceinline__ void copy_async(T* to, const T* from, bool there) {
  *to = there ? *from : T(0);
}
__device__ __forceinline__ void end_batch() {}
template <int left>
__device__ __forceinline__ void wait_for_batches() {}
#endif

// Some pairs of one component; lanes beyond `rows` repeat the last pair.
struct PairTile {
  index_t component, first;
  int rows;

  __device__ __forceinline__ index_t lane(int t) const { return first + (t < rows ? t : rows - 1); }
};

// The tile of a block, of up to `height` pairs: those of component j are pair_offsets[j] .. pair_offsets[j+1] - 1 and
// its tiles begin at tile_offsets[j]. Returns false beyond the last tile.
__device__ __forceinline__ bool find_tile(index_t number, index_t height, const index_t* tile_offsets /*[k+1]*/,
                                          const index_t* pair_offsets /*[k+1]*/, index_t k, PairTile* tile) {
  if (number >= tile_offsets[k]) return false;
  index_t low = 0, high = k;  // tile_offsets[low] <= number < tile_offsets[high]
  while (high - low > 1) {    // a warp looks at 32 places at a time: each look waits for memory
    const index_t step = (high - low + warp_size - 1) / warp_size, at = low + (lane_number() + 1) * step;
    const bool passed = at < high && tile_offsets[at] <= number;
    low += __popc(__ballot_sync(full_warp, passed)) * step;
    high = low + step < high ? low + step : high;
  }
  const index_t first = pair_offsets[low] + (number - tile_offsets[low]) * height;
  const index_t left = pair_offsets[low + 1] - first;
  *tile = {low, first, int(left < height ? left : height)};
  return true;
}
