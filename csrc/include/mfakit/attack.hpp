// One step of the fixed-step gradient attack (appendix C.2): x += eta g / |g|,  g = grad log p_t - grad log p_s.
#pragma once

#include "config.hpp"

namespace mfakit {

// x += eta g / |g|; g = 0 or NaN (nowhere to go) leaves x.
MFAKIT_HD void step_along(double* x /*[d]*/, const double* g /*[d]*/, index_t d, double eta) {
  double sum = 0.0;
  MFAKIT_SIMD_SUM(sum)
  for (index_t j = 0; j < d; ++j) sum += g[j] * g[j];
  if (!(sum > 0.0 && sum < infinity_())) return;
  const double scale = eta / sqrt_(sum);
  MFAKIT_SIMD
  for (index_t j = 0; j < d; ++j) x[j] += scale * g[j];
}

}  // namespace mfakit
