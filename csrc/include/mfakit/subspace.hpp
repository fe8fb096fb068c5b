// Distances between affine subspaces, and from points to them, out of inner products.
#pragma once

#include "mixture.hpp"

// Before loops over factors that a kernel with sizes known at compilation unrolls, to hold a pair in registers.
#ifndef MFAKIT_UNROLL
#define MFAKIT_UNROLL
#endif

namespace mfakit {

// |x-mu|^2 - |Q^T (x-mu)|^2 from y [l+1] = xc . [Q columns, m]; `size` = |xc|^2 + |m|^2 is what cancels.
template <class Real>
MFAKIT_HD double sq_distance_to_subspace(const Real* y /*[l+1]*/, const double* shift /*[l]*/, index_t l, double size) {
  return not_negative(size - 2.0 * double(y[l]) - explained(y, shift, l));
}

// That of sample i to component j, and whether rounding may have changed it by more than `tolerance` relative.
template <class Real>
MFAKIT_HD double point_distance(const Coarse<Real>& coarse, const Mixture& q, double tolerance, index_t i, index_t j,
                                unsigned char* keep) {
  const double size = coarse.sq_norms[i] + q.mean_norm[j];
  const Real* y = coarse.products + i * coarse.stride + j * (q.l + 1);
  const double sq = sq_distance_to_subspace(y, q.shift + j * q.l, q.l, size);
  *keep = coarse.slack * size > tolerance * sq;
  return sq;
}

// Eigenvalues (on the diagonal of S) and eigenvectors (columns of V) of a symmetric S [l, l], by cyclic Jacobi
// rotations.
MFAKIT_HD void jacobi_eigen(double* S /*[l, l]*/, double* V /*[l, l]*/, index_t l) {
  for (index_t a = 0; a < l; ++a)
    for (index_t b = 0; b < l; ++b) V[a * l + b] = a == b ? 1.0 : 0.0;
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0.0, diagonal = 0.0;
    for (index_t a = 0; a < l; ++a) {
      diagonal += S[a * l + a] * S[a * l + a];
      for (index_t b = a + 1; b < l; ++b) off += S[a * l + b] * S[a * l + b];
    }
    if (!(off > 1e-34 * diagonal)) return;  // NaN ends here, too
    for (index_t p = 0; p < l; ++p) {
      for (index_t q = p + 1; q < l; ++q) {
        const double apq = S[p * l + q];
        if (apq == 0.0) continue;
        // The rotation by the smaller angle that zeroes S[p, q] (Golub & Van Loan, section 8.5).
        const double tau = (S[q * l + q] - S[p * l + p]) / (2.0 * apq);
        const double t = (tau >= 0.0 ? 1.0 : -1.0) / (fabs_(tau) + sqrt_(1.0 + tau * tau));
        const double c = 1.0 / sqrt_(1.0 + t * t), s = t * c;
        for (index_t i = 0; i < l; ++i) {
          const double ip = S[i * l + p], iq = S[i * l + q];
          S[i * l + p] = c * ip - s * iq;
          S[i * l + q] = s * ip + c * iq;
        }
        for (index_t i = 0; i < l; ++i) {
          const double pi = S[p * l + i], qi = S[q * l + i];
          S[p * l + i] = c * pi - s * qi;
          S[q * l + i] = s * pi + c * qi;
          const double vp = V[i * l + p], vq = V[i * l + q];
          V[i * l + p] = c * vp - s * vq;
          V[i * l + q] = s * vp + c * vq;
        }
      }
    }
  }
}

// What numbers need besides arithmetic where a formula may be computed for several pairs at once (csrc/cpu/lanes.hpp).
MFAKIT_HD bool any_of(bool ok) { return ok; }
MFAKIT_HD double where(bool ok, double a, double b) { return ok ? a : b; }

// v^T S^-1 v by Cholesky where S [l, l] is far from singular: `ok` becomes false, and S is left alone, unless its
// smallest eigenvalue is proven to be at least `least` by 1 / trace(S^-1). Reads and writes lower triangles; L [l, l],
// with its diagonal inverted, y [l] (L^-1 v) and x [l] are work; y may be x,
// and is lost then.
template <class Value, class Mask>
MFAKIT_HD Value quadratic_by_cholesky(const Value* S, const Value* v, index_t l, double least, Value* L, Value* y,
                                      Value* x, Mask* ok) {
  Value sum = 0.0, trace = 0.0;
  MFAKIT_UNROLL
  for (index_t i = 0; i < l; ++i) {
    MFAKIT_UNROLL
    for (index_t j = 0; j <= i; ++j) {
      Value t = S[i * l + j];
      MFAKIT_UNROLL
      for (index_t k = 0; k < j; ++k) t -= L[i * l + k] * L[j * l + k];
      if (i > j) {
        L[i * l + j] = t * L[j * l + j];
      } else {
        const Mask steep = t > least;  // a pivot is at least the smallest eigenvalue
        *ok = *ok & steep;
        if (!any_of(*ok)) return sum;
        L[i * l + i] = 1.0 / sqrt_(where(steep, t, 1.0));
      }
    }
    Value t = v[i];
    MFAKIT_UNROLL
    for (index_t k = 0; k < i; ++k) t -= L[i * l + k] * y[k];
    y[i] = t * L[i * l + i];
    sum += y[i] * y[i];
  }
  MFAKIT_UNROLL
  for (index_t c = 0; c < l; ++c) {  // trace(S^-1) = |L^-1|^2, column by column
    MFAKIT_UNROLL
    for (index_t i = c; i < l; ++i) {
      Value t = i == c ? 1.0 : 0.0;
      MFAKIT_UNROLL
      for (index_t k = c; k < i; ++k) t -= L[i * l + k] * x[k];
      x[i] = t * L[i * l + i];
      trace += x[i] * x[i];
    }
  }
  *ok = *ok & (trace * least < 1.0);
  return sum;
}

// The marks of a pair: its distance is what it is, is to be recomputed by QR, or needs the eigenvectors of S.
constexpr unsigned char settled = 0, to_be_recomputed = 1, undecided = 2;

// A sine below 1e-2 is taken for zero: inner products hardly tell it from that of a shared direction.
constexpr double least_sq_sine = 1e-4;

MFAKIT_HD unsigned char mark_of_pair(double sq, double size, bool shared) {
  return shared || sq < 1e-6 * size ? to_be_recomputed : settled;
}

// |Delta|^2 - |u0|^2, S [l1, l1] (its lower triangle) and v [l1] of sq_distance_of_pair, whose arguments these are.
template <class Value>
MFAKIT_HD Value reduce_pair(const Value* C, index_t ld, index_t l0, index_t l1, const double* shift0 /*[l0]*/,
                            const Value* shift1 /*[l1]*/, const Value& size, Value* S, Value* v) {
  Value sq = size - 2.0 * C[l0 * ld + l1];
  MFAKIT_UNROLL
  for (index_t b = 0; b < l1; ++b) {
    v[b] = C[l0 * ld + b] - shift1[b];
    MFAKIT_UNROLL
    for (index_t c = 0; c <= b; ++c) S[b * l1 + c] = b == c ? 1.0 : 0.0;
  }
  for (index_t a = 0; a < l0; ++a) {  // each inner product is read once, in the order in which they lie
    const Value* g = C + a * ld;
    const Value u0 = shift0[a] - g[l1];
    sq -= u0 * u0;
    MFAKIT_UNROLL
    for (index_t b = 0; b < l1; ++b) {
      v[b] -= g[b] * u0;
      MFAKIT_UNROLL
      for (index_t c = 0; c <= b; ++c) S[b * l1 + c] -= g[b] * g[c];
    }
  }
  return sq;
}

// Products whose sines are at least this, squared, bound a distance although they are rounded to float32.
constexpr double least_rough_sq_sine = 1e-2;

// How far the squared distance of reduce_pair's pair may be off where every inner product is off by at most `slack` of
// its vectors' lengths, slack <= least_rough_sq_sine / (8 max(l0, l1)): docs/subspaces.md. L and x are what
// quadratic_by_cholesky left and L^-1 v, which becomes S^-1 v.
template <class Value>
MFAKIT_HD Value rough_error(const Value* C, index_t ld, index_t l0, index_t l1, const double* shift0 /*[l0]*/,
                            double norm0, const Value& norm1, double slack, const Value* L, Value* x) {
  Value reach0 = sqrt_(norm0), reach1 = sqrt_(norm1);
  for (index_t b = l1 - 1; b >= 0; --b) {
    Value t = x[b];
    for (index_t k = b + 1; k < l1; ++k) t -= L[k * l1 + b] * x[k];
    x[b] = t * L[b * l1 + b];
    reach1 += fabs_(x[b]);
  }
  for (index_t a = 0; a < l0; ++a) {
    const Value* g = C + a * ld;
    Value t = g[l1] - shift0[a];
    for (index_t b = 0; b < l1; ++b) t += g[b] * x[b];
    reach0 += fabs_(t);
  }
  const Value far = (reach0 + reach1) * (reach0 + reach1);
  const double most = double(l0 > l1 ? l0 : l1);
  return (2.0 * slack) * reach0 * reach1 + (4.0 * slack * slack * most / least_rough_sq_sine) * far;
}

// sq_distance_of_pair, whose arguments these are, where all sines are far from zero. Otherwise the mark is `undecided`,
// the result is |Delta|^2 - |u0|^2, and work holds S [l1, l1] (its lower triangle), as much free space, and v [l1].
MFAKIT_HD double sq_distance_by_cholesky(const double* C, index_t ld, index_t l0, index_t l1,
                                         const double* shift0 /*[l0]*/, double norm0, const double* shift1 /*[l1]*/,
                                         double norm1, double* work, unsigned char* mark) {
  double *S = work, *L = S + l1 * l1, *v = L + l1 * l1, *x = v + l1;
  const double size = norm0 + norm1;
  double sq = reduce_pair(C, ld, l0, l1, shift0, shift1, size, S, v);
  bool ok = true;
  const double gone = quadratic_by_cholesky(S, v, l1, least_sq_sine, L, x, x, &ok);
  if (!ok) {
    *mark = undecided;
    return sq;
  }
  sq = not_negative(sq - gone);
  *mark = mark_of_pair(sq, size, false);
  return sq;
}

// d^2 = |Delta|^2 - |u0|^2 - v^T S^-1 v with Delta = mu0 - mu1, u = Q^T Delta, G = Q0^T Q1, v = u1 - G^T u0 and
// S = I - G^T G, whose eigenvalues are the squared sines of the principal angles. C holds the pair's inner products
// [l0+1, l1+1] of rows [Q^T; mu], with row stride `ld`. `suspect` marks a pair to be recomputed by QR: the smallest
// sine below 1e-2, or a distance below 1e-3 of what cancels. work: 2 l1^2 + 2 l1 values.
MFAKIT_HD double sq_distance_of_pair(const double* C, index_t ld, index_t l0, index_t l1, const double* shift0 /*[l0]*/,
                                     double norm0, const double* shift1 /*[l1]*/, double norm1, double* work,
                                     unsigned char* suspect) {
  double sq = sq_distance_by_cholesky(C, ld, l0, l1, shift0, norm0, shift1, norm1, work, suspect);
  if (*suspect != undecided) return sq;
  double *S = work, *V = S + l1 * l1;
  const double* v = V + l1 * l1;
  for (index_t b = 0; b < l1; ++b)
    for (index_t c = 0; c < b; ++c) S[c * l1 + b] = S[b * l1 + c];
  jacobi_eigen(S, V, l1);
  bool shared = false;
  for (index_t b = 0; b < l1; ++b) {
    const double sq_sine = S[b * l1 + b];
    if (sq_sine < least_sq_sine) {
      shared = true;
      continue;
    }
    double along = 0.0;
    for (index_t c = 0; c < l1; ++c) along += V[c * l1 + b] * v[c];
    sq -= along * along / sq_sine;
  }
  sq = not_negative(sq);
  *suspect = mark_of_pair(sq, norm0 + norm1, shared);
  return sq;
}

}  // namespace mfakit
