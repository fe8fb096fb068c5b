// Distances between subspaces out of the inner products of their bases.
#include "mfakit/subspace.hpp"

#include <algorithm>
#include <vector>

#include "kernels.hpp"
#include "lanes.hpp"
#include "parallel.hpp"

namespace mfakit {
namespace {

// Lanes of work of some pairs: their inner products, S, L, v, x and the shifts of side 1.
index_t lanes_of_work(index_t l0, index_t l1) { return (l0 + 1) * (l1 + 1) + 2 * l1 * l1 + 3 * l1; }

// Side 1's pairs from j on, as many as there are lanes, of which the last ones may be the last pair again.
MFAKIT_HD void read_lanes(const double* C, index_t ld, index_t l0, const Subspaces& side1, index_t j, Lanes* products,
                          Lanes* shift, Lanes* norm) {
  const index_t l1 = side1.l, columns = l1 + 1;
  index_t at[n_lanes];
  for (index_t w = 0; w < n_lanes; ++w) at[w] = std::min(j + w, side1.k - 1);
  for (index_t a = 0; a <= l0; ++a)
    for (index_t b = 0; b <= l1; ++b)
      for (index_t w = 0; w < n_lanes; ++w) products[a * columns + b].v[w] = C[a * ld + at[w] * columns + b];
  for (index_t b = 0; b < l1; ++b)
    for (index_t w = 0; w < n_lanes; ++w) shift[b].v[w] = side1.shift[at[w] * l1 + b];
  for (index_t w = 0; w < n_lanes; ++w) norm->v[w] = side1.norm[at[w]];
}

// The pairs of component i of side 0. In lanes, but for those that have a sine that may be near zero.
MFAKIT_CLONES void pairs_of_row(const double* C, const Subspaces& side0, const Subspaces& side1, index_t i, Lanes* work,
                                double* sq_distances, unsigned char* suspect) {
  const index_t l0 = side0.l, l1 = side1.l, ld = side1.k * (l1 + 1);
  const double *shift0 = side0.shift + i * l0, norm0 = side0.norm[i];
  Lanes *products = work, *S = products + (l0 + 1) * (l1 + 1), *L = S + l1 * l1, *v = L + l1 * l1, *x = v + l1,
        *shift1 = x + l1;
  for (index_t j = 0; j < side1.k; j += n_lanes) {
    Lanes norm1;
    read_lanes(C, ld, l0, side1, j, products, shift1, &norm1);
    const Lanes size = norm0 + norm1;
    Lanes sq = reduce_pair(products, l1 + 1, l0, l1, shift0, shift1, size, S, v);
    LaneMask ok = size < infinity_();
    sq -= quadratic_by_cholesky(S, v, l1, least_sq_sine, L, x, &ok);
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

}  // namespace

void pair_distances(const double* products, const Subspaces& side0, const Subspaces& side1, double* sq_distances,
                    unsigned char* suspect, int n_threads) {
  const index_t rows = (side0.l + 1) * side1.k * (side1.l + 1);
  const size_t size = size_t(lanes_of_work(side0.l, side1.l));
  std::vector<Lanes> scratch(size_t(n_threads) * size);
  Lanes* const work_of_thread = scratch.data();
  parallel_ranges(side0.k, 1, n_threads, [&](int thread, index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i) {
      pairs_of_row(products + i * rows, side0, side1, i, work_of_thread + size_t(thread) * size,
                   sq_distances + i * side1.k, suspect + i * side1.k);
    }
  });
}

}  // namespace mfakit
