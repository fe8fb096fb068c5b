// Reads the structs of mfakit/operands.hpp out of the named tuples of operands.py, and checks their shapes.
#pragma once

#include "arrays.hpp"

namespace mfakit::python {

inline Pairs read_pairs(const py::tuple& operand, index_t n, index_t k) {
  Fields fields(operand, 2, "pairs");
  const auto rows = fields.array<std::int64_t>("rows"), components = fields.array<std::int64_t>("components");
  const index_t m = dim(rows, 0);
  return {in(rows, m, n, "rows"), in(components, m, k, "components"), m};
}

inline WeightedPairs read_weighted_pairs(const py::tuple& operand, index_t n, index_t k) {
  Fields fields(operand, 4, "pairs");
  const auto rows = fields.array<std::int64_t>("rows"), components = fields.array<std::int64_t>("components");
  const auto weights = fields.doubles("weights"), latents = fields.doubles("latents");
  const index_t m = dim(rows, 0), l = dim(latents, 1);
  return {in(rows, m, n, "rows"),
          in(components, m, k, "components"),
          in(weights, {m}, "weights"),
          in(latents, {m, l}, "latents"),
          m,
          l};
}

inline Mixture read_mixture(const py::tuple& operand) {
  Fields fields(operand, 9, "mixture");
  const auto means = fields.doubles("means"), whitened = fields.doubles("whitened");
  const index_t k = dim(whitened, 0), l = dim(whitened, 1), d = dim(whitened, 2);
  const auto latent_map = fields.doubles("latent_map"), noise = fields.doubles("noise");
  const bool diagonal = dim(noise, 1) != 1;
  return {in(means, {k, d}, "means"),
          whitened.data(),
          in(latent_map, {k, l, l}, "latent_map"),
          in(noise, {k, diagonal ? d : 1}, "noise"),
          in(fields.doubles("precision"), {k, diagonal ? d : 1}, "precision"),
          in(fields.doubles("log_norm"), {k}, "log_norm"),
          in(fields.doubles("inv_noise"), {k}, "inv_noise"),
          in(fields.doubles("shift"), {k, l}, "shift"),
          in(fields.doubles("mean_norm"), {k}, "mean_norm"),
          k,
          l,
          d,
          diagonal};
}

template <class Real>
Coarse<Real> read_coarse(const py::tuple& operand, const Mixture& mixture) {
  Fields fields(operand, 4, "coarse");
  const auto products = fields.array<Real>("products"), quad = fields.array<Real>("quad");
  const index_t n = dim(products, 0), width = mixture.k * (mixture.l + 1);
  const bool diagonal = dim(quad, 1) != 0;
  const Real* squares = in(quad, {n, diagonal ? mixture.k : 0}, "quad");
  const auto sq_norms = fields.doubles("sq_norms");
  return {in(products, {n, width}, "products"),
          diagonal ? squares : nullptr,
          in(sq_norms, {n}, "sq_norms"),
          fields.number(),
          n,
          width};
}

template <class Real>
Projected<Real> read_projected(const py::tuple& operand, index_t r, index_t groups) {
  Fields fields(operand, 4, "projected");
  const auto coordinates = fields.array<Real>("coordinates");
  const index_t n = dim(coordinates, 0), stride = dim(coordinates, 1);
  if (stride < r) throw std::invalid_argument("projected.coordinates has fewer columns than the projection");
  const auto nearest = fields.array<Real>("nearest"), farthest = fields.array<Real>("farthest");
  return {coordinates.data(),
          in(nearest, {n, groups}, "nearest"),
          in(farthest, {n, groups}, "farthest"),
          in(fields.array<Real>("errors"), {n, groups}, "errors"),
          n,
          stride,
          groups};
}

template <class Real>
Projection<Real> read_projection(const py::tuple& operand) {
  Fields fields(operand, 11, "projection");
  const auto means = fields.array<Real>("means"), scales = fields.array<Real>("scales");
  const auto whitened = fields.array<Real>("whitened"), rest_means = fields.array<Real>("rest_means");
  const index_t k = dim(whitened, 0), l = dim(whitened, 1), r = dim(whitened, 2), groups = dim(rest_means, 1);
  return {in(means, {k, r}, "means"),
          in(scales, {k, r}, "scales"),
          whitened.data(),
          in(rest_means, {k, groups}, "rest_means"),
          in(fields.array<Real>("rest_loadings"), {k, groups}, "rest_loadings"),
          in(fields.array<Real>("rest_scales"), {k, groups}, "rest_scales"),
          in(fields.array<Real>("latent_scale"), {k}, "latent_scale"),
          in(fields.array<Real>("stretch"), {k}, "stretch"),
          in(fields.array<Real>("steepness"), {k, groups}, "steepness"),
          in(fields.array<Real>("offsets"), {k, groups}, "offsets"),
          in(fields.array<Real>("log_norm"), {k}, "log_norm"),
          k,
          l,
          r,
          groups};
}

inline Subspaces read_subspaces(const py::tuple& operand) {
  Fields fields(operand, 2, "side");
  const auto shift = fields.doubles("shift"), norm = fields.doubles("norm");
  const index_t k = dim(shift, 0), l = dim(shift, 1);
  return {shift.data(), in(norm, {k}, "norm"), k, l};
}

inline Sums read_sums(const py::tuple& operand) {
  Fields fields(operand, 3, "sums");
  auto x = fields.doubles("x"), xz = fields.doubles("xz"), xx = fields.doubles("xx");
  const index_t k = dim(xz, 0), l = dim(xz, 1), d = dim(xz, 2);
  return {out(x, {k, d}, "x"), out(xz, {k, l, d}, "xz"), out(xx, {k, d}, "xx"), k, l, d};
}

inline Coordinates read_coordinates(const py::tuple& operand) {
  Fields fields(operand, 7, "coordinates");
  const auto gram = fields.doubles("gram"), offset = fields.doubles("offset"), variance = fields.doubles("variance"),
             gain = fields.doubles("gain");
  const auto spread = fields.doubles("spread"), log_const = fields.doubles("log_const");
  const auto first = fields.array<std::int64_t>("first");
  const index_t k = dim(gain, 0), l = dim(gain, 1), size = k * (l + 1), n_classes = dim(first, 0) - 1;
  const index_t* edges = in(first, n_classes + 1, k + 1, "first");
  for (index_t c = 0; c < n_classes; ++c) {
    if (edges[c] >= edges[c + 1]) throw std::invalid_argument("a class has no components");
  }
  if (n_classes < 2 || edges[0] != 0 || edges[n_classes] != k) throw std::invalid_argument("first is not 0 .. K");
  return {in(gram, {size, size}, "gram"),
          in(offset, {size}, "offset"),
          in(variance, {k}, "variance"),
          gain.data(),
          in(spread, {k, l}, "spread"),
          in(log_const, {k}, "log_const"),
          edges,
          k,
          l,
          n_classes};
}

inline WalkSettings read_walk_settings(const py::tuple& operand) {
  Fields fields(operand, 4, "settings");
  const double step_size = fields.number();
  const index_t max_steps = fields.integer(), frozen = fields.integer(), bisections = fields.integer();
  return {step_size, max_steps, frozen, bisections};
}

inline Points read_points(const py::tuple& operand, index_t columns) {
  Fields fields(operand, 4, "points");
  auto a = fields.doubles("a"), w = fields.doubles("w"), alpha = fields.doubles("alpha"), sq = fields.doubles("sq");
  const index_t n = dim(sq, 0);
  return {out(a, {n, columns}, "a"), out(w, {n, columns}, "w"), out(alpha, {n}, "alpha"), out(sq, {n}, "sq"), n};
}

// Binds the certificates (certify.cpp), whose structs no other operation reads.
void define_certify(py::module_& m);
// The same of duals.cpp.
void define_duals(py::module_& m);

}  // namespace mfakit::python
