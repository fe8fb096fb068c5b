// Cholesky factorization of small positive definite matrices, and solves with the factor.
#pragma once

#include "config.hpp"

namespace mfakit {

MFAKIT_HD double sum_of(const double* values, index_t n) {
  double sum = 0.0;
  for (index_t i = 0; i < n; ++i) sum += values[i];
  return sum;
}

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

// x := A^-1 x for a positive definite A [m, m] whose entries differ by many orders of magnitude: scaled to a unit
// diagonal first. Overwrites A and scale [m]; false if A is not positive definite.
MFAKIT_HD bool scaled_solve(double* A, index_t m, double* x /*[m]*/, double* scale) {
  for (index_t i = 0; i < m; ++i) {
    if (!(A[i * m + i] > 0.0)) return false;
    scale[i] = 1.0 / sqrt_(A[i * m + i]);
  }
  for (index_t i = 0; i < m; ++i) {
    x[i] *= scale[i];
    for (index_t j = 0; j < m; ++j) A[i * m + j] *= scale[i] * scale[j];
    A[i * m + i] = 1.0 + 1e-12;
  }
  if (!cholesky(A, m)) return false;
  solve_lower(A, m, x);
  solve_upper(A, m, x);
  for (index_t i = 0; i < m; ++i) x[i] *= scale[i];
  return true;
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
