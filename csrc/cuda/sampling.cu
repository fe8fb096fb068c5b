// Samples of a mixture: x = mu + A z + sqrt(D) eta.
#include "device.cuh"
#include "mfakit/random.hpp"

// X [n, d] from component [n] and z [n, l]; eta from the stream `key`. A thread per two features.
extern "C" __global__ void sample_points(const index_t* component, const double* z, const Parameters q, index_t key,
                                         index_t with_noise, index_t n, Real* X) {
  const index_t d = q.d, l = q.l, halves = (d + 1) / 2;
  for (index_t at = global_thread(); at < n * halves; at += threads_of_grid()) {
    const index_t i = at / halves, half = at % halves, j = component[i];
    const NormalPair eta =
        with_noise ? normal_pair((unsigned long long)key, (unsigned long long)at) : NormalPair{0.0, 0.0};
    for (int side = 0; side < 2; ++side) {
      const index_t c = 2 * half + side;
      if (c >= d) continue;
      const double* A = q.loadings + (j * d + c) * l;
      double x = q.means[j * d + c];
      for (index_t a = 0; a < l; ++a) x += A[a] * z[i * l + a];
      const double variance = q.noise[q.diagonal ? j * d + c : j];
      X[i * d + c] = Real(x + sqrt_(variance) * (side ? eta.second : eta.first));
    }
  }
}
