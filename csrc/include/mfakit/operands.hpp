// What operations take, the same for the loops in csrc/cpu and the kernels in csrc/cuda: the structs of
// python/mfakit/backends/operands.py, which says what each array is, with the same fields in the same order, and then
// their sizes. Every field has 8 bytes, so that the host can pack a struct for a kernel without asking its compiler.
//
// n samples, k components, d features, l factors, m pairs sorted by component.
#pragma once

#include "config.hpp"

namespace mfakit {

struct Pairs {
  const index_t* rows;        // [m]
  const index_t* components;  // [m]
  index_t m;
};

struct WeightedPairs {
  const index_t* rows;        // [m]
  const index_t* components;  // [m]
  const double* weights;      // [m]
  const double* latents;      // [m, l]
  index_t m, l;
};

struct Mixture {
  const double* means;       // [k, d]
  const double* whitened;    // [k, l, d]
  const double* latent_map;  // [k, l, l]
  const double* noise;       // [k, 1] or [k, d]
  const double* precision;   // as noise: 1/D
  const double* log_norm;    // [k]
  const double* inv_noise;   // [k]
  const double* shift;       // [k, l]
  const double* mean_norm;   // [k]
  index_t k, l, d, diagonal;

  MFAKIT_HD const double* mean(index_t j) const { return means + j * d; }
  MFAKIT_HD const double* w(index_t j) const { return whitened + j * l * d; }
  MFAKIT_HD const double* z(index_t j) const { return latent_map + j * l * l; }
  MFAKIT_HD const double* variance(index_t j) const { return noise + j * (diagonal ? d : 1); }
  MFAKIT_HD const double* inverse(index_t j) const { return precision + j * (diagonal ? d : 1); }
};

template <class Real>
struct Coarse {
  const Real* products;    // [n, stride], of which the first k (l + 1) columns count
  const Real* quad;        // [n, k], or null for isotropic noise
  const double* sq_norms;  // [n]
  double slack;
  index_t n, stride;
};

template <class Real>
struct Projected {
  const Real* coordinates;  // [n, stride], of which the first r count
  const Real* nearest;      // [n, G]
  const Real* farthest;     // [n, G]
  const Real* errors;       // [n, G]
  index_t n, stride, groups;
};

template <class Real>
struct Projection {
  const Real* means;          // [k, r]
  const Real* scales;         // [k, r]
  const Real* whitened;       // [k, l, r]
  const Real* rest_means;     // [k, G]
  const Real* rest_loadings;  // [k, G]
  const Real* rest_scales;    // [k, G]
  const Real* latent_scale;   // [k]
  const Real* stretch;        // [k]
  const Real* steepness;      // [k, G]
  const Real* offsets;        // [k, G]
  const Real* log_norm;       // [k]
  index_t k, l, r, groups;
};

struct Subspaces {
  const double* shift;  // [k, l]
  const double* norm;   // [k]
  index_t k, l;
};

struct Sums {
  double* x;   // [k, d]
  double* xz;  // [k, l, d]
  double* xx;  // [k, d]
  index_t k, l, d;
};

struct Coordinates {
  const double* gram;       // [C, C]; component j's l rows of U and then its m at j (l + 1)
  const double* offset;     // [C] of those, each column's inner product with its component's m
  const double* variance;   // [K] s2
  const double* gain;       // [K, l] 1/s2 - 1/(S^2 + s2)
  const double* spread;     // [K, l] 1/(S^2 + s2)
  const double* log_const;  // [K] log prior + log weight - 1/2 log det(2 pi Sigma)
  const index_t* first;     // [n_classes + 1] the components of class c are first[c] .. first[c+1] - 1
  index_t n_components, l, n_classes;

  MFAKIT_HD index_t size() const { return n_components * (l + 1); }
  MFAKIT_HD index_t column(index_t j) const { return j * (l + 1); }  // of U_j's first row
  MFAKIT_HD index_t mean_column(index_t j) const { return j * (l + 1) + l; }
  MFAKIT_HD const double* row(index_t i) const { return gram + i * size(); }
};

struct WalkSettings {
  double step_size;
  index_t max_steps;
  index_t frozen;      // keep the source and target of the start
  index_t bisections;  // of the last step, 0 for none
};

struct Points {
  double* a;      // [n, C]
  double* w;      // [n, C]
  double* alpha;  // [n]
  double* sq;     // [n]
  index_t n;
};

struct Parameters {
  const double* means;     // [k, d]
  const double* loadings;  // [k, d, l]
  const double* noise;     // [k, 1] or [k, d]
  index_t k, d, l, diagonal;
};

}  // namespace mfakit
