// mfakit._native: reads what it is given (operands.hpp), releases the GIL, calls the loops.
#include <utility>
#include <vector>

#include "guard.hpp"
#include "kernels.hpp"
#include "operands.hpp"
#include "parallel.hpp"

namespace mfakit::python {
namespace {

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

void mixture_epilogue(const py::tuple& coarse, const py::tuple& mixture, Doubles& log_prob, Bytes& keep,
                      int n_threads) {
  const Mixture mix = read_mixture(mixture);
  with_real(coarse, [&](auto real) {
    const auto block = read_coarse<decltype(real)>(coarse, mix);
    double* lp = out(log_prob, {block.n, mix.k}, "log_prob");
    std::uint8_t* kept = out(keep, {block.n, mix.k}, "keep");
    py::gil_scoped_release release;
    mfakit::mixture_epilogue(block, mix, lp, kept, threads(n_threads));
  });
}

template <class Real>
void refine(const Array<Real>& X, const py::tuple& pairs, const py::tuple& mixture, Doubles& log_prob,
            Doubles& whitened_latent, int n_threads) {
  const Mixture mix = read_mixture(mixture);
  const Pairs list = read_pairs(pairs, dim(X, 0), mix.k);
  const Real* x = in(X, {dim(X, 0), mix.d}, "X");
  double *lp = out(log_prob, {list.m}, "log_prob"), *y = out(whitened_latent, {list.m, mix.l}, "whitened_latent");
  py::gil_scoped_release release;
  mfakit::refine(x, list, mix, lp, y, threads(n_threads));
}

void log_sum_exp(const Doubles& log_prob, Doubles& result, int n_threads) {
  const index_t n = dim(log_prob, 0), k = dim(log_prob, 1);
  const double* lp = log_prob.data();
  double* o = out(result, {n}, "out");
  py::gil_scoped_release release;
  log_sum_exp_rows(lp, n, k, o, threads(n_threads));
}

void softmax(const Doubles& log_prob, Doubles& result, int n_threads) {
  const index_t n = dim(log_prob, 0), k = dim(log_prob, 1);
  const double* lp = log_prob.data();
  double* o = out(result, {n, k}, "out");
  py::gil_scoped_release release;
  softmax_rows(lp, n, k, o, threads(n_threads));
}

template <class Real>
void accumulate_gradient(const Array<Real>& X, const py::tuple& pairs, const py::tuple& mixture, Array<Real>& result,
                         int n_threads) {
  const Mixture mix = read_mixture(mixture);
  const WeightedPairs list = read_weighted_pairs(pairs, dim(X, 0), mix.k);
  if (list.l != mix.l) throw std::invalid_argument("latents must have as many columns as the mixture has factors");
  const Real* x = in(X, {dim(X, 0), mix.d}, "X");
  Real* o = out(result, {dim(X, 0), mix.d}, "out");
  py::gil_scoped_release release;
  mfakit::accumulate_gradient(x, list, mix, o, threads(n_threads));
}

void point_distances(const py::tuple& coarse, const py::tuple& mixture, double tolerance, Doubles& sq_distances,
                     Bytes& keep, int n_threads) {
  const Mixture mix = read_mixture(mixture);
  with_real(coarse, [&](auto real) {
    const auto block = read_coarse<decltype(real)>(coarse, mix);
    double* sq = out(sq_distances, {block.n, mix.k}, "sq_distances");
    std::uint8_t* kept = out(keep, {block.n, mix.k}, "keep");
    py::gil_scoped_release release;
    mfakit::point_distances(block, mix, tolerance, sq, kept, threads(n_threads));
  });
}

void bound_components(const py::tuple& projected, const py::tuple& projection, const py::array& above, Indices& best,
                      int n_threads) {
  with_real(projected, [&](auto real) {
    using Real = decltype(real);
    const auto p = read_projection<Real>(projection);
    const auto x = read_projected<Real>(projected, p.r, p.groups);
    auto bounds = real_array<Real>(above, "above");
    Real* values = out(bounds, {x.n, p.k}, "above");
    const index_t count = dim(best, 1);
    auto* top = reinterpret_cast<index_t*>(out(best, {x.n, count}, "best"));
    if (count > p.k) throw std::invalid_argument("best must have at most as many columns as there are components");
    py::gil_scoped_release release;
    mfakit::bound_components(x, p, values, top, count, threads(n_threads));
  });
}

py::tuple survivors(const py::tuple& projected, const py::tuple& projection, const Doubles& threshold,
                    const py::array& above, int n_threads) {
  std::vector<index_t> pairs;
  with_real(projected, [&](auto real) {
    using Real = decltype(real);
    const auto p = read_projection<Real>(projection);
    const auto x = read_projected<Real>(projected, p.r, p.groups);
    auto bounds = real_array<Real>(above, "above");
    Real* values = out(bounds, {x.n, p.k}, "above");
    const double* least = in(threshold, {x.n}, "threshold");
    py::gil_scoped_release release;
    pairs = mfakit::survivors(x, p, least, values, threads(n_threads));
  });
  const auto m = py::ssize_t(pairs.size() / 2);
  const auto* values = reinterpret_cast<const std::int64_t*>(pairs.data());
  return py::make_tuple(Indices(m, values), Indices(m, values + m));
}

void pair_distances(const Doubles& products, const py::tuple& side0, const py::tuple& side1, Doubles& sq_distances,
                    Bytes& suspect, int n_threads) {
  const Subspaces s0 = read_subspaces(side0), s1 = read_subspaces(side1);
  const double* C = in(products, {s0.k, s0.l + 1, s1.k, s1.l + 1}, "products");
  double* sq = out(sq_distances, {s0.k, s1.k}, "sq_distances");
  std::uint8_t* flags = out(suspect, {s0.k, s1.k}, "suspect");
  py::gil_scoped_release release;
  mfakit::pair_distances(C, s0, s1, sq, flags, threads(n_threads));
}

void bracket_pairs(const py::array& products, const py::tuple& side0, const py::tuple& side1, double slack,
                   double rounding, Doubles& lower, Doubles& upper, int n_threads) {
  const Subspaces s0 = read_subspaces(side0), s1 = read_subspaces(side1);
  with_real(py::make_tuple(products), [&](auto real) {
    using Real = decltype(real);
    const auto values = real_array<Real>(products, "products");
    const Real* C = in(values, {s0.k, s0.l + 1, s1.k, s1.l + 1}, "products");
    double *low = out(lower, {s0.k, s1.k}, "lower"), *high = out(upper, {s0.k, s1.k}, "upper");
    py::gil_scoped_release release;
    mfakit::bracket_pairs(C, s0, s1, slack, rounding, low, high, threads(n_threads));
  });
}

void attack_step(Doubles& X, const Doubles& direction, double step_size, int n_threads) {
  const index_t n = dim(X, 0), d = dim(X, 1);
  const double* g = in(direction, {n, d}, "direction");
  double* x = out(X, {n, d}, "X");
  py::gil_scoped_release release;
  mfakit::attack_step(x, g, step_size, n, d, threads(n_threads));
}

void factor_walk(const py::tuple& coordinates, const Indices& y, const py::tuple& settings, const py::tuple& points,
                 Indices& reports, int n_threads) {
  const Coordinates q = read_coordinates(coordinates);
  const Points moved = read_points(points, q.size());
  const index_t* labels = in(y, moved.n, q.n_classes, "y");
  const WalkSettings how = read_walk_settings(settings);
  auto* ends = reinterpret_cast<index_t*>(out(reports, {moved.n, 5}, "reports"));
  py::gil_scoped_release release;
  mfakit::factor_walk(q, labels, how, moved, ends, threads(n_threads));
}

template <class Real>
void accumulate_statistics(const Array<Real>& X, const py::tuple& pairs, const Doubles& means, const py::tuple& sums,
                           int n_threads) {
  const Sums totals = read_sums(sums);
  const WeightedPairs list = read_weighted_pairs(pairs, dim(X, 0), totals.k);
  if (list.l != totals.l) throw std::invalid_argument("latents must have as many columns as sums.xz has rows");
  const double* centers = in(means, {totals.k, totals.d}, "means");
  const Real* x = in(X, {dim(X, 0), totals.d}, "X");
  py::gil_scoped_release release;
  mfakit::accumulate_statistics(x, list, centers, totals, threads(n_threads));
}

template <class F, std::size_t... I>
void define_as_is(py::module_& m, const char* name, F f, std::index_sequence<I...>) {
  m.def(name, f, (static_cast<void>(I), py::arg().noconvert())...);
}

// Binds f under the name of its operation; no argument is ever converted.
template <class Result, class... Args>
void define(py::module_& m, const char* name, Result (*f)(Args...)) {
  define_as_is(m, name, f, std::make_index_sequence<sizeof...(Args)>{});
}

}  // namespace
}  // namespace mfakit::python

PYBIND11_MODULE(_native, m) {
  using namespace mfakit::python;
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
  define(m, "mixture_epilogue", &mixture_epilogue);
  define(m, "refine", &refine<float>);
  define(m, "refine", &refine<double>);
  define(m, "log_sum_exp", &log_sum_exp);
  define(m, "softmax", &softmax);
  define(m, "accumulate_gradient", &accumulate_gradient<float>);
  define(m, "accumulate_gradient", &accumulate_gradient<double>);
  define(m, "point_distances", &point_distances);
  define(m, "bound_components", &bound_components);
  define(m, "survivors", &survivors);
  define(m, "pair_distances", &pair_distances);
  define(m, "bracket_pairs", &bracket_pairs);
  define(m, "attack_step", &attack_step);
  define(m, "factor_walk", &factor_walk);
  define_certify(m);
  define_duals(m);
  define(m, "accumulate_statistics", &accumulate_statistics<float>);
  define(m, "accumulate_statistics", &accumulate_statistics<double>);
}
