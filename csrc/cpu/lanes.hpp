// Several pairs at once, one in each lane of a vector: arithmetic of doubles, lane by lane, for the formulas of the
// headers that are templates of their numbers. Each lane has the bits that a single double would have.
#pragma once

#include "mfakit/config.hpp"

// Everything here is inlined: no vector is passed by any ABI.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace mfakit {

constexpr index_t n_lanes = 8;

struct LaneMask {
  using Vector = long long __attribute__((vector_size(8 * n_lanes), aligned(8)));
  Vector v;
};

struct Lanes {
  using Vector = double __attribute__((vector_size(8 * n_lanes), aligned(8)));
  Vector v;
  MFAKIT_HD Lanes() {}
  MFAKIT_HD Lanes(const Vector& x) : v(x) {}
  MFAKIT_HD Lanes(double x) : v(x - Vector{}) {}
  MFAKIT_HD Lanes& operator+=(const Lanes& b) {
    v += b.v;
    return *this;
  }
  MFAKIT_HD Lanes& operator-=(const Lanes& b) {
    v -= b.v;
    return *this;
  }
};

MFAKIT_HD Lanes operator+(const Lanes& a, const Lanes& b) { return a.v + b.v; }
MFAKIT_HD Lanes operator-(const Lanes& a, const Lanes& b) { return a.v - b.v; }
MFAKIT_HD Lanes operator*(const Lanes& a, const Lanes& b) { return a.v * b.v; }
MFAKIT_HD Lanes operator/(const Lanes& a, const Lanes& b) { return a.v / b.v; }
MFAKIT_HD LaneMask operator>(const Lanes& a, const Lanes& b) { return {a.v > b.v}; }
MFAKIT_HD LaneMask operator<(const Lanes& a, const Lanes& b) { return {a.v < b.v}; }
MFAKIT_HD LaneMask operator&(const LaneMask& a, const LaneMask& b) { return {a.v & b.v}; }

MFAKIT_HD Lanes where(const LaneMask& ok, const Lanes& a, const Lanes& b) { return ok.v ? a.v : b.v; }

MFAKIT_HD Lanes fabs_(const Lanes& a) { return a.v < 0.0 ? -a.v : a.v; }

MFAKIT_HD bool any_of(const LaneMask& ok) {
  long long some = 0;
  for (index_t w = 0; w < n_lanes; ++w) some |= ok.v[w];
  return some != 0;
}

MFAKIT_HD Lanes sqrt_(const Lanes& a) {
  double values[n_lanes];
  for (index_t w = 0; w < n_lanes; ++w) values[w] = a.v[w];
  MFAKIT_SIMD
  for (index_t w = 0; w < n_lanes; ++w) values[w] = std::sqrt(values[w]);
  Lanes root;
  for (index_t w = 0; w < n_lanes; ++w) root.v[w] = values[w];
  return root;
}

}  // namespace mfakit
