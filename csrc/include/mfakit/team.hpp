// Who works on one sample: a thread of the CPU, here, or a warp or block of CUDA threads (csrc/cuda/device.cuh). Code
// written for a team runs in all of them: every member takes part in every call, each() deals out indices, and what
// one member wrote the others may read after sync(). Reductions return the same value to all, and synchronise.
#pragma once

#include "config.hpp"

namespace mfakit {

// The larger of two; NaN if either is.
MFAKIT_HD double larger(double a, double b) { return a != a || a > b ? a : b; }

struct Serial {
  template <class F>
  MFAKIT_HD void each(index_t n, F f) const {
    for (index_t i = 0; i < n; ++i) f(i);
  }
  // each() over long arrays, where no index reads what another writes.
  template <class F>
  MFAKIT_HD void stream(index_t n, F f) const {
    MFAKIT_SIMD
    for (index_t i = 0; i < n; ++i) f(i);
  }
  template <class F>
  MFAKIT_HD double sum(index_t n, F f) const {
    double total = 0.0;
    for (index_t i = 0; i < n; ++i) total += f(i);
    return total;
  }
  // The largest f(i), -inf for n = 0.
  template <class F>
  MFAKIT_HD double max(index_t n, F f) const {
    double top = -infinity_();
    for (index_t i = 0; i < n; ++i) top = larger(f(i), top);
    return top;
  }
  // The first index of the largest f(i); 0 where all are NaN.
  template <class F>
  MFAKIT_HD index_t argmax(index_t n, F f) const {
    index_t best = 0;
    for (index_t i = 1; i < n; ++i) {
      if (f(i) > f(best)) best = i;
    }
    return best;
  }
  MFAKIT_HD void sync() const {}
};

}  // namespace mfakit
