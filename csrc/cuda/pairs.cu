// What is done for pairs of a sample and a component: refinement, gradient, statistics. Pairs come sorted by component;
// a block takes a tile of them, so that each value of W is read once for tile_rows samples.
#include "device.cuh"
#include "mfakit/statistics.hpp"

// One component of a mixture.
struct Component {
  const double *mean, *whitened, *noise, *precision;
  index_t l, d;
  bool diagonal;

  __device__ __forceinline__ Component(const Mixture& q, index_t j)
      : mean(q.mean(j)),
        whitened(q.w(j)),
        noise(q.variance(j)),
        precision(q.inverse(j)),
        l(q.l),
        d(q.d),
        diagonal(q.diagonal != 0) {}
  // Where in noise and precision a feature is.
  __device__ __forceinline__ index_t at(index_t c) const { return diagonal ? c : 0; }
};

// Refinement: a block takes refine_rows pairs of one component. Some features at a time, it brings samples, mean and
// rows of W to shared memory, where each value is read for all pairs, the next ones while these are summed; a warp adds
// to slot_group sums of tile_rows pairs: in slot 0 |r|^2_{D^-1} (isotropic: |r|^2), r = x - mean, in slot a + 1 row a
// of W times r.
constexpr int refine_rows = 16;
constexpr int row_groups = refine_rows / tile_rows;
constexpr int slot_group = 6;
constexpr int slots_at_once = 2 * slot_group;  // more than 11 factors take several passes over the samples
constexpr int refine_warps = row_groups * slots_at_once / slot_group;
constexpr int refine_threads = refine_warps * warp_size;
constexpr int refine_columns = 128;

// What is brought at a time.
struct Stage {
  double mean[refine_columns];
  double factor[slots_at_once][refine_columns];  // slot 0: 1/D
  Real x[refine_rows][refine_columns];
};

// In shared memory: two stages, and what is found, y [refine_rows, l] and size [refine_rows].
struct RefineMemory {
  Stage* stages;
  double *y, *size;

  __device__ __forceinline__ RefineMemory(double* memory, index_t l) : stages(reinterpret_cast<Stage*>(memory)) {
    y = reinterpret_cast<double*>(stages + 2);
    size = y + refine_rows * l;
  }
};

// Begin to bring the features from `begin` on, for the slots from `first` on; zeros beyond the last feature. Of the
// samples, x points at those that this warp brings, every refine_warps-th.
__device__ __forceinline__ void bring(const Component& q, const Real* const* x /*[rows / warps]*/, index_t begin,
                                      index_t first, Stage& stage) {
#pragma unroll 1  // nothing waits for a copy here
  for (int u = 0; u < refine_columns / warp_size; ++u) {
    const int c = u * warp_size + lane_number();
    const index_t at = begin + c < q.d ? begin + c : 0;
    const bool inside = begin + c < q.d;
#pragma unroll
    for (int i = 0; i < refine_rows / refine_warps; ++i) {
      copy_async(&stage.x[warp_number() + i * refine_warps][c], x[i] + at, inside);
    }
#pragma unroll 1
    for (int i = warp_number(); i < slots_at_once; i += refine_warps) {
      const index_t slot = first + i;
      if (slot > 0 && slot <= q.l) {
        copy_async(&stage.factor[i][c], q.whitened + (slot - 1) * q.d + at, inside);
      } else if (slot == 0) {
        copy_async(&stage.factor[i][c], q.precision + q.at(at), inside);
      }
    }
    if (warp_number() == refine_warps - 1) copy_async(&stage.mean[c], q.mean + at, inside);
  }
}

// s [slot_group][T] of this warp's pairs and slots, over the features of this lane that were brought.
__device__ __forceinline__ void add_stage(const Stage& stage, int rows, int slots, bool with_norm, bool diagonal,
                                          int width, double (*s)[tile_rows]) {
#pragma unroll 1  // the sums alone take 48 registers
  for (int c = lane_number(); c < width; c += warp_size) {
    const double mean = stage.mean[c];
    double r[tile_rows], f[slot_group];
#pragma unroll
    for (int t = 0; t < tile_rows; ++t) r[t] = double(stage.x[rows + t][c]) - mean;
#pragma unroll
    for (int i = 0; i < slot_group; ++i) f[i] = stage.factor[slots + i][c];
    const double first = diagonal ? f[0] : 1.0;
#pragma unroll
    for (int t = 0; t < tile_rows; ++t) {
      s[0][t] += r[t] * (with_norm ? r[t] * first : f[0]);
#pragma unroll
      for (int i = 1; i < slot_group; ++i) s[i][t] += r[t] * f[i];
    }
  }
}

// y [rows, l] = W r and size [rows] = |r|^2_{D^-1} of a tile, by a block.
__device__ __forceinline__ void project_tile(const Component& q, const Real* const* x, int n_rows,
                                             const RefineMemory& m) {
  const int rows = warp_number() % row_groups * tile_rows, slots = warp_number() / row_groups * slot_group;
  for (index_t first = 0; first <= q.l; first += slots_at_once) {
    const index_t slot = first + slots;
    double s[slot_group][tile_rows] = {};
    bring(q, x, 0, first, m.stages[0]);
    end_batch();
    int now = 0;
    for (index_t begin = 0; begin < q.d; begin += refine_columns) {
      if (begin + refine_columns < q.d) {
        bring(q, x, begin + refine_columns, first, m.stages[1 - now]);
        end_batch();
        wait_for_batches<1>();
      } else {
        wait_for_batches<0>();
      }
      __syncthreads();
      if (rows < n_rows && slot <= q.l) {  // the same for all lanes
        const index_t left = q.d - begin;
        const int width = int(left < refine_columns ? left : refine_columns);
        add_stage(m.stages[now], rows, slots, slot == 0, q.diagonal, width, s);
      }
      __syncthreads();
      now = 1 - now;
    }
#pragma unroll
    for (int i = 0; i < slot_group; ++i) {
      if (slot + i > q.l) break;
#pragma unroll
      for (int t = 0; t < tile_rows; ++t) {
        const double total = warp_sum(s[i][t]);
        if (lane_number() != 0) continue;
        if (slot + i == 0) {
          m.size[rows + t] = q.diagonal ? total : total * q.precision[0];
        } else {
          m.y[(rows + t) * q.l + slot + i - 1] = total;
        }
      }
    }
  }
  __syncthreads();
}

// norm [T] += |r - A z|^2_{D^-1} over this lane's features, of tile_rows pairs with y [T, l].
__device__ __forceinline__ void residual_norms(const Component& q, const Real* const* x, const double* y,
                                               double* norm) {
#pragma unroll 1
  for (index_t c = lane_number(); c < q.d; c += warp_size) {
    Real value[tile_rows];
    double g[tile_rows] = {};
#pragma unroll
    for (int t = 0; t < tile_rows; ++t) value[t] = x[t][c];
    const double mean = q.mean[c], variance = q.noise[q.at(c)], precision = q.precision[q.at(c)];
#pragma unroll 2
    for (index_t a = 0; a < q.l; ++a) {
      const double w = q.whitened[a * q.d + c];
#pragma unroll
      for (int t = 0; t < tile_rows; ++t) g[t] += y[t * q.l + a] * w;
    }
#pragma unroll
    for (int t = 0; t < tile_rows; ++t) norm[t] += residual_term(double(value[t]) - mean, g[t], variance, precision);
  }
}

// log_prob [m] and whitened_latent [m, l] of pairs; a block per tile. Shared: RefineMemory.
extern "C" __global__ void refine(const Real* __restrict__ X, const Pairs pairs,
                                  const index_t* __restrict__ tile_offsets, const index_t* __restrict__ pair_offsets,
                                  const Mixture mixture, double* __restrict__ log_prob,
                                  double* __restrict__ whitened_latent) {
  const index_t l = mixture.l;
  MFA_DYNAMIC_SHARED(double, shared);
  PairTile tile;
  if (!find_tile(blockIdx.x, refine_rows, tile_offsets, pair_offsets, mixture.k, &tile)) return;
  const Component q(mixture, tile.component);
  const RefineMemory memory(shared, l);
  const Real* staged[refine_rows / refine_warps];
#pragma unroll
  for (int i = 0; i < refine_rows / refine_warps; ++i) {
    staged[i] = X + pairs.rows[tile.lane(warp_number() + i * refine_warps)] * mixture.d;
  }
  project_tile(q, staged, tile.rows, memory);

  const int first = warp_number() * tile_rows;
  if (first >= tile.rows) return;  // from here on warps do not meet
  const int rows = tile.rows - first < tile_rows ? tile.rows - first : tile_rows;
  const double* const y = memory.y + first * l;
  double maha[tile_rows];
  bool exact[tile_rows], all_exact = true;
#pragma unroll
  for (int t = 0; t < tile_rows; ++t) {
    exact[t] = mahalanobis<Real>(memory.size[first + t], y + t * l, l, &maha[t]);
    all_exact = all_exact && exact[t];
  }
  if (!all_exact) {  // the same for all lanes
    const Real* x[tile_rows];
    double norm[tile_rows] = {};
#pragma unroll
    for (int t = 0; t < tile_rows; ++t) x[t] = X + pairs.rows[tile.lane(first + t)] * mixture.d;
    residual_norms(q, x, y, norm);
#pragma unroll
    for (int t = 0; t < tile_rows; ++t) {
      const double total = warp_sum(norm[t]);
      if (!exact[t]) maha[t] = total + latent_norm(mixture.z(tile.component), y + t * l, l);
    }
  }
  const index_t pair = tile.first + first;
  for (index_t i = lane_number(); i < rows * l; i += warp_size) whitened_latent[pair * l + i] = y[i];
#pragma unroll
  for (int t = 0; t < tile_rows; ++t) {
    if (t < rows && lane_number() == 0) {
      log_prob[pair + t] = mixture.log_norm[tile.component] - 0.5 * not_negative(maha[t]);
    }
  }
}

// Declared once more with its bounds, because the host finds a kernel by the name that follows `void` where it is
// defined.
extern "C" __global__ __launch_bounds__(refine_threads, 2) decltype(refine) refine;

constexpr int gradient_rows = 8;  // pairs of a block

// out [n, d] += weights grad log N(x); a block per tile of gradient_rows pairs and share of the features. No row may be
// in two of the pairs of one launch: the caller deals them out. Shared: gradient_rows l values, the pairs' latents with
// those of one factor side by side.
extern "C" __global__ void accumulate_gradient(const Real* __restrict__ X, const WeightedPairs pairs,
                                               const index_t* __restrict__ tile_offsets,
                                               const index_t* __restrict__ pair_offsets, const Mixture mixture,
                                               Real* __restrict__ out) {
  const index_t l = mixture.l, d = mixture.d;
  MFA_DYNAMIC_SHARED(double, y);  // [l, T]
  PairTile tile;
  if (!find_tile(blockIdx.x, gradient_rows, tile_offsets, pair_offsets, mixture.k, &tile)) return;
  const Component q(mixture, tile.component);
  for (index_t i = threadIdx.x; i < gradient_rows * l; i += blockDim.x) {
    const index_t a = i / gradient_rows, t = i % gradient_rows;
    y[i] = pairs.latents[tile.lane(int(t)) * l + a];
  }
  __syncthreads();
  index_t at[gradient_rows];
  double weight[gradient_rows];
#pragma unroll
  for (int t = 0; t < gradient_rows; ++t) {
    at[t] = pairs.rows[tile.lane(t)] * d;
    weight[t] = pairs.weights[tile.lane(t)];
  }
  for (index_t c = index_t(blockIdx.y) * blockDim.x + threadIdx.x; c < d; c += index_t(gridDim.y) * blockDim.x) {
    Real value[gradient_rows], before[gradient_rows];
#pragma unroll
    for (int t = 0; t < gradient_rows; ++t) value[t] = X[at[t] + c];
#pragma unroll
    for (int t = 0; t < gradient_rows; ++t) before[t] = out[at[t] + c];
    const double mean = q.mean[c], precision = q.precision[q.at(c)];
    double g[gradient_rows] = {};
    for (index_t a = 0; a < l; ++a) {
      const double w = q.whitened[a * d + c];
#pragma unroll
      for (int t = 0; t < gradient_rows; ++t) g[t] += y[a * gradient_rows + t] * w;
    }
#pragma unroll
    for (int t = 0; t < gradient_rows; ++t) {
      const double r = double(value[t]) - mean;
      if (t < tile.rows) out[at[t] + c] = Real(double(before[t]) + weight[t] * (g[t] - r * precision));
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
