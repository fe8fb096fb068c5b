// mfakit._native: checks shapes, releases the GIL, calls the loops. Arrays are never converted: a wrong dtype or layout
// is a TypeError, since a silent copy of an output would lose it.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "guard.hpp"
#include "kernels.hpp"
#include "parallel.hpp"

namespace py = pybind11;
using mfakit::index_t;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;
using Doubles = Array<double>;
using Bytes = Array<std::uint8_t>;
using Indices = Array<std::int64_t>;
static_assert(sizeof(std::int64_t) == sizeof(index_t));

template <class T>
void check(const Array<T>& a, std::initializer_list<index_t> shape, const char* name) {
  bool same = a.ndim() == py::ssize_t(shape.size());
  py::ssize_t axis = 0;
  for (index_t s : shape) same = same && a.shape(axis++) == s;
  if (same) return;
  std::string text = std::string(name) + " must have shape [";
  for (index_t s : shape) text += std::to_string(s) + " ";
  throw std::invalid_argument(text + "]");
}

template <class T>
const T* in(const Array<T>& a, std::initializer_list<index_t> shape, const char* name) {
  check(a, shape, name);
  return a.data();
}
const index_t* in(const Indices& a, index_t m, index_t limit, const char* name) {
  check(a, {m}, name);
  const auto* values = reinterpret_cast<const index_t*>(a.data());
  for (index_t p = 0; p < m; ++p) {
    if (values[p] < 0 || values[p] >= limit) throw std::invalid_argument(std::string(name) + " is out of range");
  }
  return values;
}
template <class T>
T* out(Array<T>& a, std::initializer_list<index_t> shape, const char* name) {
  check(a, shape, name);
  return a.mutable_data();  // raises for a read-only array
}
template <class T>
index_t dim(const Array<T>& a, int axis) {
  if (a.ndim() <= axis) throw std::invalid_argument("an array has too few dimensions");
  return a.shape(axis);
}

mfakit::MixtureView mixture(const Doubles& means, const Doubles& whitened, const Doubles& noise) {
  const index_t k = dim(whitened, 0), l = dim(whitened, 1), d = dim(whitened, 2);
  const bool diagonal = dim(noise, 1) != 1 || d == 1;
  return {in(means, {k, d}, "means"), whitened.data(), in(noise, {k, diagonal ? d : 1}, "noise"), k, l, d, diagonal};
}

mfakit::Pairs pairs(const Indices& rows, const Indices& components, index_t n, index_t k) {
  const index_t m = dim(rows, 0);
  return {in(rows, m, n, "rows"), in(components, m, k, "components"), m};
}

int threads(int n) { return n < 1 ? 1 : n; }

template <class Real>
void center_rows(const Array<Real>& X, const Doubles& center, Array<Real>& result, Doubles& sq_norms, int n_threads) {
  const index_t n = dim(X, 0), d = dim(X, 1);
  const double* c = in(center, {d}, "center");
  Real* o = out(result, {n, d}, "out");
  double* norms = out(sq_norms, {n}, "sq_norms");
  const Real* x = X.data();
  py::gil_scoped_release release;
  mfakit::center_rows(x, c, n, d, o, norms, threads(n_threads));
}

template <class Real>
void mixture_epilogue(const Array<Real>& products, const std::optional<Array<Real>>& quad, const Doubles& sq_norms,
                      const Doubles& inv_noise, const Doubles& shift, const Doubles& mean_norm, const Doubles& log_norm,
                      double slack, Doubles& log_prob, Bytes& keep, int n_threads) {
  const index_t n = dim(products, 0), k = dim(shift, 0), l = dim(shift, 1);
  const Real* y = in(products, {n, k * (l + 1)}, "products");
  const Real* q = quad ? in(*quad, {n, k}, "quad") : nullptr;
  const double *norms = in(sq_norms, {n}, "sq_norms"), *inv = in(inv_noise, {k}, "inv_noise");
  const double *means = in(mean_norm, {k}, "mean_norm"), *logs = in(log_norm, {k}, "log_norm"), *s = shift.data();
  double* lp = out(log_prob, {n, k}, "log_prob");
  std::uint8_t* kept = out(keep, {n, k}, "keep");
  py::gil_scoped_release release;
  mfakit::mixture_epilogue(y, q, norms, inv, s, means, logs, slack, n, k, l, lp, kept, threads(n_threads));
}

template <class Real>
void refine(const Array<Real>& X, const Indices& rows, const Indices& components, const Doubles& means,
            const Doubles& whitened, const Doubles& latent_map, const Doubles& noise, const Doubles& log_norm,
            Doubles& log_prob, Doubles& whitened_latent, int n_threads) {
  const auto mix = mixture(means, whitened, noise);
  const auto list = pairs(rows, components, dim(X, 0), mix.k);
  const Real* x = in(X, {dim(X, 0), mix.d}, "X");
  const double *map = in(latent_map, {mix.k, mix.l, mix.l}, "latent_map"), *logs = in(log_norm, {mix.k}, "log_norm");
  double *lp = out(log_prob, {list.m}, "log_prob"), *y = out(whitened_latent, {list.m, mix.l}, "whitened_latent");
  py::gil_scoped_release release;
  mfakit::refine(x, list, mix, map, logs, lp, y, threads(n_threads));
}

void log_sum_exp(const Doubles& log_prob, Doubles& result, int n_threads) {
  const index_t n = dim(log_prob, 0), k = dim(log_prob, 1);
  const double* lp = log_prob.data();
  double* o = out(result, {n}, "out");
  py::gil_scoped_release release;
  mfakit::log_sum_exp_rows(lp, n, k, o, threads(n_threads));
}

void softmax(const Doubles& log_prob, Doubles& result, int n_threads) {
  const index_t n = dim(log_prob, 0), k = dim(log_prob, 1);
  const double* lp = log_prob.data();
  double* o = out(result, {n, k}, "out");
  py::gil_scoped_release release;
  mfakit::softmax_rows(lp, n, k, o, threads(n_threads));
}

template <class Real>
void accumulate_gradient(const Array<Real>& X, const Indices& rows, const Indices& components, const Doubles& weights,
                         const Doubles& whitened_latent, const Doubles& means, const Doubles& whitened,
                         const Doubles& noise, Array<Real>& result, int n_threads) {
  const auto mix = mixture(means, whitened, noise);
  const auto list = pairs(rows, components, dim(X, 0), mix.k);
  const Real* x = in(X, {dim(X, 0), mix.d}, "X");
  const double *w = in(weights, {list.m}, "weights"), *y = in(whitened_latent, {list.m, mix.l}, "whitened_latent");
  Real* o = out(result, {dim(X, 0), mix.d}, "out");
  py::gil_scoped_release release;
  mfakit::accumulate_gradient(x, list, w, y, mix, o, threads(n_threads));
}

template <class Real>
void point_distances(const Array<Real>& products, const Doubles& sq_norms, const Doubles& shift,
                     const Doubles& mean_norm, double slack, double tolerance, Doubles& sq_distances, Bytes& keep,
                     int n_threads) {
  const index_t n = dim(products, 0), k = dim(shift, 0), l = dim(shift, 1);
  const Real* y = in(products, {n, k * (l + 1)}, "products");
  const double *norms = in(sq_norms, {n}, "sq_norms"), *means = in(mean_norm, {k}, "mean_norm"), *s = shift.data();
  double* sq = out(sq_distances, {n, k}, "sq_distances");
  std::uint8_t* kept = out(keep, {n, k}, "keep");
  py::gil_scoped_release release;
  mfakit::point_distances(y, norms, s, means, slack, tolerance, n, k, l, sq, kept, threads(n_threads));
}

void pair_distances(const Doubles& products, const Doubles& shift0, const Doubles& norm0, const Doubles& shift1,
                    const Doubles& norm1, Doubles& sq_distances, Bytes& suspect, int n_threads) {
  const index_t k0 = dim(shift0, 0), l0 = dim(shift0, 1), k1 = dim(shift1, 0), l1 = dim(shift1, 1);
  const double* C = in(products, {k0, l0 + 1, k1, l1 + 1}, "products");
  const double *n0 = in(norm0, {k0}, "norm0"), *n1 = in(norm1, {k1}, "norm1");
  const double *s0 = shift0.data(), *s1 = shift1.data();
  double* sq = out(sq_distances, {k0, k1}, "sq_distances");
  std::uint8_t* flags = out(suspect, {k0, k1}, "suspect");
  py::gil_scoped_release release;
  mfakit::pair_distances(C, s0, n0, s1, n1, k0, l0, k1, l1, sq, flags, threads(n_threads));
}

void attack_step(Doubles& X, const Doubles& direction, double step_size, int n_threads) {
  const index_t n = dim(X, 0), d = dim(X, 1);
  const double* g = in(direction, {n, d}, "direction");
  double* x = out(X, {n, d}, "X");
  py::gil_scoped_release release;
  mfakit::attack_step(x, g, step_size, n, d, threads(n_threads));
}

mfakit::Coordinates coordinates(const Doubles& gram, const Doubles& variance, const Doubles& gain,
                                const Doubles& spread, const Doubles& log_const, const Indices& first) {
  const index_t k = dim(gain, 0), l = dim(gain, 1), size = k * (l + 1), n_classes = dim(first, 0) - 1;
  const index_t* edges = in(first, n_classes + 1, k + 1, "first");
  for (index_t c = 0; c < n_classes; ++c) {
    if (edges[c] >= edges[c + 1]) throw std::invalid_argument("a class has no components");
  }
  if (n_classes < 2 || edges[0] != 0 || edges[n_classes] != k) throw std::invalid_argument("first is not 0 .. K");
  return {in(gram, {size, size}, "gram"),
          in(variance, {k}, "variance"),
          gain.data(),
          in(spread, {k, l}, "spread"),
          in(log_const, {k}, "log_const"),
          edges,
          k,
          l,
          n_classes};
}

void factor_walk(const Doubles& gram, const Doubles& variance, const Doubles& gain, const Doubles& spread,
                 const Doubles& log_const, const Indices& first, const Indices& y, double step_size,
                 std::int64_t max_steps, bool frozen, int bisections, Doubles& a, Doubles& w, Doubles& alpha,
                 Doubles& sq, Indices& reports, int n_threads) {
  const auto q = coordinates(gram, variance, gain, spread, log_const, first);
  const index_t n = dim(a, 0);
  const index_t* labels = in(y, n, q.n_classes, "y");
  double *pa = out(a, {n, q.size()}, "a"), *pw = out(w, {n, q.size()}, "w");
  double *palpha = out(alpha, {n}, "alpha"), *psq = out(sq, {n}, "sq");
  auto* preports = reinterpret_cast<index_t*>(out(reports, {n, 5}, "reports"));
  py::gil_scoped_release release;
  mfakit::factor_walk(q, labels, {step_size, max_steps, frozen, bisections}, n, pa, pw, palpha, psq, preports,
                      threads(n_threads));
}

void certify(const Doubles& gram, const Doubles& variance, const Doubles& gain, const Doubles& spread,
             const Doubles& log_const, const Indices& first, const Indices& pair_index, const Indices& pair_rank,
             const Doubles& pair_values, const Doubles& pair_vectors, double pair_units, const Doubles& tilt,
             const Doubles& size, std::int64_t n_features, const Indices& y, const Doubles& a, const Doubles& sq,
             Doubles& alpha, Doubles& w, Doubles& bracket, Indices& reports, int n_threads) {
  const auto q = coordinates(gram, variance, gain, spread, log_const, first);
  const index_t n = dim(a, 0), pairs = dim(pair_rank, 0), width = 2 * q.l;
  check(pair_index, {q.n_components, q.n_components}, "pair_index");
  const auto* index = reinterpret_cast<const index_t*>(pair_index.data());
  for (index_t c = 0, i = 0; i < q.n_components; ++i) {
    while (i >= q.first[c + 1]) ++c;
    for (index_t j = 0; j < q.n_components; ++j) {
      const bool same = j >= q.first[c] && j < q.first[c + 1];
      const index_t at = index[i * q.n_components + j];
      if (!same && (at < 0 || at >= pairs)) throw std::invalid_argument("pair_index is out of range");
    }
  }
  const mfakit::PairTable table{index,
                                in(pair_rank, pairs, width + 1, "pair_rank"),
                                in(pair_values, {pairs, width}, "pair_values"),
                                in(pair_vectors, {pairs, width, width}, "pair_vectors"),
                                n_features,
                                {pair_units, in(tilt, {q.n_components}, "tilt"), in(size, {q.n_components}, "size")}};
  const index_t* labels = in(y, n, q.n_classes, "y");
  const double *pa = in(a, {n, q.size()}, "a"), *psq = in(sq, {n}, "sq");
  double *palpha = out(alpha, {n}, "alpha"), *pw = out(w, {n, q.size()}, "w"), *pb = out(bracket, {n, 2}, "bracket");
  auto* pr = reinterpret_cast<index_t*>(out(reports, {n, 5}, "reports"));
  py::gil_scoped_release release;
  mfakit::certify_rows(q, table, pa, psq, labels, n, palpha, pw, pb, pr, threads(n_threads));
}

template <class Real>
void accumulate_statistics(const Array<Real>& X, const Indices& rows, const Indices& components, const Doubles& weights,
                           const Doubles& latents, const Doubles& means, Doubles& sum_x, Doubles& sum_xz,
                           Doubles& sum_xx, int n_threads) {
  const index_t k = dim(means, 0), d = dim(means, 1), l = dim(latents, 1);
  const auto list = pairs(rows, components, dim(X, 0), k);
  const Real* x = in(X, {dim(X, 0), d}, "X");
  const double *w = in(weights, {list.m}, "weights"), *z = in(latents, {list.m, l}, "latents");
  double *s1 = out(sum_x, {k, d}, "sum_x"), *s2 = out(sum_xz, {k, l, d}, "sum_xz"), *s3 = out(sum_xx, {k, d}, "sum_xx");
  const mfakit::MixtureView mix{means.data(), nullptr, nullptr, k, l, d, false};
  py::gil_scoped_release release;
  mfakit::accumulate_statistics(x, list, w, z, mix, s1, s2, s3, threads(n_threads));
}

template <class F, std::size_t... I>
void define_as_is(py::module_& m, const char* name, F f, std::index_sequence<I...>) {
  m.def(name, f, (static_cast<void>(I), py::arg().noconvert())...);
}

// Binds f under the name of its operation; no argument is ever converted.
template <class... Args>
void define(py::module_& m, const char* name, void (*f)(Args...)) {
  define_as_is(m, name, f, std::make_index_sequence<sizeof...(Args)>{});
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "C++ kernels of mfakit; the operations are described in mfakit.backends.numpy_ops.";
  mfakit::serial_after_fork();
#ifdef MFAKIT_HAVE_OPENMP
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
  m.attr("compiler") = __VERSION__;
  m.def("openmp_threads", &mfakit::default_openmp_threads);
  mfakit::define_guard(m);
  define(m, "center_rows", &center_rows<float>);
  define(m, "center_rows", &center_rows<double>);
  define(m, "mixture_epilogue", &mixture_epilogue<float>);
  define(m, "mixture_epilogue", &mixture_epilogue<double>);
  define(m, "refine", &refine<float>);
  define(m, "refine", &refine<double>);
  define(m, "log_sum_exp", &log_sum_exp);
  define(m, "softmax", &softmax);
  define(m, "accumulate_gradient", &accumulate_gradient<float>);
  define(m, "accumulate_gradient", &accumulate_gradient<double>);
  define(m, "point_distances", &point_distances<float>);
  define(m, "point_distances", &point_distances<double>);
  define(m, "pair_distances", &pair_distances);
  define(m, "attack_step", &attack_step);
  define(m, "factor_walk", &factor_walk);
  define(m, "certify", &certify);
  define(m, "accumulate_statistics", &accumulate_statistics<float>);
  define(m, "accumulate_statistics", &accumulate_statistics<double>);
}
