// Reads the arrays and the named tuples that Python passes. Shapes are checked here and nothing is ever converted: a
// wrong dtype or layout is a TypeError, since a silent copy of an output would lose it.
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

// The fields of a named tuple in their order; the tuple must outlive what is
// read.
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
  py::tuple tuple(const char* name) {
    const py::handle value = next();
    if (!py::isinstance<py::tuple>(value)) throw py::type_error(std::string(name) + " must be a tuple");
    return py::reinterpret_borrow<py::tuple>(value);
  }
  index_t integer() { return py::cast<std::int64_t>(next()); }

 private:
  py::handle next() { return PyTuple_GET_ITEM(operand_.ptr(), at_++); }

  const py::tuple& operand_;
  py::ssize_t at_ = 0;
};

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

inline int threads(int n) { return n < 1 ? 1 : n; }

}  // namespace mfakit::python
