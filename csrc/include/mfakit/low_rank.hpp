// P = diag(e) + V^T diag(+-1) V of d features and few rows: whether it is positive definite beyond rounding, and solves
// with it. Rows with + come first.
//
// Entries of e that are not safely positive are raised by c > 0, each corrected by one more row of -: sqrt(c) at that
// feature. With all of E > 0 the inertia of [[diag E, V^T], [V, -+1]] by either of its blocks says
//   P > 0   exactly if   T = diag(+-1) + V diag(E)^-1 V^T has as many negative eigenvalues as there are rows of -.
// The block of T of the rows of + is I and more, hence positive. So it is enough that T + doubt I, doubt being at least
// all that T and its factorization round, factorizes as L diag(+-1) L^T with these signs, without pivots
// (docs/certificates.md has the bound). Woodbury's identity solves with P.
#pragma once

#include "arena.hpp"
#include "cholesky.hpp"

namespace mfakit {

// An entry of e below this share of its terms is raised; and how many may be, beyond the number of rows of +.
constexpr double cancelled_share = 1e-4;
constexpr index_t most_raised = 32;
constexpr double unit_rounding = 2.220446049250313e-16;

// out [n] := row_i . u of n rows of length d, several at a time.
MFAKIT_HD void dot_rows(const double* const* row, index_t n, const double* u, index_t d, double* out) {
  index_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const double *r0 = row[i], *r1 = row[i + 1], *r2 = row[i + 2], *r3 = row[i + 3];
    double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0;
    MFAKIT_SIMD_SUM(s0, s1, s2, s3)
    for (index_t f = 0; f < d; ++f) {
      s0 += u[f] * r0[f];
      s1 += u[f] * r1[f];
      s2 += u[f] * r2[f];
      s3 += u[f] * r3[f];
    }
    out[i] = s0, out[i + 1] = s1, out[i + 2] = s2, out[i + 3] = s3;
  }
  for (; i < n; ++i) {
    const double* r = row[i];
    double sum = 0.0;
    MFAKIT_SIMD_SUM(sum)
    for (index_t f = 0; f < d; ++f) sum += u[f] * r[f];
    out[i] = sum;
  }
}

// out [d] += sum_i y_i row_i.
MFAKIT_HD void add_rows(const double* const* row, index_t n, const double* y, index_t d, double* out) {
  index_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const double *r0 = row[i], *r1 = row[i + 1], *r2 = row[i + 2], *r3 = row[i + 3];
    const double y0 = y[i], y1 = y[i + 1], y2 = y[i + 2], y3 = y[i + 3];
    MFAKIT_SIMD
    for (index_t f = 0; f < d; ++f) out[f] += (y0 * r0[f] + y1 * r1[f]) + (y2 * r2[f] + y3 * r3[f]);
  }
  for (; i < n; ++i) {
    const double* r = row[i];
    const double yi = y[i];
    MFAKIT_SIMD
    for (index_t f = 0; f < d; ++f) out[f] += yi * r[f];
  }
}

MFAKIT_HD double dot(const double* a, const double* b, index_t d) {
  double sum = 0.0;
  MFAKIT_SIMD_SUM(sum)
  for (index_t f = 0; f < d; ++f) sum += a[f] * b[f];
  return sum;
}

// P as it is stored: e [d] is a sum whose terms add up to `terms` in absolute value; V = diag(root) row.
struct LowRank {
  index_t d, n_rows, n_plus;
  const double* const* row;  // [n_rows] of [d] each
  double* root;              // [n_rows]
  double* e;                 // [d]
  double* terms;             // [d]
  double* spread;            // [d] sum over the rows of V squared
  double* y;                 // [n_rows + most_raised + n_plus] scratch: of any product

  MFAKIT_HD index_t most() const { return n_rows + n_plus + most_raised; }  // rows, with those of raised entries
};

// out [d] := P x; leaves row_i . x in P.y.
MFAKIT_HD void apply(const LowRank& P, const double* x, double* coefficients /*[n_rows]*/, double* out) {
  dot_rows(P.row, P.n_rows, x, P.d, P.y);
  for (index_t i = 0; i < P.n_rows; ++i) coefficients[i] = (i < P.n_plus ? 1.0 : -1.0) * P.root[i] * P.root[i] * P.y[i];
  MFAKIT_SIMD
  for (index_t f = 0; f < P.d; ++f) out[f] = P.e[f] * x[f];
  add_rows(P.row, P.n_rows, coefficients, P.d, out);
}

// The factors of P between those features that are not held.
struct LowRankFactor {
  double* inverse;      // [d] 1/E, 0 for features that are held
  double* root;         // [n_rows] of the P that it is of
  double* raised_root;  // [n_plus + most_raised]
  index_t* raised;      // the features of the raised entries
  index_t n_raised;
  double* L;  // [R, R], R rows with those of raised entries

  MFAKIT_HD void lay_out(const LowRank& P, Arena& arena) {
    inverse = arena.doubles(P.d);
    root = arena.doubles(P.n_rows);
    raised_root = arena.doubles(P.n_plus + most_raised);
    raised = arena.indices(P.n_plus + most_raised);
    L = arena.doubles(P.most() * P.most());
  }
};

// A = L diag(+-1) L^T in place, in the lower triangle of A [r, r], + for the first n_plus; false where a pivot has
// another sign.
MFAKIT_HD bool signed_cholesky(double* A, index_t r, index_t n_plus) {
  for (index_t i = 0; i < r; ++i) {
    for (index_t j = 0; j <= i; ++j) {
      double sum = A[i * r + j];
      for (index_t k = 0; k < j && k < n_plus; ++k) sum -= A[i * r + k] * A[j * r + k];
      for (index_t k = n_plus; k < j; ++k) sum += A[i * r + k] * A[j * r + k];
      if (j >= n_plus) sum = -sum;
      if (i != j) {
        A[i * r + j] = sum / A[j * r + j];
      } else if (sum > 0.0 && sum < infinity_()) {
        A[i * r + i] = sqrt_(sum);
      } else {
        return false;
      }
    }
  }
  return true;
}

// 1/E of the features that are not held, and which entries of e were raised; false if P is not positive definite. In
// *magnitude what roundings of V diag(E)^-1 V^T are relative to: those of e count by its terms.
MFAKIT_HD bool raise_entries(const LowRank& P, const unsigned char* held /*[d] or null*/, LowRankFactor& F,
                             double* magnitude) {
  index_t small = 0, negative = 0;
  for (index_t f = 0; f < P.d; ++f) {
    F.inverse[f] = 0.0;
    if (held && held[f]) continue;
    if (!(P.terms[f] < infinity_())) return false;
    if (!(P.e[f] >= cancelled_share * P.terms[f])) ++small;
    if (P.e[f] < 0.0) ++negative;
  }
  if (negative > P.n_plus) return false;  // the rows of + cannot compensate for all of them
  const bool raise = small <= P.n_plus + most_raised;
  double sum = 0.0;
  F.n_raised = 0;
  for (index_t f = 0; f < P.d; ++f) {
    if (held && held[f]) continue;
    double E = P.e[f], spread = P.spread[f];
    if (raise && !(E >= cancelled_share * P.terms[f])) {
      const double c = 2.0 * P.terms[f];  // E >= terms
      E += c;
      spread += c;
      F.raised[F.n_raised] = f;
      F.raised_root[F.n_raised++] = sqrt_(c);
    }
    if (!(E > 8.0 * unit_rounding * P.terms[f])) return false;
    F.inverse[f] = 1.0 / E;
    sum += spread * F.inverse[f] * (1.0 + P.terms[f] * F.inverse[f]);
  }
  *magnitude = sum;
  return true;
}

// The lower triangle of T [r, r]; scaled [d] is overwritten.
MFAKIT_HD void inner_matrix(const LowRank& P, const LowRankFactor& F, double* scaled, double* T) {
  const index_t n = P.n_rows, r = n + F.n_raised;
  for (index_t i = 0; i < n; ++i) {
    MFAKIT_SIMD
    for (index_t f = 0; f < P.d; ++f) scaled[f] = P.row[i][f] * F.inverse[f];
    double* const Ti = T + i * r;
    dot_rows(P.row, i + 1, scaled, P.d, Ti);
    for (index_t j = 0; j <= i; ++j) Ti[j] *= P.root[i] * P.root[j];
    Ti[i] += i < P.n_plus ? 1.0 : -1.0;
  }
  for (index_t k = 0; k < F.n_raised; ++k) {
    const index_t f = F.raised[k];
    double* const Tk = T + (n + k) * r;
    for (index_t j = 0; j < n; ++j) Tk[j] = F.raised_root[k] * F.inverse[f] * P.root[j] * P.row[j][f];
    for (index_t j = n; j < n + k; ++j) Tk[j] = 0.0;
    Tk[n + k] = F.raised_root[k] * F.raised_root[k] * F.inverse[f] - 1.0;
  }
}

// The factors of P between the features that are not held; false if P is not positive definite there beyond rounding.
// T [R, R] and scaled [d] are overwritten.
MFAKIT_HD bool factorize(const LowRank& P, const unsigned char* held, LowRankFactor& F, double* scaled, double* T) {
  double magnitude = 0.0;
  if (!raise_entries(P, held, F, &magnitude)) return false;
  const index_t r = P.n_rows + F.n_raised;
  for (index_t i = 0; i < P.n_rows; ++i) F.root[i] = P.root[i];
  inner_matrix(P, F, scaled, T);
  const double doubt = double(8 + r) * unit_rounding * (double(r) + magnitude);
  for (index_t i = 0; i < r; ++i) {
    for (index_t j = 0; j <= i; ++j) F.L[i * r + j] = T[i * r + j];
    F.L[i * r + i] += doubt;
  }
  if (!signed_cholesky(F.L, r, P.n_plus)) return false;
  for (index_t i = 0; i < r; ++i) {
    for (index_t j = 0; j <= i; ++j) F.L[i * r + j] = T[i * r + j];
  }
  return signed_cholesky(F.L, r, P.n_plus);
}

// x [d] := P^-1 b between the features that are not held, 0 in the others, to a rounding times P's condition.
MFAKIT_HD void solve(const LowRank& P, const LowRankFactor& F, const double* b, double* x, double* back /*[d]*/) {
  const index_t n = P.n_rows, r = n + F.n_raised;
  MFAKIT_SIMD
  for (index_t f = 0; f < P.d; ++f) {
    x[f] = F.inverse[f] * b[f];
    back[f] = 0.0;
  }
  dot_rows(P.row, n, x, P.d, P.y);
  for (index_t i = 0; i < n; ++i) P.y[i] *= F.root[i];
  for (index_t k = 0; k < F.n_raised; ++k) P.y[n + k] = F.raised_root[k] * x[F.raised[k]];
  solve_lower(F.L, r, P.y);
  for (index_t i = P.n_plus; i < r; ++i) P.y[i] = -P.y[i];
  solve_upper(F.L, r, P.y);
  for (index_t i = 0; i < n; ++i) P.y[i] *= F.root[i];
  add_rows(P.row, n, P.y, P.d, back);
  for (index_t k = 0; k < F.n_raised; ++k) back[F.raised[k]] += F.raised_root[k] * P.y[n + k];
  MFAKIT_SIMD
  for (index_t f = 0; f < P.d; ++f) x[f] -= F.inverse[f] * back[f];
}

}  // namespace mfakit
