// Reads what Python passes: arrays, and the structs of mfakit/operands.hpp out of the named tuples of operands.py.
// Shapes are checked here and nothing is ever converted: a wrong dtype or layout is a TypeError, since a silent copy of
// an output would lose it.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "mfakit/operands.hpp"

namespace mfakit::python {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;
using Doubles = Array<double>;
using Bytes = Array<std::uint8_t>;
using Indices = Array<std::int64_t>;
static_assert(sizeof(std::int64_t) == sizeof(index_t));

template <class T>
void check(const Array<T>& a, std::initializer_list<index_t> shape, const char* name) {
  bool same = a.ndim() == py::ssize_t(shape.size());
  py::ssize_t axis = 0;
  for (index_t s : shape) same = same && a.shape(axis++) == s;
  if (same) return;
  std::string text = std::string(name) + " must have shape [";
  for (index_t s : shape) text += std::to_string(s) + " ";
  throw std::invalid_argument(text + "]");
}

template <class T>
const T* in(const Array<T>& a, std::initializer_list<index_t> shape, const char* name) {
  check(a, shape, name);
  return a.data();
}
inline const index_t* in(const Indices& a, index_t m, index_t limit, const char* name) {
  check(a, {m}, name);
  const auto* values = reinterpret_cast<const index_t*>(a.data());
  for (index_t p = 0; p < m; ++p) {
    if (values[p] < 0 || values[p] >= limit) throw std::invalid_argument(std::string(name) + " is out of range");
  }
  return values;
}
template <class T>
T* out(Array<T>& a, std::initializer_list<index_t> shape, const char* name) {
  check(a, shape, name);
  return a.mutable_data();  // raises for a read-only array
}
template <class T>
index_t dim(const Array<T>& a, int axis) {
  if (a.ndim() <= axis) throw std::invalid_argument("an array has too few dimensions");
  return a.shape(axis);
}

// The fields of a named tuple in their order; the tuple must outlive what is read.
class Fields {
 public:
  Fields(const py::tuple& operand, size_t count, const char* name) : operand_(operand) {
    if (operand.size() != count) {
      throw py::type_error(std::string(name) + " must have " + std::to_string(count) + " fields, see operands.py");
    }
  }
  template <class T>
  Array<T> array(const char* name) {
    const py::handle value = next();
    if (!Array<T>::check_(value)) {
      throw py::type_error(std::string(name) + " must be a C-contiguous array of " +
                           std::string(py::str(py::dtype::of<T>())) + ", got " +
                           std::string(py::str(py::type::of(value))));
    }
    return py::reinterpret_borrow<Array<T>>(value);
  }
  Doubles doubles(const char* name) { return array<double>(name); }
  double number() { return py::cast<double>(next()); }
  index_t integer() { return py::cast<std::int64_t>(next()); }

 private:
  py::handle next() { return PyTuple_GET_ITEM(operand_.ptr(), at_++); }

  const py::tuple& operand_;
  py::ssize_t at_ = 0;
};

inline Pairs read_pairs(const py::tuple& operand, index_t n, index_t k) {
  Fields fields(operand, 2, "pairs");
  const auto rows = fields.array<std::int64_t>("rows"), components = fields.array<std::int64_t>("components");
  const index_t m = dim(rows, 0);
  return {in(rows, m, n, "rows"), in(components, m, k, "components"), m};
}

inline WeightedPairs read_weighted_pairs(const py::tuple& operand, index_t n, index_t k) {
  Fields fields(operand, 4, "pairs");
  const auto rows = fields.array<std::int64_t>("rows"), components = fields.array<std::int64_t>("components");
  const auto weights = fields.doubles("weights"), latents = fields.doubles("latents");
  const index_t m = dim(rows, 0), l = dim(latents, 1);
  return {in(rows, m, n, "rows"),
          in(components, m, k, "components"),
          in(weights, {m}, "weights"),
          in(latents, {m, l}, "latents"),
          m,
          l};
}

inline Mixture read_mixture(const py::tuple& operand) {
  Fields fields(operand, 9, "mixture");
  const auto means = fields.doubles("means"), whitened = fields.doubles("whitened");
  const index_t k = dim(whitened, 0), l = dim(whitened, 1), d = dim(whitened, 2);
  const auto latent_map = fields.doubles("latent_map"), noise = fields.doubles("noise");
  const bool diagonal = dim(noise, 1) != 1;
  return {in(means, {k, d}, "means"),
          whitened.data(),
          in(latent_map, {k, l, l}, "latent_map"),
          in(noise, {k, diagonal ? d : 1}, "noise"),
          in(fields.doubles("precision"), {k, diagonal ? d : 1}, "precision"),
          in(fields.doubles("log_norm"), {k}, "log_norm"),
          in(fields.doubles("inv_noise"), {k}, "inv_noise"),
          in(fields.doubles("shift"), {k, l}, "shift"),
          in(fields.doubles("mean_norm"), {k}, "mean_norm"),
          k,
          l,
          d,
          diagonal};
}

template <class Real>
Coarse<Real> read_coarse(const py::tuple& operand, const Mixture& mixture) {
  Fields fields(operand, 4, "coarse");
  const auto products = fields.array<Real>("products"), quad = fields.array<Real>("quad");
  const index_t n = dim(products, 0), width = mixture.k * (mixture.l + 1);
  const bool diagonal = dim(quad, 1) != 0;
  const Real* squares = in(quad, {n, diagonal ? mixture.k : 0}, "quad");
  const auto sq_norms = fields.doubles("sq_norms");
  return {in(products, {n, width}, "products"),
          diagonal ? squares : nullptr,
          in(sq_norms, {n}, "sq_norms"),
          fields.number(),
          n,
          width};
}

// An array whose type the operands decide.
template <class Real>
Array<Real> real_array(const py::array& a, const char* name) {
  if (!Array<Real>::check_(a)) {
    throw py::type_error(std::string(name) + " must be a C-contiguous array of " +
                         std::string(py::str(py::dtype::of<Real>())));
  }
  return py::reinterpret_borrow<Array<Real>>(a);
}

// f(0.0f) or f(0.0), as the products of a coarse step are float32 or float64.
template <class F>
void with_real(const py::tuple& coarse, F f) {
  if (coarse.size() && Array<float>::check_(coarse[0])) return f(0.0f);
  f(0.0);
}

template <class Real>
Projected<Real> read_projected(const py::tuple& operand, index_t r, index_t groups) {
  Fields fields(operand, 4, "projected");
  const auto coordinates = fields.array<Real>("coordinates");
  const index_t n = dim(coordinates, 0), stride = dim(coordinates, 1);
  if (stride < r) throw std::invalid_argument("projected.coordinates has fewer columns than the projection");
  const auto nearest = fields.array<Real>("nearest"), farthest = fields.array<Real>("farthest");
  return {coordinates.data(),
          in(nearest, {n, groups}, "nearest"),
          in(farthest, {n, groups}, "farthest"),
          in(fields.array<Real>("errors"), {n}, "errors"),
          n,
          stride,
          groups};
}

template <class Real>
Projection<Real> read_projection(const py::tuple& operand) {
  Fields fields(operand, 11, "projection");
  const auto means = fields.array<Real>("means"), scales = fields.array<Real>("scales");
  const auto whitened = fields.array<Real>("whitened"), rest_means = fields.array<Real>("rest_means");
  const index_t k = dim(whitened, 0), l = dim(whitened, 1), r = dim(whitened, 2), groups = dim(rest_means, 1);
  return {in(means, {k, r}, "means"),
          in(scales, {k, r}, "scales"),
          whitened.data(),
          in(rest_means, {k, groups}, "rest_means"),
          in(fields.array<Real>("rest_loadings"), {k, groups}, "rest_loadings"),
          in(fields.array<Real>("rest_scales"), {k, groups}, "rest_scales"),
          in(fields.array<Real>("latent_scale"), {k}, "latent_scale"),
          in(fields.array<Real>("stretch"), {k}, "stretch"),
          in(fields.array<Real>("steepness"), {k}, "steepness"),
          in(fields.array<Real>("offsets"), {k}, "offsets"),
          in(fields.array<Real>("log_norm"), {k}, "log_norm"),
          k,
          l,
          r,
          groups};
}

inline Subspaces read_subspaces(const py::tuple& operand) {
  Fields fields(operand, 2, "side");
  const auto shift = fields.doubles("shift"), norm = fields.doubles("norm");
  const index_t k = dim(shift, 0), l = dim(shift, 1);
  return {shift.data(), in(norm, {k}, "norm"), k, l};
}

inline Sums read_sums(const py::tuple& operand) {
  Fields fields(operand, 3, "sums");
  auto x = fields.doubles("x"), xz = fields.doubles("xz"), xx = fields.doubles("xx");
  const index_t k = dim(xz, 0), l = dim(xz, 1), d = dim(xz, 2);
  return {out(x, {k, d}, "x"), out(xz, {k, l, d}, "xz"), out(xx, {k, d}, "xx"), k, l, d};
}

inline Coordinates read_coordinates(const py::tuple& operand) {
  Fields fields(operand, 7, "coordinates");
  const auto gram = fields.doubles("gram"), offset = fields.doubles("offset"), variance = fields.doubles("variance"),
             gain = fields.doubles("gain");
  const auto spread = fields.doubles("spread"), log_const = fields.doubles("log_const");
  const auto first = fields.array<std::int64_t>("first");
  const index_t k = dim(gain, 0), l = dim(gain, 1), size = k * (l + 1), n_classes = dim(first, 0) - 1;
  const index_t* edges = in(first, n_classes + 1, k + 1, "first");
  for (index_t c = 0; c < n_classes; ++c) {
    if (edges[c] >= edges[c + 1]) throw std::invalid_argument("a class has no components");
  }
  if (n_classes < 2 || edges[0] != 0 || edges[n_classes] != k) throw std::invalid_argument("first is not 0 .. K");
  return {in(gram, {size, size}, "gram"),
          in(offset, {size}, "offset"),
          in(variance, {k}, "variance"),
          gain.data(),
          in(spread, {k, l}, "spread"),
          in(log_const, {k}, "log_const"),
          edges,
          k,
          l,
          n_classes};
}

inline WalkSettings read_walk_settings(const py::tuple& operand) {
  Fields fields(operand, 4, "settings");
  const double step_size = fields.number();
  const index_t max_steps = fields.integer(), frozen = fields.integer(), bisections = fields.integer();
  return {step_size, max_steps, frozen, bisections};
}

inline Points read_points(const py::tuple& operand, index_t columns) {
  Fields fields(operand, 4, "points");
  auto a = fields.doubles("a"), w = fields.doubles("w"), alpha = fields.doubles("alpha"), sq = fields.doubles("sq");
  const index_t n = dim(sq, 0);
  return {out(a, {n, columns}, "a"), out(w, {n, columns}, "w"), out(alpha, {n}, "alpha"), out(sq, {n}, "sq"), n};
}

inline int threads(int n) { return n < 1 ? 1 : n; }

// Binds the certificates (certify.cpp), whose structs no other operation reads.
void define_certify(py::module_& m);

}  // namespace mfakit::python
