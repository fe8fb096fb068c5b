// Cholesky factorization of small positive definite matrices, and solves with the factor.
#pragma once

#include "config.hpp"

namespace mfakit {

// P = L L^T in place, in the lower triangle of P [r, r]; false if P is not positive definite by a safe margin.
MFAKIT_HD bool cholesky(double* P, index_t r) {
  for (index_t i = 0; i < r; ++i) {
    for (index_t j = 0; j <= i; ++j) {
      double sum = P[i * r + j];
      for (index_t k = 0; k < j; ++k) sum -= P[i * r + k] * P[j * r + k];
      if (i == j) {
        if (!(sum > 1e-14)) return false;
        P[i * r + i] = sqrt_(sum);
      } else {
        P[i * r + j] = sum / P[j * r + j];
      }
    }
  }
  return true;
}

// x := L^-1 x
MFAKIT_HD void solve_lower(const double* L /*[r, r]*/, index_t r, double* x /*[r]*/) {
  for (index_t i = 0; i < r; ++i) {
    for (index_t k = 0; k < i; ++k) x[i] -= L[i * r + k] * x[k];
    x[i] /= L[i * r + i];
  }
}

// x := L^-T x
MFAKIT_HD void solve_upper(const double* L /*[r, r]*/, index_t r, double* x /*[r]*/) {
  for (index_t i = r; i-- > 0;) {
    for (index_t k = i + 1; k < r; ++k) x[i] -= L[k * r + i] * x[k];
    x[i] /= L[i * r + i];
  }
}

// y += scale K x for a symmetric K [r, r] of which the lower triangle is stored; x, y [r].
MFAKIT_HD void add_product(const double* K, index_t r, double scale, const double* x, double* y) {
  for (index_t i = 0; i < r; ++i) {
    for (index_t k = 0; k < i; ++k) {
      y[i] += scale * K[i * r + k] * x[k];
      y[k] += scale * K[i * r + k] * x[i];
    }
    y[i] += scale * K[i * r + i] * x[i];
  }
}

}  // namespace mfakit
