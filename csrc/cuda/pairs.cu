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
constexpr int refine_warps = 8;
constexpr int refine_threads = refine_warps * warp_size;
constexpr int refine_columns = 128;

// How the warps of a block share its pairs and slots: row_groups times slot_groups of them. Where all slots fit one
// group, every warp has pairs of its own.
template <int row_groups_, int slot_group_>
struct Shape {
  static constexpr int row_groups = row_groups_, slot_groups = refine_warps / row_groups, slot_group = slot_group_;
  static constexpr int rows = row_groups * tile_rows;
  static constexpr int slots = slot_groups * slot_group;  // more slots take several passes over the samples
  static constexpr int rows_of_warp = rows / refine_warps;
};
using Narrow = Shape<8, 8>;  // up to 7 factors
using Wide = Shape<4, 6>;    // up to 11 at once

// What is brought at a time.
template <class S>
struct Stage {
  double mean[refine_columns];
  double factor[S::slots][refine_columns];  // slot 0: 1/D
  Real x[S::rows][refine_columns];
};

// Shared memory.
template <class S>
struct RefineMemory {
  Stage<S> stages[2];
  double size[S::rows];
};

// Begin to bring the features from `begin` on, for the slots from `first` on; zeros beyond the last feature. Of the
// samples, x points at those that this warp brings, every refine_warps-th.
template <class S>
__device__ __forceinline__ void bring(const Component& q, const Real* const* x /*[S::rows_of_warp]*/, index_t begin,
                                      index_t first, Stage<S>& stage) {
#pragma unroll 1  // nothing waits for a copy here
  for (int u = 0; u < refine_columns / warp_size; ++u) {
    const int c = u * warp_size + lane_number();
    const index_t at = begin + c < q.d ? begin + c : 0;
    const bool inside = begin + c < q.d;
#pragma unroll
    for (int i = 0; i < S::rows_of_warp; ++i) {
      copy_async(&stage.x[warp_number() + i * refine_warps][c], x[i] + at, inside);
    }
#pragma unroll 1
    for (int i = warp_number(); i < S::slots; i += refine_warps) {
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

// s [S::slot_group][T] of this warp's pairs and slots, over the features of this lane that were brought.
template <class S>
__device__ __forceinline__ void add_stage(const Stage<S>& stage, int rows, int slots, bool with_norm, bool diagonal,
                                          int width, double (*s)[tile_rows]) {
#pragma unroll 1  // the sums alone take 48 or 64 registers
  for (int c = lane_number(); c < width; c += warp_size) {
    const double mean = stage.mean[c];
    double r[tile_rows], f[S::slot_group];
#pragma unroll
    for (int t = 0; t < tile_rows; ++t) r[t] = double(stage.x[rows + t][c]) - mean;
#pragma unroll
    for (int i = 0; i < S::slot_group; ++i) f[i] = stage.factor[slots + i][c];
    const double first = diagonal ? f[0] : 1.0;
#pragma unroll
    for (int t = 0; t < tile_rows; ++t) {
      s[0][t] += r[t] * (with_norm ? r[t] * first : f[0]);
#pragma unroll
      for (int i = 1; i < S::slot_group; ++i) s[i][t] += r[t] * f[i];
    }
  }
}

// y [n_rows, l] = W r, in global memory, and size [n_rows] = |r|^2_{D^-1} of a tile, by a block.
template <class S>
__device__ __forceinline__ void project_tile(const Component& q, const Real* const* x, int n_rows, RefineMemory<S>& m,
                                             double* y) {
  const int rows = warp_number() % S::row_groups * tile_rows, slots = warp_number() / S::row_groups * S::slot_group;
  for (index_t first = 0; first <= q.l; first += S::slots) {
    const index_t slot = first + slots;
    double s[S::slot_group][tile_rows] = {};
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
    for (int i = 0; i < S::slot_group; ++i) {
      if (slot + i > q.l) break;
#pragma unroll
      for (int t = 0; t < tile_rows; ++t) {
        const double total = warp_sum(s[i][t]);
        if (lane_number() != 0 || rows + t >= n_rows) continue;
        if (slot + i == 0) {
          m.size[rows + t] = q.diagonal ? total : total * q.precision[0];
        } else {
          y[(rows + t) * q.l + slot + i - 1] = total;
        }
      }
    }
  }
  __syncthreads();
}

// norm [T] += |r - A z|^2_{D^-1} over this lane's features, of tile_rows pairs with y [T][l].
__device__ __forceinline__ void residual_norms(const Component& q, const Real* const* x, const double* const* y,
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
      for (int t = 0; t < tile_rows; ++t) g[t] += y[t][a] * w;
    }
#pragma unroll
    for (int t = 0; t < tile_rows; ++t) norm[t] += residual_term(double(value[t]) - mean, g[t], variance, precision);
  }
}

// log_prob [m] and whitened_latent [m, l] of pairs; a block per tile. Shared: RefineMemory.
template <class S>
__device__ __forceinline__ void refine_tile(const Real* X, const Pairs& pairs, const index_t* tile_offsets,
                                            const index_t* pair_offsets, const Mixture& mixture, double* log_prob,
                                            double* whitened_latent, double* shared) {
  const index_t l = mixture.l;
  PairTile tile;
  if (!find_tile(blockIdx.x, S::rows, tile_offsets, pair_offsets, mixture.k, &tile)) return;
  const Component q(mixture, tile.component);
  RefineMemory<S>& memory = *reinterpret_cast<RefineMemory<S>*>(shared);
  const Real* staged[S::rows_of_warp];
#pragma unroll
  for (int i = 0; i < S::rows_of_warp; ++i) {
    staged[i] = X + pairs.rows[tile.lane(warp_number() + i * refine_warps)] * mixture.d;
  }
  project_tile(q, staged, tile.rows, memory, whitened_latent + tile.first * l);

  const int first = warp_number() * tile_rows;
  if (first >= tile.rows) return;  // from here on warps do not meet
  const double* y[tile_rows];
  double maha[tile_rows];
  bool exact[tile_rows], all_exact = true;
#pragma unroll
  for (int t = 0; t < tile_rows; ++t) {
    const int row = first + t < tile.rows ? first + t : tile.rows - 1;
    y[t] = whitened_latent + (tile.first + row) * l;
    exact[t] = mahalanobis<Real>(memory.size[row], y[t], l, &maha[t]);
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
      if (!exact[t]) maha[t] = total + latent_norm(mixture.z(tile.component), y[t], l);
    }
  }
#pragma unroll
  for (int t = 0; t < tile_rows; ++t) {
    if (first + t < tile.rows && lane_number() == 0) {
      log_prob[tile.first + first + t] = mixture.log_norm[tile.component] - 0.5 * not_negative(maha[t]);
    }
  }
}

extern "C" __global__ void refine_narrow(const Real* __restrict__ X, const Pairs pairs,
                                         const index_t* __restrict__ tile_offsets,
                                         const index_t* __restrict__ pair_offsets, const Mixture mixture,
                                         double* __restrict__ log_prob, double* whitened_latent) {
  MFA_DYNAMIC_SHARED(double, shared);
  refine_tile<Narrow>(X, pairs, tile_offsets, pair_offsets, mixture, log_prob, whitened_latent, shared);
}

extern "C" __global__ void refine_wide(const Real* __restrict__ X, const Pairs pairs,
                                       const index_t* __restrict__ tile_offsets,
                                       const index_t* __restrict__ pair_offsets, const Mixture mixture,
                                       double* __restrict__ log_prob, double* whitened_latent) {
  MFA_DYNAMIC_SHARED(double, shared);
  refine_tile<Wide>(X, pairs, tile_offsets, pair_offsets, mixture, log_prob, whitened_latent, shared);
}

// Declared once more with their bounds, because the host finds a kernel by the name that follows `void` where it is
// defined.
extern "C" __global__ __launch_bounds__(refine_threads, 2) decltype(refine_narrow) refine_narrow;
extern "C" __global__ __launch_bounds__(refine_threads, 2) decltype(refine_wide) refine_wide;

constexpr int gradient_rows = 8;  // pairs of a block

// out [n, d] += weights grad log N(x); a block per tile of gradient_rows pairs and share of the features. No row may be
// in two of the pairs. Shared: gradient_rows l values, the pairs' latents with those of one factor side by side.
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
      if (t < tile.rows && weight[t] != 0.0) {
        out[at[t] + c] = Real(double(before[t]) + weight[t] * (g[t] - r * precision));
      }
    }
  }
}

// The same of rows that are in several pairs, those from range[0] to range[1], which come row by row: what a row's
// pairs add up to is rounded once. A block per row, found by its first pair, and share of the features.
extern "C" __global__ void accumulate_row_gradients(const Real* __restrict__ X, const WeightedPairs pairs,
                                                    const index_t* __restrict__ range, const Mixture mixture,
                                                    Real* __restrict__ out) {
  const index_t begin = range[0], end = range[1], l = mixture.l, d = mixture.d;
  for (index_t p = begin + blockIdx.x; p < end; p += gridDim.x) {
    const index_t row = pairs.rows[p];
    if (p > begin && pairs.rows[p - 1] == row) continue;
    for (index_t c = index_t(blockIdx.y) * blockDim.x + threadIdx.x; c < d; c += index_t(gridDim.y) * blockDim.x) {
      const double x = double(X[row * d + c]);
      double total = 0.0;
      for (index_t i = p; i < end && pairs.rows[i] == row; ++i) {
        const double weight = pairs.weights[i], *y = pairs.latents + i * l;
        if (weight == 0.0) continue;
        const Component q(mixture, pairs.components[i]);
        double g = 0.0;
        for (index_t a = 0; a < l; ++a) g += y[a] * q.whitened[a * d + c];
        total += weight * (g - (x - q.mean[c]) * q.precision[q.at(c)]);
      }
      out[row * d + c] = Real(double(out[row * d + c]) + total);
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
