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
void mixture_epilogue(const Coarse<Real>& coarse, const Mixture& mixture, double* log_prob, unsigned char* keep,
                      int n_threads) {
  parallel_ranges(coarse.n, row_grain(coarse.stride), n_threads, [&](int, index_t begin, index_t end) {
    const Coarse<Real> block = coarse;  // copies, which the marks that are written cannot overlap
    const Mixture q = mixture;
    const index_t k = q.k;
    for (index_t i = begin; i < end; ++i) {
      double* lp = log_prob + i * k;
      double best = -infinity_();
      for (index_t j = 0; j < k; ++j) {
        lp[j] = component_log_prob(block, q, i, j);
        const double sure = lp[j] - coarse_error(block, q, i, j);
        if (sure > best) best = sure;
      }
      for (index_t j = 0; j < k; ++j) {
        keep[i * k + j] = lp[j] + coarse_error(block, q, i, j) >= best - cutoff_nats;
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
void point_distances(const Coarse<Real>& coarse, const Mixture& mixture, double tolerance, double* sq_distances,
                     unsigned char* keep, int n_threads) {
  parallel_ranges(coarse.n, row_grain(coarse.stride), n_threads, [&](int, index_t begin, index_t end) {
    const Coarse<Real> block = coarse;  // copies, which the marks that are written cannot overlap
    const Mixture q = mixture;
    const index_t k = q.k;
    for (index_t i = begin; i < end; ++i) {
      for (index_t j = 0; j < k; ++j) {
        sq_distances[i * k + j] = point_distance(block, q, tolerance, i, j, keep + i * k + j);
      }
    }
  });
}

#define MFAKIT_INSTANTIATE(Real)                                                                     \
  template void center_rows(const Real*, const double*, index_t, index_t, Real*, double*, int);      \
  template void mixture_epilogue(const Coarse<Real>&, const Mixture&, double*, unsigned char*, int); \
  template void point_distances(const Coarse<Real>&, const Mixture&, double, double*, unsigned char*, int);
MFAKIT_INSTANTIATE(float)
MFAKIT_INSTANTIATE(double)

}  // namespace mfakit
