"""Expectation-maximisation by others: steps of the same EM from the same start, and whole fits by the likelihood that
they reach.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mfakit
from mfakit import MFA, MixtureOfFactorAnalyzers, _reference
from mfakit._lazy import lazy
from mfakit.bench import Size, Timed
from mfakit.bench.core import random_mixture

from .comparison import Bound, Checked, Comparison, Side, quiet
from .density import projected_log_prob
from .libraries import SKLEARN, TORCH_MFA, VAMM

Array = NDArray[Any]

# Steps are timed as the difference of a fit of one more than these and one of one: fits check, and end with an E-step.
STEPS = 2
# Samples whose likelihood is compared with a float64 evaluation.
CHECKED = 200
# Noise floors as good as none, so that no library's own floor plays a part.
NO_FLOOR = 1e-12


def fit(X: Array, start: MFA, steps: int) -> MFA:
    """Ours from a start; tol is so low that no step ends it."""
    noise = "isotropic" if start.is_isotropic else "diagonal"
    est = MixtureOfFactorAnalyzers(
        start.n_components, start.n_factors, noise=noise, init=start, max_iter=steps, tol=0.0, noise_floor=NO_FLOOR,
        progress=False,
    )  # fmt: skip
    with quiet():  # a fit that is stopped warns that it has not converged
        return est.fit(X).mfa_


def ours_by_steps(inputs: Any) -> Side:
    """The mixture after one step, and the time of a step."""
    run = partial(fit, inputs.X, inputs.start)
    return Side(Timed(lambda: run(1 + STEPS), STEPS, lambda: run(1)), run(1))


class Diagonal:
    """Samples of Gaussians with diagonal covariances, float64, and a start among the samples."""

    def __init__(self, n: int, d: int, k: int) -> None:
        rng = np.random.default_rng(0)
        means, scale = 2 * rng.random((k, d)) / np.sqrt(d), rng.uniform(0.5, 2.0, (k, d)) / np.sqrt(d)
        rows = np.arange(n) % k
        self.X = means[rows] + scale[rows] * rng.standard_normal((n, d))
        noise = np.tile(self.X.var(axis=0), (k, 1))
        start = means + 0.5 * scale * rng.standard_normal((k, d))
        self.start = MFA(np.full(k, 1 / k), start, np.zeros((k, d, 0)), noise)

    @lazy
    def oracle(self) -> MFA:
        """A step by dense covariances."""
        parameters = (self.start.weights, self.start.means, self.start.loadings, self.start.noise_variance)
        resp = _reference.responsibilities(self.X, *parameters)
        total = resp.sum(axis=0)
        means = resp.T @ self.X / total[:, None]
        noise = np.stack([r @ (self.X - mean) ** 2 / r.sum() for r, mean in zip(resp.T, means, strict=True)])
        return self.start.replace(weights=total / len(self.X), means=means, noise_variance=noise)


def gaussian_mixture_steps(inputs: Diagonal, sklearn: Any) -> Side:
    """scikit-learn's, from the same start."""
    from sklearn.mixture import GaussianMixture

    start = inputs.start

    def run(steps: int) -> Any:
        return GaussianMixture(
            start.n_components, covariance_type="diag", tol=0.0, reg_covar=0.0, max_iter=steps, init_params="random",
            weights_init=start.weights, means_init=start.means, precisions_init=1 / start.noise_variance,
            random_state=0,
        ).fit(inputs.X)  # fmt: skip

    after = run(1)
    found = start.replace(weights=after.weights_, means=after.means_, noise_variance=after.covariances_)
    return Side(Timed(lambda: run(1 + STEPS), STEPS, lambda: run(1)), found)


def check_parameters(inputs: Diagonal, ours: MFA, theirs: MFA) -> Checked:
    """Weights, means and noise after a step: largest difference, relative to the largest of each."""

    def apart(a: MFA, b: MFA) -> float:
        pairs = ((getattr(a, name), getattr(b, name)) for name in ("weights", "means", "noise_variance"))
        return max(float(np.abs(x - y).max() / np.abs(y).max()) for x, y in pairs)

    return Checked(apart(theirs, ours), apart(ours, inputs.oracle), apart(theirs, inputs.oracle))


class Factors:
    """Samples of a mixture of factor analyzers, and a start with equal weights whose components all have samples:
    torch-mfa divides by 0 where one has none.
    """

    def __init__(self, n: int, d: int, k: int, l: int) -> None:
        self.X = random_mixture(Size(n, d, k, l), 0).sample(n, rng=1, dtype=np.float32)[0]
        with quiet():
            est = MixtureOfFactorAnalyzers(k, l, max_iter=0, random_state=0, progress=False).fit(self.X)
        self.start = est.mfa_.replace(weights=np.full(k, 1 / k))
        self.few = self.X[:: max(n // CHECKED, 1)][:CHECKED].astype(float)

    def log_likelihood(self, mfa: MFA) -> float:
        """Mean over the checked samples in float64, nats."""
        parameters = (mfa.weights, mfa.means, mfa.loadings, mfa.noise_variance)
        return float(projected_log_prob(self.few, *parameters).mean())


def torch_mfa_steps(inputs: Factors, module: Any) -> Side:
    """Its EM, which begins with its own start: that is replaced by ours."""
    import torch

    start, X = inputs.start, torch.from_numpy(inputs.X)
    k, d, l = start.loadings.shape
    single = partial(torch.tensor, dtype=torch.float32)

    class Started(module.MFA):  # type: ignore[misc, name-defined]
        def _init_from_data(self, *arguments: Any, **options: Any) -> None:
            self.MU.data, self.A.data = single(start.means), single(start.loadings)
            self.log_D.data = single(start.noise_variance).log()[:, None].repeat(1, d)

    def run(steps: int) -> MFA:
        model = Started(k, d, l)
        model.fit(X, max_iterations=steps)
        weights = torch.softmax(model.PI_logits.data.double(), dim=0)
        noise = model.log_D.data[:, 0].double().exp()
        return MFA(weights.numpy(), model.MU.data.numpy(), model.A.data.numpy(), noise.numpy())

    return Side(Timed(lambda: run(1 + STEPS), STEPS, lambda: run(1)), (run(1), run(1 + STEPS)))


def ours_both(inputs: Factors) -> Side:
    """After one step and after all."""
    run = partial(fit, inputs.X, inputs.start)
    return Side(Timed(lambda: run(1 + STEPS), STEPS, lambda: run(1)), (run(1), run(1 + STEPS)))


def check_steps(inputs: Factors, ours: tuple[MFA, MFA], theirs: tuple[MFA, MFA]) -> Checked:
    """By how many nats a sample theirs is likelier after all steps; the errors are of the first step, in which the
    start's weights are equal, against the same step in float64 on the readable backend.
    """
    a, b = ([inputs.log_likelihood(mfa) for mfa in side] for side in (ours, theirs))
    with quiet():
        oracle = MixtureOfFactorAnalyzers(
            inputs.start.n_components, inputs.start.n_factors, init=inputs.start, max_iter=1, tol=0.0,
            noise_floor=NO_FLOOR, backend="numpy", progress=False,
        ).fit(inputs.X.astype(float)).mfa_  # fmt: skip
    best = inputs.log_likelihood(oracle)
    facts = {"log_likelihood_nats": {"mfakit": a, "peer": b}, "after_steps": [1, 1 + STEPS]}
    return Checked(max(0.0, b[1] - a[1]), abs(a[0] - best), abs(b[0] - best), facts)


class Analyzer:
    """Samples of one factor analyzer with noise of its own for each feature, float64."""

    def __init__(self, n: int, d: int, l: int) -> None:
        rng = np.random.default_rng(0)
        noise = rng.uniform(0.5, 2.0, (1, d))
        self.X = MFA([1.0], rng.random((1, d)), rng.standard_normal((1, d, l)), noise).sample(n, rng=1)[0].astype(float)
        self.l = l

    def log_likelihood(self, mfa: MFA) -> float:
        """Mean, nats, by the dense covariance."""
        return float(_reference.log_prob(self.X, mfa.weights, mfa.means, mfa.loadings, mfa.noise_variance).mean())


# scikit-learn's tol is of the sum over all samples and ours of the mean. Both end where a step gains less than this.
GAIN = 1e-5


def ours_to_the_end(inputs: Analyzer) -> Side:
    """A fit of its own start."""
    est = MixtureOfFactorAnalyzers(
        1, inputs.l, noise="diagonal", tol=GAIN, max_iter=1000, random_state=0, progress=False
    )
    found = est.fit(inputs.X)
    return Side(Timed(lambda: est.fit(inputs.X)), (found.mfa_, found.lower_bound_, found.n_iter_))


def factor_analysis(inputs: Analyzer, sklearn: Any) -> Side:
    """scikit-learn's FactorAnalysis with its defaults but for the end."""
    from sklearn.decomposition import FactorAnalysis

    est = FactorAnalysis(inputs.l, tol=GAIN * len(inputs.X), max_iter=1000, random_state=0)
    found = est.fit(inputs.X)
    mfa = MFA([1.0], found.mean_[None], found.components_.T[None], found.noise_variance_[None])
    return Side(Timed(lambda: est.fit(inputs.X)), (mfa, float(found.score(inputs.X)), found.n_iter_))


def check_optimum(inputs: Any, ours: Any, theirs: Any) -> Checked:
    """Both maximise the same likelihood; the errors are of what each says its likelihood is."""
    (a, says_a, steps_a), (b, says_b, steps_b) = ours, theirs
    found = {"mfakit": inputs.log_likelihood(a), "peer": inputs.log_likelihood(b)}
    return Checked(
        abs(found["mfakit"] - found["peer"]), abs(says_a - found["mfakit"]), abs(says_b - found["peer"]),
        {"log_likelihood_nats": found, "steps": {"mfakit": int(steps_a), "peer": int(steps_b)}},
    )  # fmt: skip


class Digits:
    """Samples of the shipped model of the digits 0 and 6, with noise of σ = 0.1, float64."""

    def __init__(self, n: int, k: int, l: int) -> None:
        self.k, self.l = k, l
        self.X = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(0.1).sample(n, rng=0, dtype=np.float64)[0]
        self.few = np.ascontiguousarray(self.X[:: max(n // CHECKED, 1)][:CHECKED])

    def log_likelihood(self, mfa: MFA) -> float:
        """Mean over the checked samples, nats."""
        parameters = (mfa.weights, mfa.means, mfa.loadings, mfa.noise_variance)
        return float(projected_log_prob(self.few, *parameters).mean())


# VAMM stops by the relative change of its objective; both do this many steps at most.
MOST_STEPS = 50


def ours_of_digits(inputs: Digits) -> Side:
    """A fit with diagonal noise, as VAMM has it."""
    est = MixtureOfFactorAnalyzers(
        inputs.k, inputs.l, noise="diagonal", max_iter=MOST_STEPS, random_state=0, progress=False
    )
    with quiet():
        found = est.fit(inputs.X)
    score = float(found.score(inputs.few))
    return Side(Timed(quiet()(lambda: est.fit(inputs.X))), (found.mfa_, score, found.n_iter_))


def vamm(inputs: Digits, module: Any) -> Side:
    """With its defaults but for the most steps and the floor of the noise, which is ours."""
    floor = 2e-4 * float(inputs.X.var(axis=0).mean())

    def run() -> Any:
        model = module.Gaussian(C=inputs.k, D=inputs.X.shape[1], H=inputs.l, covariance_type="mfa", reg_covar=floor)
        _, log = model.fit(inputs.X, rng=0, limit=MOST_STEPS, C_prime=min(3, inputs.k), G=min(15, inputs.k))
        return model, int(log["M_step"].sum())

    model, steps = run()
    alive = np.asarray(model.mask, bool)
    weights = np.asarray(model.prior)[alive]
    loadings, noise = np.asarray(model.A)[alive], np.asarray(model.variance)[alive]
    mfa = MFA(weights / weights.sum(), np.asarray(model.means)[alive], loadings, noise)
    return Side(Timed(run), (mfa, -float(model.nll(inputs.few)), steps))


def check_likelier(inputs: Digits, ours: Any, theirs: Any) -> Checked:
    """By how many nats a sample theirs is likelier: two algorithms with starts of their own reach no same optimum."""
    found = check_optimum(inputs, ours, theirs)
    values = found.facts["log_likelihood_nats"]
    return Checked(max(0.0, values["peer"] - values["mfakit"]), found.ours, found.theirs, found.facts)


LIKELY = "log-likelihood, nats a sample"
COMPARISONS = (
    Comparison("EM step, diagonal Gaussians", SKLEARN, {"n": 2000, "d": 784, "k": 10}, Diagonal, ours_by_steps,
               gaussian_mixture_steps, check_parameters, "parameters after a step, relative",
               Bound(1e-8, "float64: scikit-learn's variances are differences of mean squares"),
               Bound(1e-9, "float64, sums of 2,000 terms"), dtype="float64"),
    Comparison("fit of one factor analyzer", SKLEARN, {"n": 2000, "d": 784, "l": 6}, Analyzer, ours_to_the_end,
               factor_analysis, check_optimum, LIKELY,
               Bound(1e-2, "both end where a step gains less than 1e-5 nats a sample, one likelihood, one optimum"),
               Bound(1e-6, "float64: a sum of 784 terms"), dtype="float64"),
    *[
        Comparison("EM step", TORCH_MFA, size, Factors, ours_both, torch_mfa_steps, check_steps, LIKELY,
                   Bound(0.05, "the same step in float32; theirs may be likelier by what rounding adds"),
                   Bound(0.05, "float32 sums against float64 ones"))
        for size in ({"n": 2000, "d": 784, "k": 25, "l": 6}, {"n": 512, "d": 12_288, "k": 8, "l": 10})
    ],
    *[
        Comparison("fit with diagonal noise", VAMM, {"n": 5000, "k": k, "l": 6}, Digits, ours_of_digits, vamm,
                   check_likelier, LIKELY, Bound(1.0, "two algorithms, two starts: theirs is likelier by no more"),
                   Bound(1e-6, "float64: a sum of 784 terms"), dtype="float64", rounds=1, slow=k > 25)
        for k in (25, 400, 1600)
    ],
)  # fmt: skip
