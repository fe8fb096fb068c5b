// The loops over the headers, one per operation of the table (python/mfakit/backends/numpy_ops.py says what each
// computes). Plain pointers to contiguous arrays; the caller owns every buffer. n samples, k components, d features, l
// factors, m pairs sorted by component.
#pragma once

#include "mfakit/config.hpp"
#include "mfakit/walk.hpp"

namespace mfakit {

// What the kernels read of a mixture.
struct MixtureView {
  const double* means;     // [k, d]
  const double* whitened;  // [k, l, d]
  const double* noise;     // [k, 1] or [k, d]
  index_t k, l, d;
  bool diagonal;

  const double* mean(index_t j) const { return means + j * d; }
  const double* w(index_t j) const { return whitened + j * l * d; }
  const double* variance(index_t j) const { return noise + j * (diagonal ? d : 1); }
};

struct Pairs {
  const index_t* rows;        // [m]
  const index_t* components;  // [m], sorted
  index_t m;
};

template <class Real>
void center_rows(const Real* X, const double* center, index_t n, index_t d, Real* out, double* sq_norms, int n_threads);

template <class Real>
void mixture_epilogue(const Real* products, const Real* quad /*[n, k] or null*/, const double* sq_norms,
                      const double* inv_noise, const double* shift, const double* mean_norm, const double* log_norm,
                      double slack, index_t n, index_t k, index_t l, double* log_prob, unsigned char* keep,
                      int n_threads);

template <class Real>
void refine(const Real* X, const Pairs& pairs, const MixtureView& mixture, const double* latent_map,
            const double* log_norm, double* log_prob, double* whitened_latent, int n_threads);

void log_sum_exp_rows(const double* log_prob, index_t n, index_t k, double* out, int n_threads);
void softmax_rows(const double* log_prob, index_t n, index_t k, double* out, int n_threads);

template <class Real>
void accumulate_gradient(const Real* X, const Pairs& pairs, const double* weights, const double* whitened_latent,
                         const MixtureView& mixture, Real* out, int n_threads);

template <class Real>
void point_distances(const Real* products, const double* sq_norms, const double* shift, const double* mean_norm,
                     double slack, double tolerance, index_t n, index_t k, index_t l, double* sq_distances,
                     unsigned char* keep, int n_threads);

void pair_distances(const double* products, const double* shift0, const double* norm0, const double* shift1,
                    const double* norm1, index_t k0, index_t l0, index_t k1, index_t l1, double* sq_distances,
                    unsigned char* suspect, int n_threads);

void attack_step(double* X, const double* direction, double step_size, index_t n, index_t d, int n_threads);

// In factor coordinates: a, w [n, C], alpha, sq [n] in and out; reports [n, 5]: end, n_steps, source, target, rival.
void factor_walk(const Coordinates& coordinates, const index_t* y, const WalkSettings& settings, index_t n, double* a,
                 double* w, double* alpha, double* sq, index_t* reports, int n_threads);

template <class Real>
void accumulate_statistics(const Real* X, const Pairs& pairs, const double* weights, const double* latents,
                           const MixtureView& mixture, double* sum_x, double* sum_xz, double* sum_xx, int n_threads);

}  // namespace mfakit
