// Random numbers by counter, so that a value depends on its key and place alone and not on who draws it: Philox4x32-10
// (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"), and normals by Box and Muller.
#pragma once

#include "config.hpp"

namespace mfakit {

struct Words {
  unsigned x, y, z, w;
};

MFAKIT_HD unsigned high_word(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }

MFAKIT_HD Words philox(Words counter, unsigned key0, unsigned key1) {
  for (int round = 0; round < 10; ++round) {
    const unsigned high0 = high_word(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
    const unsigned high1 = high_word(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
    counter = {high1 ^ counter.y ^ key0, low1, high0 ^ counter.w ^ key1, low0};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Uniform in (0, 1), never 0 or 1, from 53 bits of two words.
MFAKIT_HD double uniform(unsigned high, unsigned low) {
  const unsigned long long bits = ((unsigned long long)high << 32 | low) >> 12;
  return (double(bits) + 0.5) * 0x1p-52;
}

struct NormalPair {
  double first, second;
};

// Two independent standard normals, number `index` of the stream `key`.
MFAKIT_HD NormalPair normal_pair(unsigned long long key, unsigned long long index) {
  const Words r = philox({unsigned(index), unsigned(index >> 32), 0u, 0u}, unsigned(key), unsigned(key >> 32));
  const double radius = sqrt_(-2.0 * log_(uniform(r.x, r.y))), angle = 2.0 * uniform(r.z, r.w);
  return {radius * cospi_(angle), radius * sinpi_(angle)};
}

}  // namespace mfakit
