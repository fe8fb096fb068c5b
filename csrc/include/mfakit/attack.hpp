// One step of the fixed-step gradient attack (appendix C.2): x += eta g / |g|,  g = grad log p_t - grad log p_s.
#pragma once

#include "config.hpp"

namespace mfakit {

// eta / |g| from |g|^2; 0 where g is zero or NaN: nowhere to go.
MFAKIT_HD double step_scale(double sq_norm, double eta) {
  return sq_norm > 0.0 && sq_norm < infinity_() ? eta / sqrt_(sq_norm) : 0.0;
}

// x += eta g / |g|; g = 0 or NaN leaves x.
MFAKIT_HD void step_along(double* x /*[d]*/, const double* g /*[d]*/, index_t d, double eta) {
  double sum = 0.0;
  MFAKIT_SIMD_SUM(sum)
  for (index_t j = 0; j < d; ++j) sum += g[j] * g[j];
  const double scale = step_scale(sum, eta);
  if (scale == 0.0) return;
  MFAKIT_SIMD
  for (index_t j = 0; j < d; ++j) x[j] += scale * g[j];
}

}  // namespace mfakit
