// mfakit._native: checks shapes, releases the GIL, calls the loops.
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <utility>

#include "arrays.hpp"
#include "certificates.hpp"
#include "guard.hpp"
#include "kernels.hpp"
#include "parallel.hpp"

namespace py = pybind11;
using mfakit::Array;
using mfakit::Bytes;
using mfakit::dim;
using mfakit::Doubles;
using mfakit::in;
using mfakit::index_t;
using mfakit::Indices;
using mfakit::out;
using mfakit::threads;

namespace {

mfakit::MixtureView mixture(const Doubles& means, const Doubles& whitened, const Doubles& noise) {
  const index_t k = dim(whitened, 0), l = dim(whitened, 1), d = dim(whitened, 2);
  const bool diagonal = dim(noise, 1) != 1 || d == 1;
  return {in(means, {k, d}, "means"), whitened.data(), in(noise, {k, diagonal ? d : 1}, "noise"), k, l, d, diagonal};
}

mfakit::Pairs pairs(const Indices& rows, const Indices& components, index_t n, index_t k) {
  const index_t m = dim(rows, 0);
  return {in(rows, m, n, "rows"), in(components, m, k, "components"), m};
}

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

void factor_walk(const Doubles& gram, const Doubles& variance, const Doubles& gain, const Doubles& spread,
                 const Doubles& log_const, const Indices& first, const Indices& y, double step_size,
                 std::int64_t max_steps, bool frozen, int bisections, Doubles& a, Doubles& w, Doubles& alpha,
                 Doubles& sq, Indices& reports, int n_threads) {
  const auto q = mfakit::coordinates(gram, variance, gain, spread, log_const, first);
  const index_t n = dim(a, 0);
  const index_t* labels = in(y, n, q.n_classes, "y");
  double *pa = out(a, {n, q.size()}, "a"), *pw = out(w, {n, q.size()}, "w");
  double *palpha = out(alpha, {n}, "alpha"), *psq = out(sq, {n}, "sq");
  auto* preports = reinterpret_cast<index_t*>(out(reports, {n, 5}, "reports"));
  py::gil_scoped_release release;
  mfakit::factor_walk(q, labels, {step_size, max_steps, frozen, bisections}, n, pa, pw, palpha, psq, preports,
                      threads(n_threads));
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
  mfakit::define_certify(m);
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
  define(m, "accumulate_statistics", &accumulate_statistics<float>);
  define(m, "accumulate_statistics", &accumulate_statistics<double>);
}
