// Samples of a mixture: x = mu + A z + sqrt(D) eta.
#include "device.cuh"
#include "mfakit/random.hpp"

// X [n, d] from component [n] and z [n, l]; loadings [k, d, l], noise [k, 1] or [k, d]; eta from the stream `key`, the
// values of rows from `first_row`. A thread per two features.
extern "C" __global__ void sample_points(const index_t* component, const double* z, const double* means,
                                         const double* loadings, const double* noise, index_t n, index_t l, index_t d,
                                         index_t diagonal, index_t with_noise, index_t key, index_t first_row,
                                         Real* X) {
  const index_t halves = (d + 1) / 2;
  for (index_t at = global_thread(); at < n * halves; at += threads_of_grid()) {
    const index_t i = at / halves, half = at % halves, j = component[i];
    const NormalPair eta =
        with_noise ? normal_pair((unsigned long long)key, (unsigned long long)((first_row + i) * halves + half))
                   : NormalPair{0.0, 0.0};
    for (int side = 0; side < 2; ++side) {
      const index_t c = 2 * half + side;
      if (c >= d) continue;
      const double* A = loadings + (j * d + c) * l;
      double x = means[j * d + c];
      for (index_t a = 0; a < l; ++a) x += A[a] * z[i * l + a];
      const double variance = noise[diagonal ? j * d + c : j];
      X[i * d + c] = Real(x + sqrt_(variance) * (side ? eta.second : eta.first));
    }
  }
}
