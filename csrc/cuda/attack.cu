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

// The walk of sample i by one block, in shared memory or, where that is too small, in the block's part of `global`:
// the point and then WalkScratch. reports [n, 5].
extern "C" __global__ void factor_walk(const Coordinates q, const index_t* y, const WalkSettings settings,
                                       const Points points, index_t* reports, double* global) {
  __shared__ Candidate team_scratch[most_warps];
  MFA_DYNAMIC_SHARED(double, shared);
  const BlockTeam team = {team_scratch};
  const index_t size = q.size();
  WalkScratch scratch;
  const index_t values = 2 * size + scratch.lay_out(q, nullptr);
  double* const mine = global ? global + blockIdx.x * values : shared;
  scratch.lay_out(q, mine + 2 * size);
  for (index_t i = blockIdx.x; i < points.n; i += gridDim.x) {
    double *const a = points.a + i * size, *const w = points.w + i * size;
    Point p = {mine, mine + size, 1.0, points.sq[i]};
    team.each(size, [&](index_t c) {
      p.a[c] = a[c];
      p.w[c] = w[c];
    });
    team.sync();
    const WalkReport report = walk(team, q, y[i], settings, p, scratch);
    team.sync();
    team.each(size, [&](index_t c) {
      a[c] = p.a[c];
      w[c] = p.w[c];
    });
    if (threadIdx.x == 0) {
      points.alpha[i] = p.alpha;
      points.sq[i] = p.sq;
      write_report(report, reports + 5 * i);
    }
    team.sync();
  }
}
