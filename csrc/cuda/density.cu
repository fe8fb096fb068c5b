// Coarse step, sums over components and distances to subspaces. What each operation computes is said
// in python/mfakit/backends/numpy_ops.py, how it is launched in python/mfakit/backends/cuda_ops.py.
#include "device.cuh"
#include "mfakit/subspace.hpp"

// Values that a thread takes at a time: in one access of 16 bytes where the rows are aligned to that.
constexpr int pack = 16 / sizeof(Real);
template <class T>
struct alignas(pack * sizeof(T)) Pack {
  T value[pack];
};

// out [n, d] = X - center, sq_norms [n]; a warp per row. What a lane sums does not depend on the alignment.
template <class Out>
__device__ __forceinline__ void center(const Real* X, const double* center, index_t n, index_t d, Out* out,
                                       double* sq_norms) {
  const bool aligned = d % pack == 0 && size_t(X) % sizeof(Pack<Real>) == 0 && size_t(out) % sizeof(Pack<Out>) == 0;
  const index_t whole = aligned ? d : 0;
  for (index_t i = global_thread() / warp_size; i < n; i += threads_of_grid() / warp_size) {
    const Real* x = X + i * d;
    Out* y = out + i * d;
    double mine = 0.0;
#pragma unroll 4  // loads in flight at once
    for (index_t j = pack * lane_number(); j < whole; j += pack * warp_size) {
      const Pack<Real> from = *reinterpret_cast<const Pack<Real>*>(x + j);
      Pack<Out> to;
#pragma unroll
      for (int p = 0; p < pack; ++p) {
        to.value[p] = Out(double(from.value[p]) - center[j + p]);
        mine += double(to.value[p]) * double(to.value[p]);
      }
      *reinterpret_cast<Pack<Out>*>(y + j) = to;
    }
    for (index_t j = whole + pack * lane_number(); j < d; j += pack * warp_size) {
      for (index_t p = j; p < j + pack && p < d; ++p) {
        const Out r = Out(double(x[p]) - center[p]);
        y[p] = r;
        mine += double(r) * double(r);
      }
    }
    const double sum = warp_sum(mine);
    if (lane_number() == 0) sq_norms[i] = sum;
  }
}

extern "C" __global__ void center_rows(const Real* __restrict__ X, const double* __restrict__ mean, index_t n,
                                       index_t d, Real* __restrict__ out, double* __restrict__ sq_norms) {
  center(X, mean, n, d, out, sq_norms);
}

// The same to float32, rounded once the mean is subtracted.
extern "C" __global__ void center_rows_narrowed(const Real* __restrict__ X, const double* __restrict__ mean, index_t n,
                                                index_t d, float* __restrict__ out, double* __restrict__ sq_norms) {
  center(X, mean, n, d, out, sq_norms);
}

// Components of a row that a lane holds in registers, and those that a warp does: 256.
constexpr int held = 8;
constexpr index_t held_by_warp = held * warp_size;

// One row of the block product and what its epilogue needs.
struct CoarseRow {
  const Coarse<Real>& coarse;
  const Mixture& mixture;
  index_t i;

  __device__ __forceinline__ double log_prob(index_t j) const { return component_log_prob(coarse, mixture, i, j); }
  __device__ __forceinline__ double error(index_t j) const { return coarse_error(coarse, mixture, i, j); }
  // The least that the best component has for sure; what NaN says does not count.
  __device__ __forceinline__ double sure(index_t j, double log_prob_j) const {
    const double least = log_prob_j - error(j);
    return least == least ? least : -infinity_();
  }
  // Of this lane's components from `first` on, every 32nd: `most` is what they have at most. Returns the least that the
  // best of them has for sure.
  __device__ __forceinline__ double bounds(index_t first, double* most /*[held]*/) const {
    double best = -infinity_();
#pragma unroll
    for (int h = 0; h < held; ++h) {
      const index_t j = first + h * warp_size + lane_number();
      most[h] = -infinity_();
      if (j >= mixture.k) continue;
      const double log_prob_j = log_prob(j);
      most[h] = log_prob_j + error(j);
      best = larger(sure(j, log_prob_j), best);
    }
    return best;
  }
};

// log_prob [n, k] and keep [n, k]; a warp per row.
extern "C" __global__ void mixture_epilogue(const Coarse<Real> coarse, const Mixture mixture,
                                            double* __restrict__ log_prob, unsigned char* __restrict__ keep) {
  const WarpTeam team;
  const index_t k = mixture.k;
  for (index_t i = global_thread() / warp_size; i < coarse.n; i += threads_of_grid() / warp_size) {
    const CoarseRow row = {coarse, mixture, i};
    double* lp = log_prob + i * k;
    const double best = team.max(k, [&](index_t j) {
      lp[j] = row.log_prob(j);
      return row.sure(j, lp[j]);
    });
    team.each(k, [&](index_t j) { keep[i * k + j] = lp[j] + row.error(j) >= best - cutoff_nats; });
  }
}

// What mixture_epilogue keeps, without its [n, k] arrays: a bit for each component of a row, marks [n, ceil(k / 32)],
// and count [n] of them; a warp per row. Who is a candidate is decided here, once: the same sum in another kernel may
// be rounded otherwise.
extern "C" __global__ void mark_candidates(const Coarse<Real> coarse, const Mixture mixture,
                                           unsigned* __restrict__ marks, index_t* __restrict__ count) {
  const index_t k = mixture.k;
  const index_t words = (k + warp_size - 1) / warp_size, groups = (k + held_by_warp - 1) / held_by_warp;
  for (index_t i = global_thread() / warp_size; i < coarse.n; i += threads_of_grid() / warp_size) {
    const CoarseRow row = {coarse, mixture, i};
    double most[held];
    double best = -infinity_();
    for (index_t group = 0; group < groups; ++group) best = larger(row.bounds(group * held_by_warp, most), best);
    best = warp_max(best);
    index_t found = 0;
    for (index_t group = groups - 1; group >= 0; --group) {  // the last one, for k <= 256 the only one, is still held
      if (group < groups - 1) row.bounds(group * held_by_warp, most);
#pragma unroll
      for (int h = 0; h < held; ++h) {
        const index_t word = group * held + h;
        if (word >= words) break;
        const bool kept = word * warp_size + lane_number() < k && most[h] >= best - cutoff_nats;
        const unsigned votes = __ballot_sync(full_warp, kept);
        if (lane_number() == 0) marks[i * words + word] = votes;
        found += __popc(votes);
      }
    }
    if (lane_number() == 0) count[i] = found;
  }
}

// The marked components themselves, rows and components [count], row by row from offsets [n+1] and by component within,
// as many as there is room for; a warp per row.
extern "C" __global__ void list_candidates(const unsigned* __restrict__ marks, const index_t* __restrict__ offsets,
                                           index_t n, index_t k, index_t count, index_t* __restrict__ rows,
                                           index_t* __restrict__ components) {
  const index_t words = (k + warp_size - 1) / warp_size;
  for (index_t i = global_thread() / warp_size; i < n; i += threads_of_grid() / warp_size) {
    index_t at = offsets[i];
    for (index_t word = 0; word < words; ++word) {
      const unsigned votes = marks[i * words + word];
      if (votes >> lane_number() & 1u) {
        const index_t place = at + __popc(votes & ((1u << lane_number()) - 1u));
        if (place < count) {
          rows[place] = i;
          components[place] = word * warp_size + lane_number();
        }
      }
      at += __popc(votes);
    }
  }
}

// out [n] = log sum exp over each row's candidates, values [m] row by row; -inf for a row without any.
extern "C" __global__ void log_sum_exp_candidates(const double* values, const index_t* offsets, index_t n,
                                                  double* out) {
  for (index_t i = global_thread(); i < n; i += threads_of_grid()) {
    out[i] = log_sum_exp(values + offsets[i], offsets[i + 1] - offsets[i]);
  }
}

// out [n]; a warp per row.
extern "C" __global__ void log_sum_exp_rows(const double* log_prob, index_t n, index_t k, double* out) {
  for (index_t i = global_thread() / warp_size; i < n; i += threads_of_grid() / warp_size) {
    const double total = log_sum_exp(WarpTeam(), log_prob + i * k, k);
    if (lane_number() == 0) out[i] = total;
  }
}

// out [n, k]; a warp per row.
extern "C" __global__ void softmax_rows(const double* log_prob, index_t n, index_t k, double* out) {
  for (index_t i = global_thread() / warp_size; i < n; i += threads_of_grid() / warp_size) {
    softmax(WarpTeam(), log_prob + i * k, k, out + i * k);
  }
}

// sq_distances [n, k] and keep [n, k].
extern "C" __global__ void point_distances(const Coarse<Real> coarse, const Mixture mixture, double tolerance,
                                           double* sq_distances, unsigned char* keep) {
  const index_t k = mixture.k;
  for (index_t ij = global_thread(); ij < coarse.n * k; ij += threads_of_grid()) {
    sq_distances[ij] = point_distance(coarse, mixture, tolerance, ij / k, ij % k, keep + ij);
  }
}
