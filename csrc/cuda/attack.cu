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
  const index_t size = q.size(), indices = n_classes + 2 * l + 2;
  double* const mine = global ? global + blockIdx.x * (5 * size + n_components + n_classes + indices) : shared;
  double* const decision = mine + 5 * size;
  index_t* const integers = reinterpret_cast<index_t*>(decision + n_components + n_classes);
  for (index_t i = blockIdx.x; i < n; i += gridDim.x) {
    Point p = {mine, mine + size, 1.0, sq[i]};
    WalkScratch s = {{decision, decision + n_components, integers},
                     {0.0, integers + n_classes, mine + 2 * size, 0},
                     {mine + 3 * size, mine + 4 * size, 1.0, 0.0}};
    team.each(size, [&](index_t c) {
      p.a[c] = a[i * size + c];
      p.w[c] = w[i * size + c];
    });
    team.sync();
    const WalkReport report = walk(team, q, y[i], settings, p, s);
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
