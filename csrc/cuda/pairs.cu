// What is done for pairs of a sample and a component: refinement, gradient, statistics. Pairs come sorted by component;
// a block takes a tile of them, so that each value of W is read once for tile_rows samples.
#include "device.cuh"
#include "mfakit/statistics.hpp"

// One component of a mixture.
struct Component {
  const double *mean, *whitened, *noise;
  index_t d;
  bool diagonal;

  __device__ __forceinline__ Component(const Mixture& q, index_t j)
      : mean(q.mean(j)), whitened(q.w(j)), noise(q.variance(j)), d(q.d), diagonal(q.diagonal != 0) {}
  __device__ __forceinline__ double variance(index_t c) const { return noise[diagonal ? c : 0]; }
};

// Sums over the features that refinement takes of each sample, x - mean = r: in slot 0 |r|^2_{D^-1} (isotropic: |r|^2),
// in slot a + 1 row a of W times r. A warp makes slot_group of them at a time, so that r is computed once for all.
constexpr int slot_group = 3;
constexpr int refine_threads = 256;  // most of a block; the host launches no more

// s [slot_group][T] over the features of this lane, slots first, first + 1, ..; those beyond l are not to be used.
__device__ __forceinline__ void sum_slots(const Component& q, const Real* const* x, index_t first, index_t l,
                                          double (*s)[tile_rows]) {
  const double* w[slot_group];  // where a slot has no row, anything that can be read
  for (int i = 0; i < slot_group; ++i) {
    const index_t row = first + i - 1;
    w[i] = row >= 0 && row < l ? q.whitened + row * q.d : q.mean;
  }
#pragma unroll 2
  for (index_t c = lane_number(); c < q.d; c += warp_size) {
    const double mean = q.mean[c], inverse = first == 0 && q.diagonal ? 1.0 / q.noise[c] : 1.0;
    double factor[slot_group];
    for (int i = 0; i < slot_group; ++i) factor[i] = w[i][c];
    for (int t = 0; t < tile_rows; ++t) {
      const double r = double(x[t][c]) - mean;
      s[0][t] += r * (first == 0 ? r * inverse : factor[0]);
      for (int i = 1; i < slot_group; ++i) s[i][t] += r * factor[i];
    }
  }
}

// y [T, l] = W r and size [T] = |r|^2_{D^-1} of a tile, by a block.
__device__ __forceinline__ void project_tile(const Component& q, const Real* const* x, index_t l, double* y,
                                             double* size) {
  for (index_t first = warp_number() * slot_group; first <= l; first += warps_of_block() * slot_group) {
    double s[slot_group][tile_rows] = {};
    sum_slots(q, x, first, l, s);
    for (int i = 0; i < slot_group; ++i) {
      const index_t slot = first + i;
      if (slot > l) break;  // the same for all lanes
      for (int t = 0; t < tile_rows; ++t) {
        const double total = warp_sum(s[i][t]);
        if (lane_number() != 0) continue;
        if (slot == 0) {
          size[t] = q.diagonal ? total : total / q.noise[0];
        } else {
          y[t * l + slot - 1] = total;
        }
      }
    }
  }
}

// log_prob [m] and whitened_latent [m, l] of pairs; a block per tile, its warps share the slots. Shared: tile_rows
// (l + 1) values.
extern "C" __global__ void refine(const Real* __restrict__ X, const Pairs pairs,
                                  const index_t* __restrict__ tile_offsets, const index_t* __restrict__ pair_offsets,
                                  const Mixture mixture, double* __restrict__ log_prob,
                                  double* __restrict__ whitened_latent) {
  const index_t l = mixture.l, d = mixture.d;
  __shared__ Candidate scratch[most_warps];
  MFA_DYNAMIC_SHARED(double, y);           // [T, l]
  double* const size = y + tile_rows * l;  // [T]
  const BlockTeam team = {scratch};
  PairTile tile;
  if (!find_tile(blockIdx.x, tile_offsets, pair_offsets, mixture.k, &tile)) return;
  const Component q(mixture, tile.component);
  const Real* x[tile_rows];
  for (int t = 0; t < tile_rows; ++t) x[t] = X + pairs.rows[tile.lane(t)] * d;
  project_tile(q, x, l, y, size);
  __syncthreads();

  double maha[tile_rows];
  bool exact[tile_rows], all_exact = true;
  for (int t = 0; t < tile_rows; ++t) {
    exact[t] = mahalanobis<Real>(size[t], y + t * l, l, &maha[t]);
    all_exact = all_exact && exact[t];
  }
  if (!all_exact) {  // the same for all threads
    double norm[tile_rows] = {};
    for (index_t c = threadIdx.x; c < d; c += blockDim.x) {
      double g[tile_rows] = {};
      for (index_t a = 0; a < l; ++a) {
        const double w = q.whitened[a * d + c];
        for (int t = 0; t < tile_rows; ++t) g[t] += y[t * l + a] * w;
      }
      for (int t = 0; t < tile_rows; ++t) norm[t] += residual_term(double(x[t][c]) - q.mean[c], g[t], q.variance(c));
    }
    for (int t = 0; t < tile_rows; ++t) {
      const double total = team.sum_of(norm[t]);
      if (!exact[t]) maha[t] = total + latent_norm(mixture.z(tile.component), y + t * l, l);
    }
  }
  for (int t = 0; t < tile.rows; ++t) {
    team.each(l, [&](index_t a) { whitened_latent[(tile.first + t) * l + a] = y[t * l + a]; });
    if (threadIdx.x == 0) log_prob[tile.first + t] = mixture.log_norm[tile.component] - 0.5 * not_negative(maha[t]);
  }
}

// Declared once more with its bounds, because the host finds a kernel by the name that follows `void` where it is
// defined.
extern "C" __global__ __launch_bounds__(refine_threads) decltype(refine) refine;

// out [n, d] += weights grad log N(x); a block per tile and share of the features. No row may be in two of the pairs of
// one launch: the caller deals them out. Shared: tile_rows l values.
extern "C" __global__ void accumulate_gradient(const Real* __restrict__ X, const WeightedPairs pairs,
                                               const index_t* __restrict__ tile_offsets,
                                               const index_t* __restrict__ pair_offsets, const Mixture mixture,
                                               Real* __restrict__ out) {
  const index_t l = mixture.l, d = mixture.d;
  MFA_DYNAMIC_SHARED(double, y);  // [T, l]
  PairTile tile;
  if (!find_tile(blockIdx.x, tile_offsets, pair_offsets, mixture.k, &tile)) return;
  const Component q(mixture, tile.component);
  for (index_t i = threadIdx.x; i < tile_rows * l; i += blockDim.x) {
    y[i] = pairs.latents[tile.lane(int(i / l)) * l + i % l];
  }
  __syncthreads();
  index_t at[tile_rows];
  double weight[tile_rows];
  for (int t = 0; t < tile_rows; ++t) {
    at[t] = pairs.rows[tile.lane(t)] * d;
    weight[t] = pairs.weights[tile.lane(t)];
  }
  for (index_t c = index_t(blockIdx.y) * blockDim.x + threadIdx.x; c < d; c += index_t(gridDim.y) * blockDim.x) {
    double g[tile_rows] = {};
    for (index_t a = 0; a < l; ++a) {
      const double w = q.whitened[a * d + c];
      for (int t = 0; t < tile_rows; ++t) g[t] += y[t * l + a] * w;
    }
    double sum[tile_rows];  // all are read before one is written, so that no read waits for a write
    for (int t = 0; t < tile_rows; ++t) {
      const double r = double(X[at[t] + c]) - q.mean[c];
      sum[t] = double(out[at[t] + c]) + weight[t] * gradient_at(r, g[t], q.variance(c));
    }
    for (int t = 0; t < tile_rows; ++t) {
      if (t < tile.rows) out[at[t] + c] = Real(sum[t]);
    }
  }
}

constexpr int factor_group = 8;  // factors that a thread sums at a time, in registers

// Partial sums of the M-step: of S k components, segment s over its share of each component's pairs; a thread per
// feature, in a grid (features, k, S).
extern "C" __global__ void accumulate_statistics(const Real* __restrict__ X, const WeightedPairs pairs,
                                                 const index_t* __restrict__ pair_offsets,
                                                 const double* __restrict__ means, const Sums partial) {
  const index_t segments = gridDim.z, s = blockIdx.z, k = partial.k / segments, l = partial.l, d = partial.d;
  double* const __restrict__ sum_x = partial.x, * const __restrict__ sum_xz = partial.xz;
  double* const __restrict__ sum_xx = partial.xx;
  for (index_t j = blockIdx.y; j < k; j += gridDim.y) {
    const index_t first = pair_offsets[j], count = pair_offsets[j + 1] - first, at = s * k + j;
    const index_t begin = first + count * s / segments, end = first + count * (s + 1) / segments;
    for (index_t c = global_thread(); c < d; c += threads_of_grid()) {
      const double mean = means[j * d + c];
      for (index_t group = 0; group == 0 || group < l; group += factor_group) {
        double x = 0.0, xx = 0.0, xz[factor_group] = {};
        for (index_t p = begin; p < end; ++p) {
          const double r = double(X[pairs.rows[p] * d + c]) - mean;
          accumulate_pair(r, pairs.weights[p], pairs.latents + p * l + group, l - group, factor_group, &x, xz, &xx);
        }
        for (int a = 0; a < factor_group; ++a) {
          if (group + a < l) sum_xz[(at * l + group + a) * d + c] = xz[a];
        }
        if (group == 0) {
          sum_x[at * d + c] = x;
          sum_xx[at * d + c] = xx;
        }
      }
    }
  }
}
