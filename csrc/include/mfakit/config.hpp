// What differs between compilers, and nothing else: the only file with an #ifdef on them. The headers here are
// freestanding (NVRTC has no standard library) and are read by the CPU extension and by the CUDA kernels alike.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define MFAKIT_HD __device__ __forceinline__
#else
#include <cmath>
#define MFAKIT_HD inline __attribute__((always_inline))
#endif

// A hint that a loop has no dependence but its reduction; without it no float sum may be vectorised.
#define MFAKIT_PRAGMA(text) _Pragma(#text)
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define MFAKIT_SIMD
#define MFAKIT_SIMD_SUM(...)
#else
#define MFAKIT_SIMD MFAKIT_PRAGMA(omp simd)
#define MFAKIT_SIMD_SUM(...) MFAKIT_PRAGMA(omp simd reduction(+ : __VA_ARGS__))
#endif

namespace mfakit {

using index_t = long long;  // 64-bit: n * d passes 2^31 at n = 1e5, d = 49,152

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
MFAKIT_HD double exp_(double x) { return exp(x); }
MFAKIT_HD double expm1_(double x) { return expm1(x); }
MFAKIT_HD double log_(double x) { return log(x); }
MFAKIT_HD double sqrt_(double x) { return sqrt(x); }
MFAKIT_HD float sqrtf_(float x) { return sqrtf(x); }
MFAKIT_HD double fabs_(double x) { return fabs(x); }
MFAKIT_HD double cospi_(double x) { return cospi(x); }
MFAKIT_HD double sinpi_(double x) { return sinpi(x); }
MFAKIT_HD double infinity_() { return __longlong_as_double(0x7ff0000000000000LL); }
// What no thread writes while the kernel runs. The compiler sees that by itself for arguments marked __restrict__, but
// not for the pointers in a struct once a kernel has votes in it.
template <class T>
MFAKIT_HD T constant(const T* x) {
  return __ldg(x);
}
#else
// Below -746 exp is 0; libm takes a slow path there, to raise a floating-point flag that nobody reads.
MFAKIT_HD double exp_(double x) { return x < -746.0 ? 0.0 : std::exp(x); }
MFAKIT_HD double expm1_(double x) { return std::expm1(x); }
MFAKIT_HD double log_(double x) { return std::log(x); }
MFAKIT_HD double sqrt_(double x) { return std::sqrt(x); }
MFAKIT_HD float sqrtf_(float x) { return std::sqrt(x); }
MFAKIT_HD double fabs_(double x) { return std::fabs(x); }
MFAKIT_HD double cospi_(double x) { return std::cos(3.14159265358979323846 * x); }
MFAKIT_HD double sinpi_(double x) { return std::sin(3.14159265358979323846 * x); }
MFAKIT_HD double infinity_() { return __builtin_inf(); }
template <class T>
MFAKIT_HD T constant(const T* x) {
  return *x;
}
#endif

}  // namespace mfakit
