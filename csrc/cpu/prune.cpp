// Bounds of all components from the coarse projection, sixteen components at a time, and of those that survive it from
// a finer one, one by one.
#include "mfakit/prune.hpp"

#include <cstddef>
#include <vector>

#include "kernels.hpp"
#include "parallel.hpp"

namespace mfakit {
namespace {

constexpr index_t lanes = 16;       // components of a tile
constexpr index_t block_rows = 32;  // samples that meet a tile while it is in the first-level cache

// The coordinates of a projection by tiles, [tile, ..., lane], with components that cannot matter in the last one; what
// is known of a component as a whole stays as it is, but for that padding.
template <class Real>
struct Tiles {
  index_t count;
  std::vector<Real> means, scales, whitened, columns;
  Projection<Real> whole;  // of count * lanes components; its means, scales and whitened are not read

  explicit Tiles(const Projection<Real>& p)
      : count((p.k + lanes - 1) / lanes),
        means(std::size_t(count * p.r * lanes)),
        scales(std::size_t(count * p.r * lanes)),
        whitened(std::size_t(count * p.l * p.r * lanes)),
        whole(p) {
    for (index_t j = 0; j < p.k; ++j) {
      for (index_t i = 0; i < p.r; ++i) {
        at(means, j, p.r, i) = p.means[j * p.r + i];
        at(scales, j, p.r, i) = p.scales[j * p.r + i];
      }
      for (index_t i = 0; i < p.l * p.r; ++i) at(whitened, j, p.l * p.r, i) = p.whitened[j * p.l * p.r + i];
    }
    const index_t padded = count * lanes, wide = padded * p.groups;
    columns.resize(std::size_t(3 * wide + 5 * padded));
    Real* next = columns.data();
    whole.k = padded;
    whole.rest_means = pad(p.rest_means, p.k * p.groups, wide, Real(0), &next);
    whole.rest_loadings = pad(p.rest_loadings, p.k * p.groups, wide, Real(0), &next);
    whole.rest_scales = pad(p.rest_scales, p.k * p.groups, wide, Real(0), &next);
    whole.latent_scale = pad(p.latent_scale, p.k, padded, Real(0), &next);
    whole.stretch = pad(p.stretch, p.k, padded, Real(0), &next);
    whole.steepness = pad(p.steepness, p.k, padded, Real(0), &next);
    whole.offsets = pad(p.offsets, p.k, padded, Real(0), &next);
    whole.log_norm = pad(p.log_norm, p.k, padded, Real(-1e30), &next);
  }

 private:
  static Real& at(std::vector<Real>& tiles, index_t j, index_t width, index_t i) {
    return tiles[std::size_t(((j / lanes) * width + i) * lanes + j % lanes)];
  }
  static const Real* pad(const Real* from, index_t size, index_t padded, Real filling, Real** next) {
    Real* to = *next;
    for (index_t i = 0; i < padded; ++i) to[i] = i < size ? from[i] : filling;
    *next += padded;
    return to;
  }
};

// |u|^2 and |W u|^2 [lanes] of one sample and the components of a tile; u [r, lanes].
template <class Real>
inline __attribute__((always_inline)) void tile_terms(const Real* coordinates, const Tiles<Real>& tiles, index_t tile,
                                                      Real* u, Real* size, Real* explained) {
  const index_t r = tiles.whole.r, l = tiles.whole.l;
  const Real *mean = tiles.means.data() + tile * r * lanes, *scale = tiles.scales.data() + tile * r * lanes;
  for (index_t c = 0; c < lanes; ++c) size[c] = explained[c] = 0;
  for (index_t i = 0; i < r; ++i) {
    const Real y = coordinates[i];
    MFAKIT_SIMD
    for (index_t c = 0; c < lanes; ++c) {
      const Real value = (y - mean[i * lanes + c]) * scale[i * lanes + c];
      u[i * lanes + c] = value;
      size[c] += value * value;
    }
  }
  for (index_t a = 0; a < l; ++a) {
    const Real* w = tiles.whitened.data() + (tile * l + a) * r * lanes;
    Real t[lanes] = {};
    for (index_t i = 0; i < r; ++i) {
      MFAKIT_SIMD
      for (index_t c = 0; c < lanes; ++c) t[c] += w[i * lanes + c] * u[i * lanes + c];
    }
    MFAKIT_SIMD
    for (index_t c = 0; c < lanes; ++c) explained[c] += t[c] * t[c];
  }
}

template <class Real>
inline __attribute__((always_inline)) void bound_range(const Projected<Real>& x, const Tiles<Real>& tiles, index_t k,
                                                       index_t begin, index_t end, Real* u, Real* above) {
  Real size[lanes], explained[lanes], bound[lanes];
  for (index_t first = begin; first < end; first += block_rows) {
    const index_t last = std::min(end, first + block_rows);
    for (index_t tile = 0; tile < tiles.count; ++tile) {
      const index_t j = tile * lanes, width = std::min(lanes, k - j);
      for (index_t i = first; i < last; ++i) {
        tile_terms(x.coordinates + i * x.stride, tiles, tile, u, size, explained);
        if (x.groups == 1) {
          Projected<Real> one = x;
          Projection<Real> all = tiles.whole;
          one.groups = all.groups = 1;  // known to the compiler
          MFAKIT_SIMD
          for (index_t c = 0; c < lanes; ++c) bound[c] = log_prob_bound(one, i, all, j + c, size[c], explained[c]);
        } else {
          for (index_t c = 0; c < width; ++c)
            bound[c] = log_prob_bound(x, i, tiles.whole, j + c, size[c], explained[c]);
        }
        for (index_t c = 0; c < width; ++c) above[i * k + j + c] = bound[c];
      }
    }
  }
}

MFAKIT_CLONES void bound_rows(const Projected<float>& x, const Tiles<float>& tiles, index_t k, index_t begin,
                              index_t end, float* u, float* above) {
  bound_range(x, tiles, k, begin, end, u, above);
}
MFAKIT_CLONES void bound_rows(const Projected<double>& x, const Tiles<double>& tiles, index_t k, index_t begin,
                              index_t end, double* u, double* above) {
  bound_range(x, tiles, k, begin, end, u, above);
}

// Lowers above [begin:end, k] where it is at least the row's threshold, and appends what still is.
template <class Real>
inline __attribute__((always_inline)) void survive_range(const Projected<Real>& x, const Projection<Real>& p,
                                                         const double* threshold, index_t begin, index_t end, Real* u,
                                                         Real* above, std::vector<index_t>& found) {
  for (index_t i = begin; i < end; ++i) {
    Real* row = above + i * p.k;
    const double least = threshold[i];
    for (index_t j = 0; j < p.k; ++j) {
      if (double(row[j]) < least) continue;  // a NaN goes on
      if (p.r > 0) {
        Real size, explained;
        projected_terms(x.coordinates + i * x.stride, p, j, u, &size, &explained);
        const Real bound = log_prob_bound(x, i, p, j, size, explained);
        if (!(bound > row[j])) row[j] = bound;
        if (double(row[j]) < least) continue;
      }
      found.push_back(i);
      found.push_back(j);
    }
  }
}

MFAKIT_CLONES void survive_rows(const Projected<float>& x, const Projection<float>& p, const double* threshold,
                                index_t begin, index_t end, float* u, float* above, std::vector<index_t>& found) {
  survive_range(x, p, threshold, begin, end, u, above, found);
}
MFAKIT_CLONES void survive_rows(const Projected<double>& x, const Projection<double>& p, const double* threshold,
                                index_t begin, index_t end, double* u, double* above, std::vector<index_t>& found) {
  survive_range(x, p, threshold, begin, end, u, above, found);
}

}  // namespace

// The `count` largest of values [k], the largest first, of equal ones the first; a NaN is below all others.
template <class Real>
void largest(const Real* values, index_t k, index_t count, index_t* best) {
  const auto beats = [&](index_t a, index_t b) {
    return values[a] > values[b] || (values[b] != values[b] && values[a] == values[a]);
  };
  for (index_t j = 0; j < k; ++j) {
    index_t place = std::min(j, count);
    if (place == count && !beats(j, best[count - 1])) continue;
    place = std::min(place, count - 1);
    for (; place > 0 && beats(j, best[place - 1]); --place) best[place] = best[place - 1];
    best[place] = j;
  }
}

template <class Real>
void bound_components(const Projected<Real>& x, const Projection<Real>& p, Real* above, index_t* best, index_t count,
                      int n_threads) {
  const Tiles<Real> tiles(p);
  const index_t k = p.k;
  parallel_ranges(x.n, row_grain(k * (p.l + 1)), n_threads, [&](int, index_t begin, index_t end) {
    std::vector<Real> u(std::size_t(p.r * lanes));
    bound_rows(x, tiles, k, begin, end, u.data(), above);
    for (index_t i = begin; i < end; ++i) largest(above + i * k, k, count, best + i * count);
  });
}

template <class Real>
std::vector<index_t> survivors(const Projected<Real>& x, const Projection<Real>& p, const double* threshold,
                               Real* above, int n_threads) {
  const index_t grain = row_grain(p.k);
  std::vector<std::vector<index_t>> found(std::size_t((x.n + grain - 1) / grain));
  parallel_ranges(x.n, grain, n_threads, [&](int, index_t begin, index_t end) {
    std::vector<Real> u(std::size_t(p.r));
    survive_rows(x, p, threshold, begin, end, u.data(), above, found[std::size_t(begin / grain)]);
  });
  std::vector<index_t> place(std::size_t(p.k + 1), 0);  // where each component's pairs go
  index_t m = 0;
  for (const auto& part : found) {
    m += index_t(part.size()) / 2;
    for (std::size_t at = 1; at < part.size(); at += 2) ++place[std::size_t(part[at] + 1)];
  }
  for (index_t j = 0; j < p.k; ++j) place[std::size_t(j + 1)] += place[std::size_t(j)];
  std::vector<index_t> pairs(std::size_t(2 * m));
  for (const auto& part : found) {
    for (std::size_t at = 0; at < part.size(); at += 2) {
      const index_t to = place[std::size_t(part[at + 1])]++;
      pairs[std::size_t(to)] = part[at];
      pairs[std::size_t(m + to)] = part[at + 1];
    }
  }
  return pairs;
}

#define MFAKIT_INSTANTIATE(Real)                                                                                  \
  template void bound_components(const Projected<Real>&, const Projection<Real>&, Real*, index_t*, index_t, int); \
  template std::vector<index_t> survivors(const Projected<Real>&, const Projection<Real>&, const double*, Real*, int);
MFAKIT_INSTANTIATE(float)
MFAKIT_INSTANTIATE(double)

}  // namespace mfakit
