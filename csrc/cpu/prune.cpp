// Bounds of all components from the coarse projection, sixteen components at a time, and of those that survive it from
// a finer one, one by one.
#include "mfakit/prune.hpp"

#include <cstddef>
#include <cstring>
#include <vector>

#include "kernels.hpp"
#include "parallel.hpp"

namespace mfakit {
namespace {

constexpr index_t lanes = 16;           // components of a tile
constexpr index_t scan_width = 32;      // bounds that are compared with a threshold at once
constexpr index_t survivor_rows = 256;  // samples whose open components are bounded finely together
constexpr index_t block_rows = 32;      // samples that meet a tile while it is in the first-level cache

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
    columns.resize(std::size_t(5 * wide + 3 * padded));
    Real* next = columns.data();
    whole.k = padded;
    whole.rest_means = pad(p.rest_means, p.k * p.groups, wide, Real(0), &next);
    whole.rest_loadings = pad(p.rest_loadings, p.k * p.groups, wide, Real(0), &next);
    whole.rest_scales = pad(p.rest_scales, p.k * p.groups, wide, Real(0), &next);
    whole.latent_scale = pad(p.latent_scale, p.k, padded, Real(0), &next);
    whole.stretch = pad(p.stretch, p.k, padded, Real(0), &next);
    whole.steepness = pad(p.steepness, p.k * p.groups, wide, Real(0), &next);
    whole.offsets = pad(p.offsets, p.k * p.groups, wide, Real(0), &next);
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

// A number of each component of a tile, in registers. Functions of it are inlined, so that no calling convention
// matters.
#pragma GCC diagnostic ignored "-Wpsabi"
template <class Real>
struct lanes_of {
  typedef Real type __attribute__((vector_size(lanes * sizeof(Real))));
};
template <class Real>
using Lanes = typename lanes_of<Real>::type;

template <class Real>
MFAKIT_HD Lanes<Real> load(const Real* from) {
  Lanes<Real> values;
  std::memcpy(&values, from, sizeof(values));  // memory that is aligned to Real only
  return values;
}

// explained [R] += |W u|^2 over A rows of W [A, r, lanes], for R samples u [R, r, lanes]: A R sums that do not wait for
// each other.
template <int A, int R, class Real>
MFAKIT_HD void add_explained(const Real* w, const Real* u, index_t r, Lanes<Real>* explained) {
  Lanes<Real> t[R][A] = {};
  for (index_t i = 0; i < r; ++i) {
    for (int s = 0; s < R; ++s) {
      for (int a = 0; a < A; ++a) t[s][a] += load(w + (a * r + i) * lanes) * load(u + (s * r + i) * lanes);
    }
  }
  for (int s = 0; s < R; ++s) {
    for (int a = 0; a < A; ++a) explained[s] += t[s][a] * t[s][a];
  }
}

// |u|^2 and |W u|^2 [R, lanes] of R samples, the first of which has the number i, and the components of a tile; u
// [R, r, lanes].
template <int R, class Real>
MFAKIT_HD void tile_terms(const Projected<Real>& x, index_t i, const Tiles<Real>& tiles, index_t tile, Real* u,
                          Lanes<Real>* size, Lanes<Real>* explained) {
  const index_t r = tiles.whole.r, l = tiles.whole.l;
  const Real *mean = tiles.means.data() + tile * r * lanes, *scale = tiles.scales.data() + tile * r * lanes;
  for (int s = 0; s < R; ++s) {
    const Real* y = x.coordinates + (i + s) * x.stride;
    Lanes<Real> sum = {};
    for (index_t j = 0; j < r; ++j) {
      const Lanes<Real> value = (y[j] - load(mean + j * lanes)) * load(scale + j * lanes);
      std::memcpy(u + (s * r + j) * lanes, &value, sizeof(value));
      sum += value * value;
    }
    size[s] = sum;
    explained[s] = Lanes<Real>{};
  }
  const Real* w = tiles.whitened.data() + tile * l * r * lanes;
  index_t a = 0;
  for (; a + 3 <= l; a += 3) add_explained<3, R, Real>(w + a * r * lanes, u, r, explained);
  if (l - a == 2) add_explained<2, R, Real>(w + a * r * lanes, u, r, explained);
  if (l - a == 1) add_explained<1, R, Real>(w + a * r * lanes, u, r, explained);
}

// above [R, width] of R samples and the components of a tile.
template <int R, class Real>
MFAKIT_HD void bound_tile(const Projected<Real>& x, index_t i, const Tiles<Real>& tiles, index_t tile, index_t k,
                          Real* scratch, Real* above) {
  const index_t first = tile * lanes, width = std::min(lanes, k - first);
  Lanes<Real> sizes[R], explaineds[R];
  tile_terms<R>(x, i, tiles, tile, scratch, sizes, explaineds);
  for (int s = 0; s < R; ++s) {
    Real size[lanes], explained[lanes], bound[lanes];
    std::memcpy(size, &sizes[s], sizeof(size));
    std::memcpy(explained, &explaineds[s], sizeof(explained));
    if (x.groups == 1) {
      Projected<Real> one = x;
      Projection<Real> all = tiles.whole;
      one.groups = all.groups = 1;  // known to the compiler
      MFAKIT_SIMD
      for (index_t c = 0; c < lanes; ++c) bound[c] = log_prob_bound(one, i + s, all, first + c, size[c], explained[c]);
    } else {
      for (index_t c = 0; c < width; ++c) {
        bound[c] = log_prob_bound(x, i + s, tiles.whole, first + c, size[c], explained[c]);
      }
    }
    Real* out = above + (i + s) * k + first;
    for (index_t c = 0; c < width; ++c) out[c] = bound[c];
  }
}

template <class Real>
MFAKIT_HD void bound_range(const Projected<Real>& x, const Tiles<Real>& tiles, index_t k, index_t begin, index_t end,
                           Real* scratch, Real* above) {
  for (index_t first = begin; first < end; first += block_rows) {
    const index_t last = std::min(end, first + block_rows);
    for (index_t tile = 0; tile < tiles.count; ++tile) {
      index_t i = first;
      for (; i + 2 <= last; i += 2) bound_tile<2>(x, i, tiles, tile, k, scratch, above);
      if (i < last) bound_tile<1>(x, i, tiles, tile, k, scratch, above);
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

// Whether one of the values is at least `least`, or NaN.
template <class Real>
MFAKIT_HD bool any_open(const Real* values, index_t count, Real least) {
  int open = 0;
  MFAKIT_SIMD_SUM(open)
  for (index_t j = 0; j < count; ++j) open += !(values[j] < least);
  return open != 0;
}

// The sum over the lanes, as a tree.
template <class Real>
MFAKIT_HD Real total(const Lanes<Real>& values) {
  Real t[lanes];
  std::memcpy(t, &values, sizeof(t));
  for (index_t width = lanes / 2; width > 0; width /= 2) {
    MFAKIT_SIMD
    for (index_t c = 0; c < width; ++c) t[c] += t[c + width];
  }
  return t[0];
}

// |W u|^2 over A rows of W [A, r]; r is `whole` in full lanes, and what is left.
template <int A, class Real>
MFAKIT_HD Real explained_by(const Real* w, const Real* u, index_t whole, index_t r) {
  Lanes<Real> t[A] = {};
  for (index_t i = 0; i < whole; i += lanes) {
    for (int a = 0; a < A; ++a) t[a] += load(w + a * r + i) * load(u + i);
  }
  Real sum = 0;
  for (int a = 0; a < A; ++a) {
    Real y = total<Real>(t[a]);
    for (index_t i = whole; i < r; ++i) y += w[a * r + i] * u[i];
    sum += y * y;
  }
  return sum;
}

// |u|^2 and |W u|^2 of one sample and one component; u [r].
template <class Real>
MFAKIT_HD void pair_terms(const Real* y, const Projection<Real>& p, index_t j, Real* u, Real* size, Real* explained) {
  const Real *mean = p.means + j * p.r, *scale = p.scales + j * p.r, *w = p.whitened + j * p.l * p.r;
  const index_t whole = p.r / lanes * lanes;
  Lanes<Real> sum = {};
  for (index_t i = 0; i < whole; i += lanes) {
    const Lanes<Real> value = (load(y + i) - load(mean + i)) * load(scale + i);
    std::memcpy(u + i, &value, sizeof(value));
    sum += value * value;
  }
  *size = total<Real>(sum);
  for (index_t i = whole; i < p.r; ++i) {
    u[i] = (y[i] - mean[i]) * scale[i];
    *size += u[i] * u[i];
  }
  *explained = 0;
  index_t a = 0;
  for (; a + 3 <= p.l; a += 3) *explained += explained_by<3>(w + a * p.r, u, whole, p.r);
  if (p.l - a == 2) *explained += explained_by<2>(w + a * p.r, u, whole, p.r);
  if (p.l - a == 1) *explained += explained_by<1>(w + a * p.r, u, whole, p.r);
}

// What a thread lists of some rows: first the pairs that are open, by row, then the rows of each component.
struct Open {
  std::vector<index_t> pairs, place, rows;
};

// Lists which of above [begin:end, k] are at least the row's threshold; a NaN is.
template <class Real>
MFAKIT_HD void list_open(const Real* above, index_t k, const double* threshold, index_t begin, index_t end,
                         Open* open) {
  open->pairs.clear();
  open->place.assign(std::size_t(k + 1), 0);
  for (index_t i = begin; i < end; ++i) {
    const Real* row = above + i * k;
    const double least = threshold[i];
    for (index_t start = 0; start < k; start += scan_width) {
      const index_t stop = std::min(start + scan_width, k);
      if (!any_open(row + start, stop - start, Real(least))) continue;
      for (index_t j = start; j < stop; ++j) {
        if (double(row[j]) < least) continue;
        open->pairs.push_back(i);
        open->pairs.push_back(j);
        ++open->place[std::size_t(j + 1)];
      }
    }
  }
  for (index_t j = 0; j < k; ++j) open->place[std::size_t(j + 1)] += open->place[std::size_t(j)];
  open->rows.resize(open->pairs.size() / 2);
  std::vector<index_t> next(open->place);
  for (std::size_t at = 0; at < open->pairs.size(); at += 2) {
    open->rows[std::size_t(next[std::size_t(open->pairs[at + 1])]++)] = open->pairs[at];
  }
}

// Lowers above [begin:end, k] where it is at least the row's threshold, and appends what still is, by component, so
// that each component's table is read from memory once for all of these rows.
template <class Real>
MFAKIT_HD void survive_range(const Projected<Real>& x, const Projection<Real>& p, const double* threshold,
                             index_t begin, index_t end, Real* u, Real* above, Open* open,
                             std::vector<index_t>& found) {
  list_open(above, p.k, threshold, begin, end, open);
  for (index_t j = 0; j < p.k; ++j) {
    for (index_t at = open->place[std::size_t(j)]; at < open->place[std::size_t(j + 1)]; ++at) {
      const index_t i = open->rows[std::size_t(at)];
      if (p.r > 0) {
        Real size, explained, *value = above + i * p.k + j;
        pair_terms(x.coordinates + i * x.stride, p, j, u, &size, &explained);
        const Real bound = log_prob_bound(x, i, p, j, size, explained);
        if (!(bound > *value)) *value = bound;
        if (double(*value) < threshold[i]) continue;
      }
      found.push_back(i);
      found.push_back(j);
    }
  }
}

MFAKIT_CLONES void survive_rows(const Projected<float>& x, const Projection<float>& p, const double* threshold,
                                index_t begin, index_t end, float* u, float* above, Open* open,
                                std::vector<index_t>& found) {
  survive_range(x, p, threshold, begin, end, u, above, open, found);
}
MFAKIT_CLONES void survive_rows(const Projected<double>& x, const Projection<double>& p, const double* threshold,
                                index_t begin, index_t end, double* u, double* above, Open* open,
                                std::vector<index_t>& found) {
  survive_range(x, p, threshold, begin, end, u, above, open, found);
}

}  // namespace

// The `count` largest of values [k], the largest first, of equal ones the first; a NaN is below all others.
template <class Real>
void largest(const Real* values, index_t k, index_t count, index_t* best) {
  const auto beats = [&](index_t a, index_t b) {
    return values[a] > values[b] || (values[b] != values[b] && values[a] == values[a]);
  };
  for (index_t start = 0; start < k; start += scan_width) {
    const index_t stop = std::min(start + scan_width, k);
    if (start >= count && !any_open(values + start, stop - start, values[best[count - 1]])) continue;
    for (index_t j = start; j < stop; ++j) {
      index_t place = std::min(j, count);
      if (place == count && !beats(j, best[--place])) continue;
      for (; place > 0 && beats(j, best[place - 1]); --place) best[place] = best[place - 1];
      best[place] = j;
    }
  }
}

template <class Real>
void bound_components(const Projected<Real>& x, const Projection<Real>& p, Real* above, index_t* best, index_t count,
                      int n_threads) {
  const Tiles<Real> tiles(p);
  const index_t k = p.k;
  parallel_ranges(x.n, row_grain(k * (p.l + 1)), n_threads, [&](int, index_t begin, index_t end) {
    std::vector<Real> u(std::size_t(2 * p.r * lanes));
    bound_rows(x, tiles, k, begin, end, u.data(), above);
    for (index_t i = begin; i < end && count > 0; ++i) largest(above + i * k, k, count, best + i * count);
  });
}

template <class Real>
std::vector<index_t> survivors(const Projected<Real>& x, const Projection<Real>& p, const double* threshold,
                               Real* above, int n_threads) {
  const index_t grain = std::max(row_grain(p.k), survivor_rows);
  std::vector<std::vector<index_t>> found(std::size_t((x.n + grain - 1) / grain));
  parallel_ranges(x.n, grain, n_threads, [&](int, index_t begin, index_t end) {
    std::vector<Real> u(std::size_t(p.r));
    Open open;
    survive_rows(x, p, threshold, begin, end, u.data(), above, &open, found[std::size_t(begin / grain)]);
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
