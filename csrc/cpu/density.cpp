// Coarse step, sums over components and distances to subspaces: row by row.
#include "kernels.hpp"
#include "mfakit/mixture.hpp"
#include "mfakit/subspace.hpp"
#include "parallel.hpp"

namespace mfakit {
namespace {

template <class Real>
MFAKIT_HD void center_body(const Real* X, const double* center, index_t begin, index_t end, index_t d, Real* out,
                           double* sq_norms) {
  for (index_t i = begin; i < end; ++i) {
    const Real* x = X + i * d;
    Real* y = out + i * d;
    double sum = 0.0;
    MFAKIT_SIMD_SUM(sum)
    for (index_t j = 0; j < d; ++j) {
      const Real r = Real(double(x[j]) - center[j]);
      y[j] = r;
      sum += double(r) * double(r);
    }
    sq_norms[i] = sum;
  }
}

MFAKIT_CLONES void center_range(const float* X, const double* center, index_t begin, index_t end, index_t d, float* out,
                                double* sq_norms) {
  center_body(X, center, begin, end, d, out, sq_norms);
}
MFAKIT_CLONES void center_range(const double* X, const double* center, index_t begin, index_t end, index_t d,
                                double* out, double* sq_norms) {
  center_body(X, center, begin, end, d, out, sq_norms);
}

}  // namespace

template <class Real>
void center_rows(const Real* X, const double* center, index_t n, index_t d, Real* out, double* sq_norms,
                 int n_threads) {
  parallel_ranges(n, row_grain(d), n_threads,
                  [=](int, index_t begin, index_t end) { center_range(X, center, begin, end, d, out, sq_norms); });
}

template <class Real>
void mixture_epilogue(const Real* products, const Real* quad, const double* sq_norms, const double* inv_noise,
                      const double* shift, const double* mean_norm, const double* log_norm, double slack, index_t n,
                      index_t k, index_t l, double* log_prob, unsigned char* keep, int n_threads) {
  parallel_ranges(n, row_grain(k * (l + 1)), n_threads, [=](int, index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i) {
      const Real* y = products + i * k * (l + 1);
      double* lp = log_prob + i * k;
      const auto quad_at = [=](index_t j) { return quad ? double(quad[i * k + j]) : sq_norms[i] * inv_noise[j]; };
      double best = -infinity_();
      for (index_t j = 0; j < k; ++j) {
        const double q = quad_at(j);
        lp[j] = component_log_prob(y + j * (l + 1), shift + j * l, l, q, mean_norm[j], log_norm[j]);
        const double sure = lp[j] - slack * (q + mean_norm[j]);
        if (sure > best) best = sure;
      }
      for (index_t j = 0; j < k; ++j) {
        keep[i * k + j] = lp[j] + slack * (quad_at(j) + mean_norm[j]) >= best - cutoff_nats;
      }
    }
  });
}

void log_sum_exp_rows(const double* log_prob, index_t n, index_t k, double* out, int n_threads) {
  parallel_ranges(n, row_grain(4 * k), n_threads, [=](int, index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i) out[i] = log_sum_exp(log_prob + i * k, k);
  });
}

void softmax_rows(const double* log_prob, index_t n, index_t k, double* out, int n_threads) {
  parallel_ranges(n, row_grain(8 * k), n_threads, [=](int, index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i) softmax(Serial(), log_prob + i * k, k, out + i * k);
  });
}

template <class Real>
void point_distances(const Real* products, const double* sq_norms, const double* shift, const double* mean_norm,
                     double slack, double tolerance, index_t n, index_t k, index_t l, double* sq_distances,
                     unsigned char* keep, int n_threads) {
  parallel_ranges(n, row_grain(k * (l + 1)), n_threads, [=](int, index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i) {
      for (index_t j = 0; j < k; ++j) {
        const index_t ij = i * k + j;
        const double size = sq_norms[i] + mean_norm[j];
        sq_distances[ij] = sq_distance_to_subspace(products + ij * (l + 1), shift + j * l, l, size);
        keep[ij] = slack * size > tolerance * sq_distances[ij];
      }
    }
  });
}

#define MFAKIT_INSTANTIATE(Real)                                                                                       \
  template void center_rows(const Real*, const double*, index_t, index_t, Real*, double*, int);                        \
  template void mixture_epilogue(const Real*, const Real*, const double*, const double*, const double*, const double*, \
                                 const double*, double, index_t, index_t, index_t, double*, unsigned char*, int);      \
  template void point_distances(const Real*, const double*, const double*, const double*, double, double, index_t,     \
                                index_t, index_t, double*, unsigned char*, int);
MFAKIT_INSTANTIATE(float)
MFAKIT_INSTANTIATE(double)

}  // namespace mfakit
