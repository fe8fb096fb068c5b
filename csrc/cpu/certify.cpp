// Certified brackets, a sample at a time; what the operation computes is said in python/mfakit/backends/certify.py.
#include "mfakit/certify.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "arena.hpp"
#include "arrays.hpp"
#include "certificates.hpp"
#include "parallel.hpp"

namespace py = pybind11;

namespace mfakit {
namespace {

struct Samples {
  const double* a;   // [n, C]
  const double* sq;  // [n]
  const index_t* y;  // [n]
  index_t n;
};

struct Certificates {
  double* alpha;     // [n]
  double* w;         // [n, C]
  double* bracket;   // [n, 2] lower and upper
  index_t* reports;  // [n, 5] source, target, rival, n_pairs, n_duals
};

MFAKIT_CLONES Certificate certify_one(const Coordinates& q, const PairTable& table, const Sample& x,
                                      NearestFlip& nearest, CertifyScratch& scratch) {
  return certify(q, table, x, nearest, scratch);
}

void certify_rows(const Coordinates& q, const PairTable& table, const Samples& samples, const Certificates& found,
                  int n_threads) {
  std::vector<Arena> arenas{std::size_t(n_threads)};
  std::vector<CertifyScratch> scratch;
  for (Arena& arena : arenas) scratch.push_back(make_certify_scratch(arena, q));
  const index_t size = q.size();
  parallel_ranges(samples.n, 1, n_threads, [&](int thread, index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i) {
      const Sample x{samples.a + i * size, samples.sq[i], samples.y[i]};
      NearestFlip nearest{0.0, 0.0, found.w + i * size};
      const Certificate c = certify_one(q, table, x, nearest, scratch[std::size_t(thread)]);
      found.alpha[i] = nearest.alpha;
      found.bracket[2 * i] = c.lower;
      found.bracket[2 * i + 1] = c.upper;
      const index_t report[] = {c.source, c.target, c.rival, c.n_pairs, c.n_duals};
      std::copy(report, report + 5, found.reports + 5 * i);
    }
  });
}

// Every pair of components of different classes must have a row in the table of `pairs` rows.
const index_t* pair_index(Struct& table, const Coordinates& q, index_t pairs) {
  const Indices index = table.indices("index");
  check(index, {q.n_components, q.n_components}, "index");
  const auto* rows = reinterpret_cast<const index_t*>(index.data());
  for (index_t c = 0, i = 0; i < q.n_components; ++i) {
    while (i >= q.first[c + 1]) ++c;
    for (index_t j = 0; j < q.n_components; ++j) {
      const bool same = j >= q.first[c] && j < q.first[c + 1];
      const index_t row = rows[i * q.n_components + j];
      if (!same && (row < 0 || row >= pairs)) throw std::invalid_argument("index is out of range");
    }
  }
  return rows;
}

PairTable pair_table(Struct& table, Struct& coordinates, const Coordinates& q) {
  const Indices rank = table.indices("rank");
  const index_t pairs = dim(rank, 0), width = 2 * q.l, K = q.n_components;
  return {pair_index(table, q, pairs),
          in(rank, pairs, width + 1, "rank"),
          table.in("values", {pairs, width}),
          table.in("vectors", {pairs, width, width}),
          dim(coordinates.doubles("columns"), 1),
          {table.number("units"), coordinates.in("tilt", {K}), coordinates.in("size", {K})}};
}

void bind_certify(const py::object& coordinates_struct, const py::object& pairs_struct,
                  const py::object& samples_struct, const py::object& found_struct, int n_threads) {
  Struct coordinates_in(coordinates_struct), pairs(pairs_struct), samples(samples_struct), found(found_struct);
  const Coordinates q = coordinates(coordinates_in);
  const PairTable table = pair_table(pairs, coordinates_in, q);
  const index_t n = dim(samples.doubles("a"), 0);
  const Samples x{samples.in("a", {n, q.size()}), samples.in("sq", {n}), in(samples.indices("y"), n, q.n_classes, "y"),
                  n};
  Indices reports = found.indices("reports");
  const Certificates result{found.out("alpha", {n}), found.out("w", {n, q.size()}), found.out("bracket", {n, 2}),
                            reinterpret_cast<index_t*>(out(reports, {n, 5}, "reports"))};
  py::gil_scoped_release release;
  certify_rows(q, table, x, result, threads(n_threads));
}

}  // namespace

void define_certify(py::module_& m) { m.def("certify", &bind_certify); }

}  // namespace mfakit
