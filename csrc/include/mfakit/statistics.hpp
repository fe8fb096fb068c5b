// The M-step's sums of a tile of samples with one component: w r, w z r^T and w r^2, r = x - mu.
#pragma once

#include "residual.hpp"

namespace mfakit {

// sum_x [width], sum_xx [width], sum_xz [l, d] (at the chunk's first feature) += over the T rows of a tile; a row that
// only fills the tile has weight 0.
MFAKIT_HD void accumulate_chunk(const double* r /*[T, chunk]*/, const double* w /*[T]*/, const double* z /*[T, l]*/,
                                index_t l, index_t d, index_t width, double* sum_x, double* sum_xz, double* sum_xx) {
  const double *r0 = r, *r1 = r + chunk_columns, *r2 = r1 + chunk_columns, *r3 = r2 + chunk_columns;
  MFAKIT_SIMD
  for (index_t j = 0; j < width; ++j) {
    sum_x[j] += w[0] * r0[j] + w[1] * r1[j] + w[2] * r2[j] + w[3] * r3[j];
    sum_xx[j] += w[0] * r0[j] * r0[j] + w[1] * r1[j] * r1[j] + w[2] * r2[j] * r2[j] + w[3] * r3[j] * r3[j];
  }
  for (index_t a = 0; a < l; ++a) {
    const double z0 = w[0] * z[a], z1 = w[1] * z[l + a], z2 = w[2] * z[2 * l + a], z3 = w[3] * z[3 * l + a];
    double* out = sum_xz + a * d;
    MFAKIT_SIMD
    for (index_t j = 0; j < width; ++j) out[j] += z0 * r0[j] + z1 * r1[j] + z2 * r2[j] + z3 * r3[j];
  }
}

// The same of one pair at one feature, and the first `most` of the `left` factors from z.
MFAKIT_HD void accumulate_pair(double r, double w, const double* z, index_t left, int most, double* sum_x,
                               double* sum_xz /*[most]*/, double* sum_xx) {
  *sum_x += w * r;
  *sum_xx += w * r * r;
  for (int a = 0; a < most; ++a) {
    if (a < left) sum_xz[a] += w * z[a] * r;
  }
}

}  // namespace mfakit
