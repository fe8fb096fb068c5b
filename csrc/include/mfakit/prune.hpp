// An upper bound on a component's log-density from a few coordinates of the sample: what it puts below the best
// component by far needs no product with all d features. The proof is in docs/pruning.md; in short, with orthonormal
// rows B, y = B (x - mu) and the rest P = I - B^T B,
//
//   maha(x) = min_z |y - B A z|^2/s2 + |z|^2 + |P (x - mu) - P A z|^2/s2
//          >= red + min_t lambda t^2 + max(0, gap - a (|z0| + t))^2/s2 = red + q^2 / (1 + (a^2/s2) / lambda)
//
// where red is the minimum of the first two terms, reached at z0, lambda their least curvature, a = |P A|_2,
// gap = ||P (x - c)| - |P (mu - c)|| and q = max(0, gap - a |z0|)/s. Several groups of features, each with a noise of
// its own, add up in q^2 and in the denominator.
#pragma once

#include "operands.hpp"

namespace mfakit {

template <class Real>
struct unit_roundoff {
  static constexpr Real value = Real(1.1102230246251565e-16);
};
template <>
struct unit_roundoff<float> {
  static constexpr float value = 5.9604645e-8f;
};

// Squared lengths that overflow are at least this, and no more is known of them.
template <class Real>
struct largest_length {
  static constexpr Real value = Real(1e307);
};
template <>
struct largest_length<float> {
  static constexpr float value = 1e37f;
};

MFAKIT_HD float root_(float x) { return sqrtf_(x); }
MFAKIT_HD double root_(double x) { return sqrt_(x); }
template <class Real>
MFAKIT_HD Real positive(Real x) {
  return x > Real(0) ? x : Real(0);
}

// Relative rounding of |u|^2 - |W u|^2 in units of |u|^2, and of |W u| in units of |u|: u [r], rows of W no longer
// than 1.
template <class Real>
MFAKIT_HD Real sums_rounding(index_t l, index_t r) {
  return Real(4) * Real(r + l + 8) * (Real(1) + root_(Real(l))) * unit_roundoff<Real>::value;
}

// How far |u| may be off for the rounding of coordinates and means: their lengths in each group, in its unit.
template <class Real>
MFAKIT_HD Real length_off(const Projected<Real>& x, index_t i, const Projection<Real>& p, index_t j) {
  if (p.groups == 1) return p.steepness[j] * (x.errors[i] + p.offsets[j]);
  const Real *steepness = p.steepness + j * p.groups, *errors = x.errors + i * p.groups,
             *offsets = p.offsets + j * p.groups;
  Real sum = 0;
  MFAKIT_SIMD_SUM(sum)
  for (index_t g = 0; g < p.groups; ++g) {
    const Real off = steepness[g] * (errors[g] + offsets[g]);
    sum += off * off;
  }
  return root_(sum);
}

// What the rest of one group adds, (q_g)^2, `loading` being |P A| |z0|.
template <class Real>
MFAKIT_HD Real rest_term(Real near, Real far, Real mean, Real loading, Real scale, Real offset) {
  const Real gap = near - mean > mean - far ? near - mean : mean - far;
  const Real rounded = Real(16) * unit_roundoff<Real>::value * (far + mean + loading) + offset;
  const Real q = positive(gap - loading - rounded) * scale;
  return q * q;
}

// The bound from |u|^2 and |W u|^2, u = (B (x - c) - B (mu - c)) / sigma, and what the projection leaves of sample i
// and component j.
template <class Real>
MFAKIT_HD Real log_prob_bound(const Projected<Real>& x, index_t i, const Projection<Real>& p, index_t j, Real size,
                              Real explained) {
  const Real unit = unit_roundoff<Real>::value, rounding = sums_rounding<Real>(p.l, p.r), length = root_(size);
  const Real off = length_off(x, i, p, j) + Real(8) * unit * length;
  const Real root = positive(root_(positive(size - explained - rounding * size)) - off);
  const Real latent = (root_(explained) + rounding * length + off) * p.latent_scale[j];
  Real rest = 0;
  if (p.groups == 1) {
    rest = rest_term(x.nearest[i], x.farthest[i], p.rest_means[j], p.rest_loadings[j] * latent, p.rest_scales[j],
                     p.offsets[j]);
  } else {
    const Real *near = x.nearest + i * p.groups, *far = x.farthest + i * p.groups, *means = p.rest_means + j * p.groups,
               *loadings = p.rest_loadings + j * p.groups, *scales = p.rest_scales + j * p.groups,
               *offsets = p.offsets + j * p.groups;
    MFAKIT_SIMD_SUM(rest)
    for (index_t g = 0; g < p.groups; ++g) {
      rest += rest_term(near[g], far[g], means[g], loadings[g] * latent, scales[g], offsets[g]);
    }
  }
  const Real sum = (root * root + rest * p.stretch[j]) * (Real(1) - Real(32) * unit * Real(p.groups));
  const Real maha = sum > largest_length<Real>::value ? largest_length<Real>::value : sum;  // a NaN stays one
  const Real log_norm = p.log_norm[j];
  return log_norm - Real(0.5) * maha + Real(4) * unit * ((log_norm < 0 ? -log_norm : log_norm) + maha);
}

// The bound of sample i and component j, on its own: u is made again for every few rows of W, so that nothing of size r
// is kept.
template <class Real>
MFAKIT_HD Real pair_bound(const Projected<Real>& x, index_t i, const Projection<Real>& p, index_t j) {
  constexpr index_t group = 8;
  const Real *y = x.coordinates + i * x.stride, *mean = p.means + j * p.r, *scale = p.scales + j * p.r;
  Real size = 0, explained = 0;
  for (index_t first = 0; first == 0 || first < p.l; first += group) {
    const Real* w = p.whitened + (j * p.l + first) * p.r;
    const index_t rows = p.l - first < group ? p.l - first : group;
    Real sum[group] = {};
    for (index_t c = 0; c < p.r; ++c) {
      const Real u = (y[c] - mean[c]) * scale[c];
      if (first == 0) size += u * u;
      for (index_t a = 0; a < group; ++a) {
        if (a < rows) sum[a] += w[a * p.r + c] * u;
      }
    }
    for (index_t a = 0; a < group; ++a) explained += sum[a] * sum[a];
  }
  return log_prob_bound(x, i, p, j, size, explained);
}

}  // namespace mfakit
