// One sample against one component, from r = x - mu: the refinement of the coarse product, and the gradient.
//
//   y = W r [l],  z = Z y = E[z|x] [l],  A z = D W^T y
//   |x-mu|^2_{D^-1} - |W (x-mu)|^2 = |r - A z|^2_{D^-1} + |z|^2      (nothing large cancels)
//   grad log N(x) = -D^-1 (r - A z) = W^T y - D^-1 r
//
// A tile is T samples of the same component: each value of W is read once for all of them.
#pragma once

#include "config.hpp"

namespace mfakit {

constexpr int tile_rows = 4;            // T: four independent sums hide the latency of an addition
constexpr index_t chunk_columns = 256;  // features at a time: T residuals of a chunk stay in the first-level cache

template <bool Diagonal>
MFAKIT_HD double noise_at(const double* noise /*[1] or [d]*/, index_t j) {
  return noise[Diagonal ? j : 0];
}

// r [T, width] = x - mu over the features from `first`; x points at T rows.
template <class Real>
MFAKIT_HD void residual_chunk(const Real* const* x /*[T][d]*/, const double* mean /*[d]*/, index_t first, index_t width,
                              double* r /*[T, chunk]*/) {
  for (int t = 0; t < tile_rows; ++t) {
    const Real* row = x[t] + first;
    double* out = r + t * chunk_columns;
    MFAKIT_SIMD
    for (index_t j = 0; j < width; ++j) out[j] = double(row[j]) - mean[first + j];
  }
}

// y [T, l] += W r over a chunk of features; two rows of W at a time, so that each residual is read half as often.
MFAKIT_HD void project_chunk(const double* whitened /*[l, d]*/, index_t l, index_t d, index_t first, index_t width,
                             const double* r /*[T, chunk]*/, double* y /*[T, l]*/) {
  const double *r0 = r, *r1 = r + chunk_columns, *r2 = r1 + chunk_columns, *r3 = r2 + chunk_columns;
  index_t a = 0;
  for (; a + 1 < l; a += 2) {
    const double *w = whitened + a * d + first, *v = w + d;
    double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0, t0 = 0.0, t1 = 0.0, t2 = 0.0, t3 = 0.0;
    MFAKIT_SIMD_SUM(s0, s1, s2, s3, t0, t1, t2, t3)
    for (index_t j = 0; j < width; ++j) {
      s0 += w[j] * r0[j];
      s1 += w[j] * r1[j];
      s2 += w[j] * r2[j];
      s3 += w[j] * r3[j];
      t0 += v[j] * r0[j];
      t1 += v[j] * r1[j];
      t2 += v[j] * r2[j];
      t3 += v[j] * r3[j];
    }
    double* y_a = y + a;
    y_a[0] += s0;
    y_a[l] += s1;
    y_a[2 * l] += s2;
    y_a[3 * l] += s3;
    y_a[1] += t0;
    y_a[l + 1] += t1;
    y_a[2 * l + 1] += t2;
    y_a[3 * l + 1] += t3;
  }
  if (a == l) return;
  const double* w = whitened + a * d + first;
  double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0;
  MFAKIT_SIMD_SUM(s0, s1, s2, s3)
  for (index_t j = 0; j < width; ++j) {
    s0 += w[j] * r0[j];
    s1 += w[j] * r1[j];
    s2 += w[j] * r2[j];
    s3 += w[j] * r3[j];
  }
  y[a] += s0;
  y[l + a] += s1;
  y[2 * l + a] += s2;
  y[3 * l + a] += s3;
}

// g [T, width] = W^T y over a chunk of features, so that r - A z = r - D g and grad log N = g - D^-1 r.
MFAKIT_HD void back_chunk(const double* whitened /*[l, d]*/, index_t l, index_t d, index_t first, index_t width,
                          const double* y /*[T, l]*/, double* g /*[T, chunk]*/) {
  double *g0 = g, *g1 = g + chunk_columns, *g2 = g1 + chunk_columns, *g3 = g2 + chunk_columns;
  for (index_t j = 0; j < width; ++j) g0[j] = g1[j] = g2[j] = g3[j] = 0.0;
  for (index_t a = 0; a < l; ++a) {
    const double* w = whitened + a * d + first;
    const double y0 = y[a], y1 = y[l + a], y2 = y[2 * l + a], y3 = y[3 * l + a];
    MFAKIT_SIMD
    for (index_t j = 0; j < width; ++j) {
      g0[j] += y0 * w[j];
      g1[j] += y1 * w[j];
      g2[j] += y2 * w[j];
      g3[j] += y3 * w[j];
    }
  }
}

// One feature's term of |r - A z|^2_{D^-1}.
MFAKIT_HD double residual_term(double r, double g, double variance, double precision) {
  const double e = r - variance * g;
  return e * e * precision;
}

// norm [T] += |r - A z|^2_{D^-1} over a chunk: sum_j (r_j - D_j g_j)^2 / D_j.
template <bool Diagonal>
MFAKIT_HD void residual_norm_chunk(const double* r /*[T, chunk]*/, const double* g /*[T, chunk]*/,
                                   const double* noise /*[1] or [d]*/, index_t first, index_t width, double* norm) {
  const double *r0 = r, *r1 = r + chunk_columns, *r2 = r1 + chunk_columns, *r3 = r2 + chunk_columns;
  const double *g0 = g, *g1 = g + chunk_columns, *g2 = g1 + chunk_columns, *g3 = g2 + chunk_columns;
  double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0;
  MFAKIT_SIMD_SUM(s0, s1, s2, s3)
  for (index_t j = 0; j < width; ++j) {
    const double variance = noise_at<Diagonal>(noise, first + j), precision = Diagonal ? 1.0 / variance : 1.0;
    s0 += residual_term(r0[j], g0[j], variance, precision);
    s1 += residual_term(r1[j], g1[j], variance, precision);
    s2 += residual_term(r2[j], g2[j], variance, precision);
    s3 += residual_term(r3[j], g3[j], variance, precision);
  }
  const double scale = Diagonal ? 1.0 : noise[0];
  norm[0] += s0 / scale;
  norm[1] += s1 / scale;
  norm[2] += s2 / scale;
  norm[3] += s3 / scale;
}

// size [T] += |r|^2_{D^-1} over a chunk.
template <bool Diagonal>
MFAKIT_HD void weighted_norm_chunk(const double* r /*[T, chunk]*/, const double* noise /*[1] or [d]*/, index_t first,
                                   index_t width, double* size) {
  const double *r0 = r, *r1 = r + chunk_columns, *r2 = r1 + chunk_columns, *r3 = r2 + chunk_columns;
  double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0;
  MFAKIT_SIMD_SUM(s0, s1, s2, s3)
  for (index_t j = 0; j < width; ++j) {
    const double precision = Diagonal ? 1.0 / noise[first + j] : 1.0;
    s0 += r0[j] * r0[j] * precision;
    s1 += r1[j] * r1[j] * precision;
    s2 += r2[j] * r2[j] * precision;
    s3 += r3[j] * r3[j] * precision;
  }
  const double scale = Diagonal ? 1.0 : noise[0];
  size[0] += s0 / scale;
  size[1] += s1 / scale;
  size[2] += s2 / scale;
  size[3] += s3 / scale;
}

// How many times the answer the terms of |r|^2_{D^-1} - |y|^2 may be before the residual is summed instead. A float32
// answer keeps its digits with 1e6 times larger terms in float64; a float64 one has none to give away.
template <class Real>
struct largest_cancellation {
  static constexpr double value = 0.0;
};
template <>
struct largest_cancellation<float> {
  static constexpr double value = 1e6;
};

// maha = |r|^2_{D^-1} - |y|^2 from size = |r|^2_{D^-1} and y [l]; false if too many of its digits cancel, and it must
// be summed from the residual.
template <class Real>
MFAKIT_HD bool mahalanobis(double size, const double* y /*[l]*/, index_t l, double* maha) {
  *maha = size;
  for (index_t a = 0; a < l; ++a) *maha -= y[a] * y[a];
  return size <= largest_cancellation<Real>::value * *maha;
}

// grad log N(x) at one feature.
MFAKIT_HD double gradient_at(double r, double g, double variance) { return g - r / variance; }

// |Z y|^2 = |E[z|x]|^2.
MFAKIT_HD double latent_norm(const double* latent_map /*[l, l]*/, const double* y /*[l]*/, index_t l) {
  double sum = 0.0;
  for (index_t a = 0; a < l; ++a) {
    double z = 0.0;
    for (index_t b = 0; b < l; ++b) z += latent_map[a * l + b] * y[b];
    sum += z * z;
  }
  return sum;
}

}  // namespace mfakit
