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

// Walks by a block each, with the point and then WalkScratch in `mine`: steps from `first` up to `last`, of samples
// that have taken the first ones if these are any. reports [n, 5].
__device__ __forceinline__ void walk_samples(const BlockTeam& team, const Coordinates& q, const index_t* y,
                                             const WalkSettings& settings, index_t first, index_t last,
                                             const Points& points, index_t* reports, double* mine) {
  const index_t size = q.size();
  WalkScratch scratch;
  scratch.lay_out(q, mine + 2 * size);
  for (index_t i = blockIdx.x; i < points.n; i += gridDim.x) {
    WalkReport report;
    if (first > 0) report = read_report(reports + 5 * i);
    if (report.end != WalkEnd::max_steps) continue;  // the same for the whole block
    double *const a = points.a + i * size, *const w = points.w + i * size;
    Point p = {mine, mine + size, points.alpha[i], points.sq[i]};
    team.each(size, [&](index_t c) {
      p.a[c] = a[c];
      p.w[c] = w[c];
    });
    team.sync();
    walk_on(team, q, y[i], settings, last, p, scratch, report);
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

// In shared memory, of 2 C values and WalkScratch. Two kernels, so that each knows where its state is: an access that
// could be to either is slower than both.
extern "C" __global__ void factor_walk(const Coordinates q, const index_t* __restrict__ y, const WalkSettings settings,
                                       index_t first, index_t last, const Points points,
                                       index_t* __restrict__ reports) {
  __shared__ Candidate team_scratch[most_warps];
  MFA_DYNAMIC_SHARED(double, mine);
  walk_samples({team_scratch}, q, y, settings, first, last, points, reports, mine);
}

// In the block's part of `memory`, where shared memory is too small.
extern "C" __global__ void factor_walk_in_global(const Coordinates q, const index_t* __restrict__ y,
                                                 const WalkSettings settings, index_t first, index_t last,
                                                 const Points points, index_t* __restrict__ reports,
                                                 double* __restrict__ memory) {
  __shared__ Candidate team_scratch[most_warps];
  const index_t values = 2 * q.size() + WalkScratch().lay_out(q, nullptr);
  walk_samples({team_scratch}, q, y, settings, first, last, points, reports, memory + blockIdx.x * values);
}
