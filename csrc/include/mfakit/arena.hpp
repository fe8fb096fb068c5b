// Hands out consecutive parts of one block of 8-byte values; over a null block it only counts them. One function that
// names each buffer beside its size is run twice: to say how much memory is needed, and to lay it out.
#pragma once

#include "config.hpp"

namespace mfakit {

struct Arena {
  double* memory;
  index_t used;  // values so far

  MFAKIT_HD double* doubles(index_t n) {
    double* const here = memory ? memory + used : nullptr;
    used += n;
    return here;
  }
  MFAKIT_HD index_t* indices(index_t n) { return reinterpret_cast<index_t*>(doubles(n)); }
  MFAKIT_HD unsigned char* bytes(index_t n) { return reinterpret_cast<unsigned char*>(doubles((n + 7) / 8)); }
};

}  // namespace mfakit
