// The binding of the certificates (certify.cpp).
#pragma once

#include <pybind11/pybind11.h>

namespace mfakit {

void define_certify(pybind11::module_& m);

}  // namespace mfakit
