// Certified brackets, a sample at a time, and their binding; python/mfakit/backends/certify.py says what they are and
// what the structs contain.
#include "mfakit/certify.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "kernels.hpp"
#include "operands.hpp"
#include "parallel.hpp"

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

MFAKIT_CLONES Certificate certify_one(const Coordinates& q, const PairQuadrics& pairs, const Sample& x,
                                      NearestFlip& nearest, CertifyScratch& scratch) {
  return certify(q, pairs, x, nearest, scratch);
}

void certify_rows(const Coordinates& q, const PairQuadrics& pairs, const Samples& samples, const Certificates& found,
                  int n_threads) {
  const index_t size = q.size(), per_thread = CertifyScratch().lay_out(q, nullptr);
  const std::unique_ptr<double[]> memory(new double[size_t(n_threads) * size_t(per_thread)]());
  std::vector<CertifyScratch> scratch(static_cast<size_t>(n_threads));
  for (int i = 0; i < n_threads; ++i) scratch[size_t(i)].lay_out(q, memory.get() + i * per_thread);
  parallel_ranges(samples.n, 1, n_threads, [&](int thread, index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i) {
      const Sample x{samples.a + i * size, samples.sq[i], samples.y[i]};
      NearestFlip nearest{0.0, 0.0, found.w + i * size};
      const Certificate c = certify_one(q, pairs, x, nearest, scratch[size_t(thread)]);
      found.alpha[i] = nearest.alpha;
      found.bracket[2 * i] = c.lower;
      found.bracket[2 * i + 1] = c.upper;
      const index_t report[] = {c.source, c.target, c.rival, c.n_pairs, c.n_duals};
      std::copy(report, report + 5, found.reports + 5 * i);
    }
  });
}

}  // namespace

namespace python {
namespace {

// [K, K]: the row of each two components of different classes, among `rows`; what it has within a class is not read.
const index_t* read_pair_rows(const Indices& rows_of, const Coordinates& q, index_t rows) {
  const index_t K = q.n_components;
  check(rows_of, {K, K}, "rows");
  const auto* values = reinterpret_cast<const index_t*>(rows_of.data());
  for (index_t c = 0, i = 0; i < K; ++i) {
    while (i >= q.first[c + 1]) ++c;
    for (index_t j = 0; j < K; ++j) {
      const bool same = j >= q.first[c] && j < q.first[c + 1];
      const index_t row = values[i * K + j];
      if (!same && (row < 0 || row >= rows)) throw std::invalid_argument("rows is out of range");
    }
  }
  return values;
}

PairQuadrics read_pair_quadrics(const py::tuple& operand, const Coordinates& q) {
  Fields fields(operand, 8, "pairs");
  const auto rows_of = fields.array<std::int64_t>("rows"), rank = fields.array<std::int64_t>("rank");
  const index_t rows = dim(rank, 0), width = 2 * q.l, K = q.n_components;
  const double* values = in(fields.doubles("values"), {rows, width}, "values");
  const double* vectors = in(fields.doubles("vectors"), {rows, width, width}, "vectors");
  const double units = fields.number();
  const double *tilt = in(fields.doubles("tilt"), {K}, "tilt"), *size = in(fields.doubles("size"), {K}, "size");
  return {read_pair_rows(rows_of, q, rows),
          in(rank, rows, width + 1, "rank"),
          values,
          vectors,
          fields.integer(),
          {units, tilt, size}};
}

Samples read_samples(const py::tuple& operand, const Coordinates& q) {
  Fields fields(operand, 3, "samples");
  const auto a = fields.doubles("a"), sq = fields.doubles("sq");
  const auto y = fields.array<std::int64_t>("y");
  const index_t n = dim(a, 0);
  return {in(a, {n, q.size()}, "a"), in(sq, {n}, "sq"), in(y, n, q.n_classes, "y"), n};
}

Certificates read_certificates(const py::tuple& operand, const Coordinates& q, index_t n) {
  Fields fields(operand, 4, "found");
  auto alpha = fields.doubles("alpha"), w = fields.doubles("w"), bracket = fields.doubles("bracket");
  auto reports = fields.array<std::int64_t>("reports");
  return {out(alpha, {n}, "alpha"), out(w, {n, q.size()}, "w"), out(bracket, {n, 2}, "bracket"),
          reinterpret_cast<index_t*>(out(reports, {n, 5}, "reports"))};
}

void certify(const py::tuple& coordinates, const py::tuple& pairs, const py::tuple& samples, const py::tuple& found,
             int n_threads) {
  const Coordinates q = read_coordinates(coordinates);
  const PairQuadrics quadrics = read_pair_quadrics(pairs, q);
  const Samples x = read_samples(samples, q);
  const Certificates result = read_certificates(found, q, x.n);
  py::gil_scoped_release release;
  certify_rows(q, quadrics, x, result, threads(n_threads));
}

}  // namespace

void define_certify(py::module_& m) { m.def("certify", &certify); }

}  // namespace python
}  // namespace mfakit
