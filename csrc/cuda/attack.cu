// Steps of the gradient attack in d dimensions, and whole walks in factor coordinates.
#include "device.cuh"
#include "mfakit/attack.hpp"
#include "mfakit/walk.hpp"

// X [n, d] += step_size g/|g| in place; a block per row.
extern "C" __global__ void attack_step(double* X, const double* direction, double step_size, index_t n, index_t d) {
  __shared__ Candidate scratch[most_warps];
  const BlockTeam team = {scratch};
  for (index_t i = blockIdx.x; i < n; i += gridDim.x) {
    const double* g = direction + i * d;
    double* x = X + i * d;
    const double scale = step_scale(team.sum(d, [&](index_t j) { return g[j] * g[j]; }), step_size);
    if (scale != 0.0) team.each(d, [&](index_t j) { x[j] += scale * g[j]; });
  }
}

namespace {

// Hands out parts of one buffer of 8-byte values; over no buffer it only counts them.
struct Arena {
  double* base;
  index_t used;

  __device__ double* doubles(index_t n) {
    double* const here = base ? base + used : nullptr;
    used += n;
    return here;
  }
  __device__ index_t* indices(index_t n) { return reinterpret_cast<index_t*>(doubles(n)); }
};

struct WalkMemory {
  Point p;
  WalkScratch scratch;
};

__device__ WalkMemory make_walk_memory(Arena& arena, const Coordinates& q) {
  const Point p = make_point(arena, q);
  return {p, make_walk_scratch(arena, q)};
}

__device__ index_t values_of_walk(const Coordinates& q) {
  Arena count = {nullptr, 0};
  make_walk_memory(count, q);
  return count.used;
}

}  // namespace

// The walk of sample i by one block, in shared memory or, where that is too small, in the block's part of `global`
// [blocks, values_of_walk]. In and out: a, w [n, C], alpha, sq [n]; out: reports [n, 5].
extern "C" __global__ void factor_walk(const double* gram, const double* variance, const double* gain,
                                       const double* spread, const double* log_const, const index_t* first,
                                       index_t n_components, index_t l, index_t n_classes, const index_t* y,
                                       double step_size, index_t max_steps, index_t frozen, index_t bisections,
                                       index_t n, double* a, double* w, double* alpha, double* sq, index_t* reports,
                                       double* global) {
  __shared__ Candidate scratch[most_warps];
  MFA_DYNAMIC_SHARED(double, shared);
  const BlockTeam team = {scratch};
  const Coordinates q = {gram, variance, gain, spread, log_const, first, n_components, l, n_classes};
  const WalkSettings settings = {step_size, max_steps, frozen != 0, int(bisections)};
  const index_t size = q.size();
  Arena arena = {global ? global + blockIdx.x * values_of_walk(q) : shared, 0};
  WalkMemory own = make_walk_memory(arena, q);
  Point& p = own.p;
  for (index_t i = blockIdx.x; i < n; i += gridDim.x) {
    p.alpha = 1.0;
    p.sq = sq[i];
    team.each(size, [&](index_t c) {
      p.a[c] = a[i * size + c];
      p.w[c] = w[i * size + c];
    });
    team.sync();
    const WalkReport report = walk(team, q, y[i], settings, p, own.scratch);
    team.sync();
    team.each(size, [&](index_t c) {
      a[i * size + c] = p.a[c];
      w[i * size + c] = p.w[c];
    });
    if (threadIdx.x == 0) {
      alpha[i] = p.alpha;
      sq[i] = p.sq;
      write_report(report, reports + 5 * i);
    }
    team.sync();
  }
}
