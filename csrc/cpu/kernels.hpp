// The loops over the headers, one per operation of the table (python/mfakit/backends/numpy_ops.py says what each
// computes). Plain pointers to contiguous arrays, and the structs of operands.hpp; the caller owns every buffer. n
// samples, k components, d features, l factors, m pairs sorted by component.
#pragma once

#include <vector>

#include "mfakit/operands.hpp"

namespace mfakit {

// density.cpp

template <class Real>
void center_rows(const Real* X, const double* center, index_t n, index_t d, Real* out, double* sq_norms, int n_threads);

template <class Real>
void mixture_epilogue(const Coarse<Real>& coarse, const Mixture& mixture, double* log_prob, unsigned char* keep,
                      int n_threads);

void log_sum_exp_rows(const double* log_prob, index_t n, index_t k, double* out, int n_threads);
void softmax_rows(const double* log_prob, index_t n, index_t k, double* out, int n_threads);

template <class Real>
void point_distances(const Coarse<Real>& coarse, const Mixture& mixture, double tolerance, double* sq_distances,
                     unsigned char* keep, int n_threads);

// pairs.cpp

template <class Real>
void refine(const Real* X, const Pairs& pairs, const Mixture& mixture, double* log_prob, double* whitened_latent,
            int n_threads);

template <class Real>
void accumulate_gradient(const Real* X, const WeightedPairs& pairs, const Mixture& mixture, Real* out, int n_threads);

template <class Real>
void accumulate_statistics(const Real* X, const WeightedPairs& pairs, const double* means, const Sums& sums,
                           int n_threads);

// prune.cpp

// above [n, k] no component's log-probability exceeds; best [n, count] the components whose bounds are the highest, in
// falling order; count is at most k.
template <class Real>
void bound_components(const Projected<Real>& x, const Projection<Real>& p, Real* above, index_t* best, index_t count,
                      int n_threads);

// Tightens above [n, k] where it is at least threshold [n] and lists what still is: the rows, then the components of
// the pairs, sorted by component.
template <class Real>
std::vector<index_t> survivors(const Projected<Real>& x, const Projection<Real>& p, const double* threshold,
                               Real* above, int n_threads);

// subspace.cpp

void pair_distances(const double* products, const Subspaces& side0, const Subspaces& side1, double* sq_distances,
                    unsigned char* suspect, int n_threads);

// Bounds [k0, k1] of squared distances from products that are off by at most slack of their vectors' lengths.
template <class Real>
void bracket_pairs(const Real* products, const Subspaces& side0, const Subspaces& side1, double slack, double rounding,
                   double* lower, double* upper, int n_threads);

// attack.cpp

void attack_step(double* X, const double* direction, double step_size, index_t n, index_t d, int n_threads);

// reports [n, 5]: end, n_steps, source, target, rival.
void factor_walk(const Coordinates& coordinates, const index_t* y, const WalkSettings& settings, const Points& points,
                 index_t* reports, int n_threads);

}  // namespace mfakit
