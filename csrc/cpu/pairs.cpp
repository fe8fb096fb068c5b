// What is done for pairs of a sample and a component: refinement, gradient, statistics. Pairs come sorted by component
// and are taken in tiles of T rows that share one; a tile that is not full repeats its last row, so that a row's bits
// never depend on its neighbours.
#include <vector>

#include "kernels.hpp"
#include "mfakit/residual.hpp"
#include "mfakit/statistics.hpp"
#include "parallel.hpp"

namespace mfakit {
namespace {

struct Tile {
  index_t first;  // index of its first pair
  int rows;       // 1 .. tile_rows
};

std::vector<Tile> tiles_of(const index_t* components, index_t m) {
  std::vector<Tile> tiles;
  tiles.reserve(size_t(m / tile_rows + 1));
  for (index_t p = 0; p < m;) {
    int rows = 1;
    while (rows < tile_rows && p + rows < m && components[p + rows] == components[p]) ++rows;
    tiles.push_back({p, rows});
    p += rows;
  }
  return tiles;
}

// Pair index of lane t of a tile.
index_t lane(const Tile& tile, int t) { return tile.first + (t < tile.rows ? t : tile.rows - 1); }

template <class Real>
void row_pointers(const Real* X, const index_t* rows, index_t d, const Tile& tile, const Real** x) {
  for (int t = 0; t < tile_rows; ++t) x[t] = X + rows[lane(tile, t)] * d;
}

// Tiles of one component whose chunks of features are taken together, so that W is read from memory once for all.
constexpr int group_tiles = 8;

// Of one tile: its rows x [T], and what is found: y [T, l], size [T] = |x-mu|^2_{D^-1} and maha [T] = size - |y|^2.
template <class Real>
struct Lanes {
  const Real* x[tile_rows];
  double* y;
  double size[tile_rows], maha[tile_rows];
};

template <class Real, bool Diagonal>
MFAKIT_HD void refine_body(Lanes<Real>* tiles, int count, const double* mean, const double* w, const double* noise,
                           const double* latent_map, index_t l, index_t d) {
  alignas(64) double r[tile_rows * chunk_columns], g[tile_rows * chunk_columns];
  for (int i = 0; i < count; ++i) {
    for (int t = 0; t < tile_rows; ++t) tiles[i].size[t] = 0.0;
    for (index_t a = 0; a < tile_rows * l; ++a) tiles[i].y[a] = 0.0;
  }
  for (index_t first = 0; first < d; first += chunk_columns) {
    const index_t width = d - first < chunk_columns ? d - first : chunk_columns;
    for (int i = 0; i < count; ++i) {
      residual_chunk(tiles[i].x, mean, first, width, r);
      project_chunk(w, l, d, first, width, r, tiles[i].y);
      weighted_norm_chunk<Diagonal>(r, noise, first, width, tiles[i].size);
    }
  }
  for (int i = 0; i < count; ++i) {
    Lanes<Real>& tile = tiles[i];
    bool exact[tile_rows], all_exact = true;
    for (int t = 0; t < tile_rows; ++t) {
      exact[t] = mahalanobis<Real>(tile.size[t], tile.y + t * l, l, &tile.maha[t]);
      all_exact = all_exact && exact[t];
    }
    if (all_exact) continue;
    double norm[tile_rows] = {};
    for (index_t first = 0; first < d; first += chunk_columns) {
      const index_t width = d - first < chunk_columns ? d - first : chunk_columns;
      residual_chunk(tile.x, mean, first, width, r);
      back_chunk(w, l, d, first, width, tile.y, g);
      residual_norm_chunk<Diagonal>(r, g, noise, first, width, norm);
    }
    for (int t = 0; t < tile_rows; ++t) {
      if (!exact[t]) tile.maha[t] = norm[t] + latent_norm(latent_map, tile.y + t * l, l);
    }
  }
}

// out[t] [width] += weight[t] * grad log N(x[t]) over one chunk; `rows` of the T lanes are real.
template <class Real, bool Diagonal>
MFAKIT_HD void gradient_body(const Real* const* x, const double* mean, const double* w, const double* noise, index_t l,
                             index_t d, const double* y, const double* weight, int rows, index_t first, index_t width,
                             Real* const* out) {
  alignas(64) double r[tile_rows * chunk_columns], g[tile_rows * chunk_columns];
  residual_chunk(x, mean, first, width, r);
  back_chunk(w, l, d, first, width, y, g);
  for (int t = 0; t < rows; ++t) {
    const double *rt = r + t * chunk_columns, *gt = g + t * chunk_columns;
    Real* o = out[t] + first;
    MFAKIT_SIMD
    for (index_t j = 0; j < width; ++j) {
      o[j] = Real(double(o[j]) + weight[t] * gradient_at(rt[j], gt[j], noise_at<Diagonal>(noise, first + j)));
    }
  }
}

template <class Real>
MFAKIT_HD void statistics_body(const Real* const* x, const double* mean, const double* weight, const double* z,
                               index_t l, index_t d, index_t first, index_t width, double* sum_x, double* sum_xz,
                               double* sum_xx) {
  alignas(64) double r[tile_rows * chunk_columns];
  residual_chunk(x, mean, first, width, r);
  accumulate_chunk(r, weight, z, l, d, width, sum_x + first, sum_xz + first, sum_xx + first);
}

// One plain function per type and noise for target_clones to clone.
#define MFAKIT_VARIANT(Real, Diagonal, Name)                                                                         \
  MFAKIT_CLONES void refine_##Name(Lanes<Real>* tiles, int count, const double* mean, const double* w,               \
                                   const double* noise, const double* latent_map, index_t l, index_t d) {            \
    refine_body<Real, Diagonal>(tiles, count, mean, w, noise, latent_map, l, d);                                     \
  }                                                                                                                  \
  MFAKIT_CLONES void gradient_##Name(const Real* const* x, const double* mean, const double* w, const double* noise, \
                                     index_t l, index_t d, const double* y, const double* weight, int rows,          \
                                     index_t first, index_t width, Real* const* out) {                               \
    gradient_body<Real, Diagonal>(x, mean, w, noise, l, d, y, weight, rows, first, width, out);                      \
  }
MFAKIT_VARIANT(float, false, isotropic)
MFAKIT_VARIANT(float, true, diagonal)
MFAKIT_VARIANT(double, false, isotropic)
MFAKIT_VARIANT(double, true, diagonal)

MFAKIT_CLONES void statistics_tile(const float* const* x, const double* mean, const double* weight, const double* z,
                                   index_t l, index_t d, index_t first, index_t width, double* sum_x, double* sum_xz,
                                   double* sum_xx) {
  statistics_body(x, mean, weight, z, l, d, first, width, sum_x, sum_xz, sum_xx);
}
MFAKIT_CLONES void statistics_tile(const double* const* x, const double* mean, const double* weight, const double* z,
                                   index_t l, index_t d, index_t first, index_t width, double* sum_x, double* sum_xz,
                                   double* sum_xx) {
  statistics_body(x, mean, weight, z, l, d, first, width, sum_x, sum_xz, sum_xx);
}

}  // namespace

template <class Real>
void refine(const Real* X, const Pairs& pairs, const Mixture& mixture, double* log_prob, double* whitened_latent,
            int n_threads) {
  const std::vector<Tile> tiles = tiles_of(pairs.components, pairs.m);
  const index_t l = mixture.l, d = mixture.d, width = tile_rows * l + 1;
  std::vector<double> scratch(size_t(n_threads) * size_t(group_tiles * width));
  double* const y_of_thread = scratch.data();
  parallel_ranges(index_t(tiles.size()), group_tiles, n_threads, [&](int thread, index_t begin, index_t end) {
    Lanes<Real> lanes[group_tiles];
    for (index_t i = begin; i < end;) {
      const index_t j = pairs.components[tiles[size_t(i)].first];
      int count = 0;
      for (; i + count < end && pairs.components[tiles[size_t(i + count)].first] == j; ++count) {
        row_pointers(X, pairs.rows, d, tiles[size_t(i + count)], lanes[count].x);
        lanes[count].y = y_of_thread + (thread * group_tiles + count) * width;
      }
      if (mixture.diagonal) {
        refine_diagonal(lanes, count, mixture.mean(j), mixture.w(j), mixture.variance(j), mixture.z(j), l, d);
      } else {
        refine_isotropic(lanes, count, mixture.mean(j), mixture.w(j), mixture.variance(j), mixture.z(j), l, d);
      }
      for (int c = 0; c < count; ++c, ++i) {
        const Tile& tile = tiles[size_t(i)];
        for (int t = 0; t < tile.rows; ++t) {
          const index_t p = tile.first + t;
          log_prob[p] = mixture.log_norm[j] - 0.5 * lanes[c].maha[t];
          for (index_t a = 0; a < l; ++a) whitened_latent[p * l + a] = lanes[c].y[t * l + a];
        }
      }
    }
  });
}

// Features that a thread takes of every tile before it goes on to the next ones: several chunks, so that memory is read
// by the page, but no more than leave every thread some.
index_t panel_columns(index_t d, int n_threads) {
  const index_t chunks = d / (chunk_columns * std::max(n_threads, 1));
  return chunk_columns * std::min<index_t>(std::max<index_t>(chunks, 1), 8);
}

// f(column, width) for the chunks of features first to last.
template <class F>
void each_chunk(index_t first, index_t last, F f) {
  for (; first < last; first += chunk_columns) f(first, std::min(chunk_columns, last - first));
}

// Threads split the features, not the pairs: two pairs may share a row, and no two threads may share a sum.
template <class Real>
void accumulate_gradient(const Real* X, const WeightedPairs& pairs, const Mixture& mixture, Real* out, int n_threads) {
  const std::vector<Tile> tiles = tiles_of(pairs.components, pairs.m);
  const index_t l = mixture.l, d = mixture.d;
  std::vector<double> scratch(size_t(n_threads) * size_t(tile_rows * l + 1));
  double* const y_of_thread = scratch.data();
  parallel_ranges(d, panel_columns(d, n_threads), n_threads, [&](int thread, index_t first, index_t last) {
    double* y = y_of_thread + thread * (tile_rows * l + 1);
    double weight[tile_rows];
    const Real* x[tile_rows];
    Real* o[tile_rows];
    for (const Tile& tile : tiles) {
      const index_t j = pairs.components[tile.first];
      row_pointers(X, pairs.rows, d, tile, x);
      for (int t = 0; t < tile_rows; ++t) {
        const index_t p = lane(tile, t);
        o[t] = out + pairs.rows[p] * d;
        weight[t] = pairs.weights[p];
        for (index_t a = 0; a < l; ++a) y[t * l + a] = pairs.latents[p * l + a];
      }
      each_chunk(first, last, [&](index_t column, index_t width) {
        if (mixture.diagonal) {
          gradient_diagonal(x, mixture.mean(j), mixture.w(j), mixture.variance(j), l, d, y, weight, tile.rows, column,
                            width, o);
        } else {
          gradient_isotropic(x, mixture.mean(j), mixture.w(j), mixture.variance(j), l, d, y, weight, tile.rows, column,
                             width, o);
        }
      });
    }
  });
}

template <class Real>
void accumulate_statistics(const Real* X, const WeightedPairs& pairs, const double* means, const Sums& sums,
                           int n_threads) {
  const std::vector<Tile> tiles = tiles_of(pairs.components, pairs.m);
  const index_t l = sums.l, d = sums.d;
  std::vector<double> scratch(size_t(n_threads) * size_t(tile_rows * l + 1));
  double* const z_of_thread = scratch.data();
  parallel_ranges(d, panel_columns(d, n_threads), n_threads, [&](int thread, index_t first, index_t last) {
    double* z = z_of_thread + thread * (tile_rows * l + 1);
    double weight[tile_rows];
    const Real* x[tile_rows];
    for (const Tile& tile : tiles) {
      const index_t j = pairs.components[tile.first];
      row_pointers(X, pairs.rows, d, tile, x);
      for (int t = 0; t < tile_rows; ++t) {
        const index_t p = lane(tile, t);
        weight[t] = t < tile.rows ? pairs.weights[p] : 0.0;
        for (index_t a = 0; a < l; ++a) z[t * l + a] = pairs.latents[p * l + a];
      }
      each_chunk(first, last, [&](index_t column, index_t width) {
        statistics_tile(x, means + j * d, weight, z, l, d, column, width, sums.x + j * d, sums.xz + j * l * d,
                        sums.xx + j * d);
      });
    }
  });
}

#define MFAKIT_INSTANTIATE(Real)                                                                    \
  template void refine(const Real*, const Pairs&, const Mixture&, double*, double*, int);           \
  template void accumulate_gradient(const Real*, const WeightedPairs&, const Mixture&, Real*, int); \
  template void accumulate_statistics(const Real*, const WeightedPairs&, const double*, const Sums&, int);
MFAKIT_INSTANTIATE(float)
MFAKIT_INSTANTIATE(double)

}  // namespace mfakit
