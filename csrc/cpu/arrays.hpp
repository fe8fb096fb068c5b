// How the bindings read what Python passes: shapes are checked, nothing is converted. A wrong dtype or layout is a
// TypeError, since a silent copy of an output would lose it.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "mfakit/coordinates.hpp"

namespace mfakit {

template <class T>
using Array = pybind11::array_t<T, pybind11::array::c_style>;
using Doubles = Array<double>;
using Bytes = Array<std::uint8_t>;
using Indices = Array<std::int64_t>;
static_assert(sizeof(std::int64_t) == sizeof(index_t));

template <class T>
void check(const Array<T>& a, std::initializer_list<index_t> shape, const char* name) {
  bool same = a.ndim() == pybind11::ssize_t(shape.size());
  pybind11::ssize_t axis = 0;
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

inline int threads(int n) { return n < 1 ? 1 : n; }

// A struct of Python: any object that has the arrays as attributes. Keeps alive what was read of it.
class Struct {
 public:
  explicit Struct(pybind11::object object) : object_(std::move(object)) {}

  template <class T>
  Array<T> array(const char* name) {
    const pybind11::object value = object_.attr(name);
    if (!pybind11::isinstance<Array<T>>(value)) {
      const char* type = std::is_same_v<T, double> ? "float64" : "int64";
      throw pybind11::type_error(std::string(name) + " must be a C-contiguous array of " + type);
    }
    kept_.push_back(value);
    return pybind11::reinterpret_borrow<Array<T>>(value);
  }
  Doubles doubles(const char* name) { return array<double>(name); }
  Indices indices(const char* name) { return array<std::int64_t>(name); }
  double number(const char* name) { return object_.attr(name).cast<double>(); }

  const double* in(const char* name, std::initializer_list<index_t> shape) {
    return mfakit::in(doubles(name), shape, name);
  }
  double* out(const char* name, std::initializer_list<index_t> shape) {
    Doubles a = doubles(name);
    return mfakit::out(a, shape, name);
  }

 private:
  pybind11::object object_;
  std::vector<pybind11::object> kept_;
};

// The factor coordinates of a classifier (python/mfakit/attacks/coordinates.py).
inline Coordinates coordinates(const Doubles& gram, const Doubles& variance, const Doubles& gain, const Doubles& spread,
                               const Doubles& log_const, const Indices& first) {
  const index_t k = dim(gain, 0), l = dim(gain, 1), size = k * (l + 1), n_classes = dim(first, 0) - 1;
  const index_t* edges = in(first, n_classes + 1, k + 1, "first");
  for (index_t c = 0; c < n_classes; ++c) {
    if (edges[c] >= edges[c + 1]) throw std::invalid_argument("a class has no components");
  }
  if (n_classes < 2 || edges[0] != 0 || edges[n_classes] != k) throw std::invalid_argument("first is not 0 .. K");
  return {in(gram, {size, size}, "gram"),
          in(variance, {k}, "variance"),
          gain.data(),
          in(spread, {k, l}, "spread"),
          in(log_const, {k}, "log_const"),
          edges,
          k,
          l,
          n_classes};
}

inline Coordinates coordinates(Struct& q) {
  return coordinates(q.doubles("gram"), q.doubles("variance"), q.doubles("gain"), q.doubles("spread"),
                     q.doubles("log_const"), q.indices("first"));
}

}  // namespace mfakit
