// Distances between subspaces out of the inner products of their bases.
#include "mfakit/subspace.hpp"

#include <algorithm>
#include <vector>

#include "kernels.hpp"
#include "lanes.hpp"
#include "parallel.hpp"

namespace mfakit {
namespace {

// Some pairs, one in each lane: their inner products, what side 1 has of them, and work.
struct PairLanes {
  Lanes *products, *S, *L, *v, *y, *x, *shift1;
  Lanes norm1 = 0.0;

  MFAKIT_HD PairLanes(Lanes* work, index_t l0, index_t l1) {
    products = work, S = products + (l0 + 1) * (l1 + 1), L = S + l1 * l1, v = L + l1 * l1, y = v + l1, x = y + l1,
    shift1 = x + l1;
  }
  static index_t size(index_t l0, index_t l1) { return (l0 + 1) * (l1 + 1) + 2 * l1 * l1 + 4 * l1; }
};

// Side 1's pairs from j on, as many as there are lanes, of which the last ones may be the last pair again.
template <class Real>
MFAKIT_HD void read_lanes(const Real* C, index_t ld, index_t l0, const Subspaces& side1, index_t j, PairLanes* q) {
  const index_t l1 = side1.l, columns = l1 + 1;
  index_t at[n_lanes];
  for (index_t w = 0; w < n_lanes; ++w) at[w] = std::min(j + w, side1.k - 1);
  for (index_t a = 0; a <= l0; ++a)
    for (index_t b = 0; b <= l1; ++b)
      for (index_t w = 0; w < n_lanes; ++w) q->products[a * columns + b].v[w] = double(C[a * ld + at[w] * columns + b]);
  for (index_t b = 0; b < l1; ++b)
    for (index_t w = 0; w < n_lanes; ++w) q->shift1[b].v[w] = side1.shift[at[w] * l1 + b];
  for (index_t w = 0; w < n_lanes; ++w) q->norm1.v[w] = side1.norm[at[w]];
}

// The pairs of component i of side 0. In lanes, but for those that have a sine that may be near zero.
MFAKIT_CLONES void pairs_of_row(const double* C, const Subspaces& side0, const Subspaces& side1, index_t i, Lanes* work,
                                double* sq_distances, unsigned char* suspect) {
  const index_t l0 = side0.l, l1 = side1.l, ld = side1.k * (l1 + 1);
  const double *shift0 = side0.shift + i * l0, norm0 = side0.norm[i];
  PairLanes q(work, l0, l1);
  for (index_t j = 0; j < side1.k; j += n_lanes) {
    read_lanes(C, ld, l0, side1, j, &q);
    const Lanes size = norm0 + q.norm1;
    Lanes sq = reduce_pair(q.products, l1 + 1, l0, l1, shift0, q.shift1, size, q.S, q.v);
    LaneMask ok = size < infinity_();
    sq -= quadratic_by_cholesky(q.S, q.v, l1, least_sq_sine, q.L, q.y, q.x, &ok);
    for (index_t w = 0; w < std::min(n_lanes, side1.k - j); ++w) {
      const index_t at = j + w;
      sq_distances[at] = not_negative(sq.v[w]);
      suspect[at] = mark_of_pair(sq_distances[at], size.v[w], false);
      if (ok.v[w]) continue;
      sq_distances[at] = sq_distance_of_pair(C + at * (l1 + 1), ld, l0, l1, shift0, norm0, side1.shift + at * l1,
                                             side1.norm[at], reinterpret_cast<double*>(work), suspect + at);
    }
  }
}

template <class Real>
MFAKIT_HD void bracket_body(const Real* C, const Subspaces& side0, const Subspaces& side1, index_t i, double slack,
                            double rounding, Lanes* work, double* lower, double* upper) {
  const index_t l0 = side0.l, l1 = side1.l, ld = side1.k * (l1 + 1);
  const double *shift0 = side0.shift + i * l0, norm0 = side0.norm[i];
  PairLanes q(work, l0, l1);
  for (index_t j = 0; j < side1.k; j += n_lanes) {
    read_lanes(C, ld, l0, side1, j, &q);
    const Lanes size = norm0 + q.norm1;
    Lanes sq = reduce_pair(q.products, l1 + 1, l0, l1, shift0, q.shift1, size, q.S, q.v);
    LaneMask ok = size < infinity_();
    sq -= quadratic_by_cholesky(q.S, q.v, l1, least_rough_sq_sine, q.L, q.y, q.x, &ok);
    const Lanes error =
        rough_error(q.products, l1 + 1, l0, l1, shift0, norm0, q.norm1, slack, q.L, q.y) + rounding * size;
    for (index_t w = 0; w < std::min(n_lanes, side1.k - j); ++w) {
      lower[j + w] = ok.v[w] ? not_negative(sq.v[w] - error.v[w]) : 0.0;
      upper[j + w] = ok.v[w] ? not_negative(sq.v[w] + error.v[w]) : infinity_();
    }
  }
}

// One plain function per type for target_clones to clone.
MFAKIT_CLONES void brackets_of_row(const float* C, const Subspaces& side0, const Subspaces& side1, index_t i,
                                   double slack, double rounding, Lanes* work, double* lower, double* upper) {
  bracket_body(C, side0, side1, i, slack, rounding, work, lower, upper);
}
MFAKIT_CLONES void brackets_of_row(const double* C, const Subspaces& side0, const Subspaces& side1, index_t i,
                                   double slack, double rounding, Lanes* work, double* lower, double* upper) {
  bracket_body(C, side0, side1, i, slack, rounding, work, lower, upper);
}

// f(component of side 0, work of its thread) for all of them.
template <class F>
void each_row(const Subspaces& side0, const Subspaces& side1, int n_threads, F f) {
  const size_t size = size_t(PairLanes::size(side0.l, side1.l));
  std::vector<Lanes> scratch(size_t(n_threads) * size);
  Lanes* const work = scratch.data();
  parallel_ranges(side0.k, 1, n_threads, [=](int thread, index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i) f(i, work + size_t(thread) * size);
  });
}

}  // namespace

void pair_distances(const double* products, const Subspaces& side0, const Subspaces& side1, double* sq_distances,
                    unsigned char* suspect, int n_threads) {
  const index_t rows = (side0.l + 1) * side1.k * (side1.l + 1), k1 = side1.k;
  each_row(side0, side1, n_threads, [&](index_t i, Lanes* work) {
    pairs_of_row(products + i * rows, side0, side1, i, work, sq_distances + i * k1, suspect + i * k1);
  });
}

template <class Real>
void bracket_pairs(const Real* products, const Subspaces& side0, const Subspaces& side1, double slack, double rounding,
                   double* lower, double* upper, int n_threads) {
  const index_t rows = (side0.l + 1) * side1.k * (side1.l + 1), k1 = side1.k;
  each_row(side0, side1, n_threads, [&](index_t i, Lanes* work) {
    brackets_of_row(products + i * rows, side0, side1, i, slack, rounding, work, lower + i * k1, upper + i * k1);
  });
}

template void bracket_pairs(const float*, const Subspaces&, const Subspaces&, double, double, double*, double*, int);
template void bracket_pairs(const double*, const Subspaces&, const Subspaces&, double, double, double*, double*, int);

}  // namespace mfakit
