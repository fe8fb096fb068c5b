// Searches for multipliers in the d features, one at a time, and their binding; python/mfakit/backends/duals.py says
// what they are and what the structs contain.
#include <pybind11/stl.h>

#include <memory>
#include <vector>

#include "mfakit/crossing.hpp"
#include "mfakit/feature_ascent.hpp"
#include "operands.hpp"
#include "parallel.hpp"

namespace mfakit {
namespace {

// Multiplications after which the interpreter is asked whether it was interrupted: some hundredths of a second.
constexpr double interrupt_steps = 3e8;

MFAKIT_CLONES void set_up_features(const FeatureComponents& c, const FeatureProblem& problem, FeatureDual& L) {
  set_up(c, problem, L);
}

MFAKIT_CLONES bool evaluate_anywhere(FeatureDual& L, FeaturePoint& here) {
  set_lambda(L, here.lambda);
  if (!least_anywhere(L, here)) return false;
  complete(L, here);
  return true;
}

MFAKIT_CLONES bool evaluate_inside(FeatureDual& L, FeatureBox& box, FeaturePoint& here) {
  set_lambda(L, here.lambda);
  if (!least_inside(L, box, here)) return false;
  complete(L, here);
  return true;
}

MFAKIT_CLONES void solve_features(FeatureDual& L, const LowRankFactor& factor, const double* b, double* x) {
  solve(L.P, factor, b, x, L.back);
}

MFAKIT_CLONES void slope_features(FeatureDual& L, index_t i, const double* delta, double* out) {
  dot_rows(L.P.row, L.P.n_rows, delta, L.d, L.P.y);
  slope_of(L, i, delta, L.P.y, L.coefficients, out);
}

MFAKIT_CLONES double curve_features(FeatureDual& L, index_t i, const double* x) {
  dot_rows(L.P.row, L.P.n_rows, x, L.d, L.P.y);
  return curve_along(L, i, x, L.P.y);
}

// What feature_roots.hpp and feature_ascent.hpp ask for; answers Ctrl-C in between.
struct Steps {
  FeatureDual& L;
  FeatureBox* box;
  double work = 0.0;

  bool evaluate(FeaturePoint& here) {
    work += double(L.P.n_rows + 16) * double(L.P.n_rows) * double(L.d) * (box ? 8.0 : 1.0);
    if (work > interrupt_steps) {
      work = 0.0;
      const pybind11::gil_scoped_acquire hold;
      if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
    }
    return box ? evaluate_inside(L, *box, here) : evaluate_anywhere(L, here);
  }
  void solve(const LowRankFactor& factor, const double* b, double* x) { solve_features(L, factor, b, x); }
  void slope(index_t i, const FeaturePoint& here, double* out) { slope_features(L, i, here.delta, out); }
  double curve(index_t i, const double* x) { return curve_features(L, i, x); }
};

// A Lagrangian in memory of its own, with room for searches.
class Search {
 public:
  Search(const FeatureComponents& c, const FeatureProblem& problem, const FeatureBox* box) {
    Arena count{nullptr, 0};
    lay_out(c, problem, box, count);
    memory_.reset(new double[size_t(count.used)]);
    Arena arena{memory_.get(), 0};
    lay_out(c, problem, box, arena);
    set_up_features(c, problem, L);
    for (index_t f = 0; box && f < L.d; ++f) box_.start[f] = 0.0;
    for (index_t f = 0; box && f < L.d; ++f) box_.held[f] = 0;
  }

  FeatureDual L;
  FeaturePoint best, other, here;
  ThetaStep step;
  FeatureBox* box() { return has_box_ ? &box_ : nullptr; }

 private:
  void lay_out(const FeatureComponents& c, const FeatureProblem& problem, const FeatureBox* box, Arena& arena) {
    L.lay_out(c, problem, arena);
    for (FeaturePoint* point : {&best, &other, &here}) L.lay_out(*point, arena);
    step.lay_out(L, arena);
    has_box_ = box != nullptr;
    if (!box) return;
    box_ = *box;
    box_.lay_out(L, arena);
  }

  std::unique_ptr<double[]> memory_;
  FeatureBox box_;
  bool has_box_ = false;
};

MFAKIT_CLONES double crossing_along(const DensityLine& line, const double* tau, index_t n) {
  return first_crossing(line, tau, n);
}

}  // namespace

namespace python {
namespace {

// The operands of a search, which must outlive it.
struct Given {
  std::vector<const double*> whitened;
  std::vector<index_t> factors, classes;
  FeatureComponents components;
  FeatureProblem problem;
  FeatureBox box;
  bool has_box = false;

  Given(const py::tuple& sample, const py::tuple& targets_and_sources, const py::object& limits) {
    read_sample(sample);
    read_problem(targets_and_sources);
    if (limits.is_none()) return;
    has_box = true;
    const auto operand = py::cast<py::tuple>(limits);
    Fields fields(operand, 2, "box");
    box.low = in(fields.doubles("low"), {components.d}, "low");
    box.high = in(fields.doubles("high"), {components.d}, "high");
  }

  Search search() const { return Search(components, problem, has_box ? &box : nullptr); }

 private:
  void read_sample(const py::tuple& operand) {
    Fields fields(operand, 8, "sample");
    const auto inv_noise = fields.doubles("inv_noise");
    const index_t K = dim(inv_noise, 0), d = dim(inv_noise, 1);
    const auto log_const = fields.doubles("log_const"), tilt = fields.doubles("tilt");
    const auto owner = fields.array<std::int64_t>("owner");
    for (const py::handle& of_class : fields.tuple("whitened")) read_whitened(of_class, d);
    if (index_t(whitened.size()) != K) throw std::invalid_argument("whitened must have K matrices in all");
    components = {inv_noise.data(),
                  in(log_const, {K}, "log_const"),
                  in(tilt, {K}, "tilt"),
                  in(owner, K, K, "owner"),
                  whitened.data(),
                  factors.data(),
                  in(fields.doubles("maha"), {K}, "maha"),
                  in(fields.doubles("rounding"), {K}, "rounding"),
                  in(fields.doubles("gradients"), {K, d}, "gradients"),
                  K,
                  d};
  }

  void read_whitened(const py::handle& of_class, index_t d) {
    if (!Doubles::check_(of_class)) throw py::type_error("whitened must be C-contiguous arrays of float64");
    const auto W = py::reinterpret_borrow<Doubles>(of_class);
    const index_t k = dim(W, 0), l = dim(W, 1);
    check(W, {k, l, d}, "whitened");
    for (index_t j = 0; j < k; ++j) {
      whitened.push_back(W.data() + j * l * d);
      factors.push_back(l);
    }
  }

  void read_problem(const py::tuple& operand) {
    Fields fields(operand, 6, "problem");
    const auto targets = fields.array<std::int64_t>("targets");
    const index_t p = dim(targets, 0);
    const double* share = in(fields.doubles("share"), {p}, "share");
    const double offset = fields.number();
    const auto sources = fields.array<std::int64_t>("sources");
    const index_t m = dim(sources, 0);
    if (p < 1 || m < 1) throw std::invalid_argument("a problem needs a target and a source");
    const bool safe = fields.integer() != 0, equal = fields.integer() != 0;
    problem = {in(targets, p, components.K, "targets"),
               share,
               in(sources, m, components.K, "sources"),
               p,
               m,
               offset,
               safe,
               equal,
               nullptr};
    for (index_t i = 0; i < m; ++i) classes.push_back(components.owner[problem.sources[i]]);
    problem.cls = classes.data();
  }
};

py::tuple search_dual(const py::tuple& sample, const py::tuple& problem, const py::object& limits, const Doubles& theta,
                      const py::tuple& how, const py::tuple& found) {
  const Given given(sample, problem, limits);
  const index_t m = given.problem.m, d = given.components.d;
  const double* shares = in(theta, {m}, "theta");
  Fields settings(how, 5, "how");
  const double guess = settings.number(), enough = settings.number(), farthest = settings.number(),
               tolerance = settings.number();
  const bool all = settings.integer() != 0;
  Fields fields(found, 3, "found");
  auto lambdas = fields.doubles("lam"), deltas = fields.doubles("delta"), asides = fields.doubles("aside");
  double *lambda = out(lambdas, {m}, "lam"), *delta = out(deltas, {d}, "delta"), *aside = out(asides, {2, d}, "aside");
  FeatureRoot root;
  bool completed = false;
  {
    const py::gil_scoped_release release;
    Search s = given.search();
    Steps steps{s.L, s.box()};
    const Reach reach{enough, farthest, tolerance};
    root = all ? maximise(steps, s.L, shares, guess, reach, s.best, s.other, s.here, s.step)
               : nearest_on_quadric(steps, s.L, shares, guess, reach, s.best, s.here);
    double tau[2];
    completed = root.found && root.at_pole && steps_aside(steps, s.L, s.best, s.step.z, tau);
    for (index_t i = 0; root.found && i < m; ++i) lambda[i] = s.best.lambda[i];
    for (index_t f = 0; root.found && f < d; ++f) delta[f] = s.best.delta[f];
    for (index_t i = 0; completed && i < 2 * d; ++i) aside[i] = delta[i % d] + tau[i / d] * s.step.z[i % d];
  }
  return py::make_tuple(root.radius, root.found, completed);
}

double highest_in_ball(const py::tuple& sample, const py::tuple& problem, const py::object& limits, double radius,
                       double enough) {
  const Given given(sample, problem, limits);
  if (given.problem.m != 1) throw std::invalid_argument("the highest q is that of one source");
  const py::gil_scoped_release release;
  Search s = given.search();
  Steps steps{s.L, s.box()};
  return highest_within(steps, s.L, radius, enough, s.here);
}

double slope_at(const py::tuple& sample, const py::tuple& problem, const Doubles& theta, const Doubles& delta) {
  const Given given(sample, problem, py::none());
  const index_t d = given.components.d;
  const double *shares = in(theta, {given.problem.m}, "theta"), *at = in(delta, {d}, "delta");
  const py::gil_scoped_release release;
  Search s = given.search();
  for (index_t f = 0; f < d; ++f) s.L.left[f] = 0.0;
  for (index_t i = 0; i < s.L.m; ++i) {
    slope_features(s.L, i, at, s.L.extra);
    for (index_t f = 0; f < d; ++f) s.L.left[f] += shares[i] * s.L.extra[f];
  }
  return sqrt_(dot(s.L.left, s.L.left, d));
}

double crossing(const py::tuple& operand, const Doubles& tau) {
  Fields fields(operand, 6, "line");
  const auto log_prob = fields.doubles("log_prob");
  const index_t K = dim(log_prob, 0);
  const double* slope = in(fields.doubles("slope"), {K}, "slope");
  const double* curve = in(fields.doubles("curve"), {K}, "curve");
  const auto first = fields.array<std::int64_t>("first");
  const index_t n_classes = dim(first, 0) - 1;
  const index_t* edges = in(first, n_classes + 1, K + 1, "first");
  const index_t cls = fields.integer();
  if (cls < 0 || cls >= n_classes) throw std::invalid_argument("cls is out of range");
  const DensityLine line{log_prob.data(), slope, curve, edges, n_classes, cls, fields.number()};
  const index_t n = dim(tau, 0);
  const double* points = in(tau, {n}, "tau");
  const py::gil_scoped_release release;
  return crossing_along(line, points, n);
}

}  // namespace

void define_duals(py::module_& m) {
  m.def("search_dual", &search_dual);
  m.def("highest_in_ball", &highest_in_ball);
  m.def("slope_at", &slope_at);
  m.def("crossing", &crossing);
}

}  // namespace python
}  // namespace mfakit
