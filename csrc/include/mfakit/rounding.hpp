// How far log p_j may be off by rounding at x + delta, in factor coordinates, by 2 |a b| <= a^2 / 2 + 2 b^2:
//   units (3/2 (|v|^2 + 2 |v . m| + |m|^2) + 5 |delta|^2) / s2 + units size_j
//     + tilt_j (3/2 maha_j(x) + 3 |delta|^2 / s2 + l)
// What does not depend on delta is added to q0, and twice the coefficient of |delta|^2 to the Hessian: the quadric is
// then above the exact one everywhere, and what is proved of it holds (python/mfakit/attacks/rounding.py).
#pragma once

#include "coordinates.hpp"

namespace mfakit {

// Each term of the sums may be off by a few units in its last place.
constexpr double rounding_units = 64.0 * 2.220446049250313e-16;

// A direction of this squared length beside the others has its roundings counted once; a shorter one in proportion.
constexpr double clear_length = 1.0 / 16.0;

struct Rounding {
  double units;        // relative
  const double* tilt;  // [K] of the singular vectors
  const double* size;  // [K] of the normaliser's terms
};

// |v|^2 + 2 |v . m| + |m|^2: what cancels in |v - m_j|^2.
MFAKIT_HD double magnitude(const Coordinates& q, const double* a /*[C]*/, double sq, index_t j) {
  const index_t m = q.mean_column(j);
  return sq + 2.0 * fabs_(a[m]) + q.offset[m];
}

// At the point (a, sq) itself, where log p_j was found to be `log_prob`.
MFAKIT_HD double log_prob_error(const Coordinates& q, const Rounding& r, const double* a /*[C]*/, double sq,
                                double log_prob, index_t j) {
  if (q.log_const[j] == -infinity_()) return 0.0;  // weight or prior 0: log p is -inf, exactly
  const double maha = not_negative(2.0 * (q.log_const[j] - log_prob));
  return r.units * (1.5 * magnitude(q, a, sq, j) / q.variance[j] + r.size[j]) + r.tilt[j] * (1.5 * maha + double(q.l));
}

// What is added to the Hessian.
MFAKIT_HD double hessian_error(const Coordinates& q, const Rounding& r, index_t j) {
  return (10.0 * r.units + 6.0 * r.tilt[j]) / q.variance[j];
}

}  // namespace mfakit
