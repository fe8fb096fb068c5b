// Threads: a loop over ranges that runs serially where it must (one thread, or a child after fork).
#pragma once

#include <algorithm>

#include "mfakit/config.hpp"

#ifdef MFAKIT_HAVE_OPENMP
#include <omp.h>
#endif

// One clone of a kernel per x86-64 level, chosen when the module loads. The levels by name, not `arch=haswell`: that
// one falls back to the default on processors newer than the compiler.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(MFAKIT_NO_CLONES)
#define MFAKIT_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define MFAKIT_CLONES
#endif

namespace mfakit {

// libgomp's workers do not survive fork: a child that opens a parallel region waits for them for ever.
void serial_after_fork();
bool in_forked_child();

// What a parallel region of this thread has by default; 0 without OpenMP.
int default_openmp_threads();

// How many threads a team of this thread can have, at most `wanted`: libgomp ends the process where it cannot start
// one, under a limit of memory or of threads, so that we start as many first and let them end.
int startable_threads(int wanted);

// Rows per piece of a loop over rows of `width` values: enough work to be worth waking a thread for.
inline index_t row_grain(index_t width) { return std::max<index_t>(1, 32768 / std::max<index_t>(width, 1)); }

// f(thread, begin, end) over [0, n) in pieces of `grain`, dealt out in order; f must not throw. Which thread runs a
// piece varies, what a piece computes does not.
template <class F>
void parallel_ranges(index_t n, index_t grain, int n_threads, F f) {
  const index_t pieces = (n + grain - 1) / std::max<index_t>(grain, 1);
  n_threads = int(std::min<index_t>(n_threads, pieces));
#ifdef MFAKIT_HAVE_OPENMP
  n_threads = n_threads > 1 && !in_forked_child() ? startable_threads(n_threads) : 1;
  if (n_threads > 1) {
#pragma omp parallel for schedule(dynamic) num_threads(n_threads)
    for (index_t piece = 0; piece < pieces; ++piece) {
      f(omp_get_thread_num(), piece * grain, std::min(n, (piece + 1) * grain));
    }
    return;
  }
#endif
  for (index_t piece = 0; piece < pieces; ++piece) f(0, piece * grain, std::min(n, (piece + 1) * grain));
}

}  // namespace mfakit
