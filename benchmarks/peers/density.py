"""Log-densities, float32 and float64, of the same mixture by others.

torch.distributions, linear_operator and torch-mfa solve by Woodbury's identity in the samples' dtype, in which two
terms of the size of ‖x - μ‖²/σ² cancel; scikit-learn has no factors and takes whole covariances, or diagonal ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from mfakit import MFA, _reference
from mfakit._lazy import lazy
from mfakit.bench import Size, Timed
from mfakit.bench.core import random_mixture

from .comparison import Bound, Checked, Comparison, Side
from .libraries import LINEAR_OPERATOR, SKLEARN, TORCH, TORCH_MFA

Array = NDArray[Any]

# Samples that are checked: spread over all of them.
CHECKED = 32
# torch.distributions forms arrays [n, k, d] and linear_operator [k, d, n]: a call takes as many samples as this many
# values hold, and theirs is timed with the one of these that is fastest for a sample. torch-mfa goes by components.
VALUES = (2**20, 2**22, 2**24)
BY_COMPONENTS = (2**24, 2**27)
# The oracle has dense covariances up to this many features, beyond which it takes half a minute and more.
DENSE = 256


class Inputs:
    """A mixture and its samples, and what the checked ones' log-densities are."""

    def __init__(self, n: int, d: int, k: int, l: int, dtype: Any = np.float32, diagonal: bool = False) -> None:
        self.mfa = random_mixture(Size(n, d, k, l), 0)
        if diagonal:
            noise = np.random.default_rng(1).uniform(0.5e-4, 2e-4, (k, d))
            self.mfa = self.mfa.replace(noise_variance=noise)
        self.X, components = self.mfa.sample(n, rng=1, dtype=dtype)
        some = slice(None, None, max(n // CHECKED, 1))
        self.few, self.components = self.X[some][:CHECKED], components[some][:CHECKED]

    @lazy
    def oracle(self) -> Array:
        """[n checked], nats."""
        mfa = self.mfa
        evaluate = _reference.log_prob if mfa.n_features <= DENSE else projected_log_prob
        return evaluate(self.few.astype(float), mfa.weights, mfa.means, mfa.loadings, mfa.noise_variance)

    @property
    def cancelled(self) -> float:
        """What Woodbury's identity rounds in the samples' dtype, nats: the largest ‖x - μ‖²/2σ², a sum of d terms that
        cancels, times √d roundings.
        """
        noise = np.broadcast_to(self.mfa.noise_variance.reshape(self.mfa.n_components, -1), self.mfa.means.shape)
        residuals = self.few.astype(float) - self.mfa.means[self.components]
        largest = (residuals**2 / noise[self.components]).sum(axis=1).max() / 2
        return float(np.sqrt(self.mfa.n_features) * np.finfo(self.X.dtype).eps / 2 * largest)


def samples_of_a_call(mfa: MFA, n: int, values: int = VALUES[-1]) -> int:
    """Of n, for a library that forms arrays of all samples, components and features."""
    return int(min(n, max(1, values // (mfa.n_components * mfa.n_features))))


def projected_log_prob(X: Array, weights: Array, means: Array, loadings: Array, noise_variance: Array) -> Array:
    """log p(x) [n] where d × d covariances do not fit: float64, and nothing that cancels.

    The whitened residual is split into its part along the left singular vectors of D^-½ A and the rest, whose squared
    lengths are divided by 1 + s² and by 1.
    """
    columns, d = [], X.shape[1]
    for weight, mean, A, noise in zip(weights, means, loadings, noise_variance, strict=True):
        scale = np.sqrt(np.broadcast_to(np.asarray(noise, float), (d,)))
        U, s, _ = np.linalg.svd(A.astype(float) / scale[:, None], full_matrices=False)
        R = (X - mean) / scale
        along = R @ U
        R -= along @ U.T
        distance = (R**2).sum(axis=1) + (along**2 / (1 + s**2)).sum(axis=1)
        log_det = 2 * np.log(scale).sum() + np.log1p(s**2).sum()
        columns.append(np.log(weight) - 0.5 * (distance + log_det + d * _reference.LOG_2PI))
    return np.asarray(logsumexp(columns, axis=0))


def ours(inputs: Inputs, method: str = "auto") -> Side:
    """All samples at once."""
    call = partial(inputs.mfa.log_prob, method=method)
    return Side(Timed(lambda: call(inputs.X)), call(inputs.few))


def torch_distributions(inputs: Inputs, torch: Any) -> Side:
    """MixtureSameFamily of LowRankMultivariateNormal, in pieces that fit memory."""
    mixture = torch_mixture(inputs.mfa, inputs.X.dtype)
    return piecewise(inputs, lambda X: mixture.log_prob(torch.from_numpy(X)).numpy())


def torch_mixture(mfa: MFA, dtype: Any = np.float32, device: str = "cpu") -> Any:
    """The same mixture as torch's MixtureSameFamily of LowRankMultivariateNormal."""
    import torch

    of = torch.distributions
    means, loadings, noise, weights = (torch.from_numpy(a).to(device) for a in parameters(mfa, dtype))
    components = of.LowRankMultivariateNormal(means, loadings, noise, validate_args=False)
    return of.MixtureSameFamily(of.Categorical(weights), components, validate_args=False)


def linear_operator(inputs: Inputs, module: Any) -> Side:
    """LowRankRootAddedDiagLinearOperator: quadratic forms and determinants of all components."""
    import torch

    of = module.operators
    means, loadings, noise, weights = (torch.from_numpy(a) for a in parameters(inputs.mfa, inputs.X.dtype))
    covariance = of.LowRankRootAddedDiagLinearOperator(
        of.LowRankRootLinearOperator(loadings), of.DiagLinearOperator(noise)
    )
    constant = inputs.mfa.n_features * _reference.LOG_2PI

    def log_prob(X: Array) -> Array:
        residuals = (torch.from_numpy(X) - means[:, None]).mT
        distance, log_det = covariance.inv_quad_logdet(residuals, logdet=True, reduce_inv_quad=False)
        joint = weights.log()[:, None] - 0.5 * (distance + log_det[:, None] + constant)
        return np.asarray(torch.logsumexp(joint, dim=0).numpy())

    return piecewise(inputs, log_prob)


def torch_mfa(inputs: Inputs, module: Any) -> Side:
    """Its own class, with our parameters."""
    import torch

    k, d, l = inputs.mfa.loadings.shape
    model = module.MFA(k, d, l)
    means, loadings, noise, weights = (torch.from_numpy(a) for a in parameters(inputs.mfa, inputs.X.dtype))
    model.MU.data, model.A.data = means, loadings
    model.log_D.data, model.PI_logits.data = noise.log(), weights.log()
    return piecewise(inputs, lambda X: model.log_prob(torch.from_numpy(X)).numpy(), BY_COMPONENTS)


def gaussian_mixture(inputs: Inputs, sklearn: Any, covariance: str) -> Side:
    """GaussianMixture with what its own fit would have left; "full" or "diag"."""
    from sklearn.mixture import GaussianMixture

    mfa = inputs.mfa
    model = GaussianMixture(mfa.n_components, covariance_type=covariance)
    model.weights_, model.means_ = mfa.weights, mfa.means.astype(float)
    if covariance == "full":
        model.covariances_ = _reference.covariances(mfa.loadings, mfa.noise_variance)
        identity = np.eye(mfa.n_features)
        model.precisions_cholesky_ = np.stack([
            solve_triangular(np.linalg.cholesky(sigma), identity, lower=True).T for sigma in model.covariances_
        ])  # fmt: skip
    else:
        model.covariances_ = mfa.noise_variance
        model.precisions_cholesky_ = 1 / np.sqrt(mfa.noise_variance)
    return Side(Timed(lambda: model.score_samples(inputs.X)), model.score_samples(inputs.few))


def parameters(mfa: MFA, dtype: Any) -> tuple[Array, Array, Array, Array]:
    """Means, loadings, noise [k, d] and weights."""
    noise = np.broadcast_to(mfa.noise_variance.reshape(mfa.n_components, -1), mfa.means.shape)
    return tuple(np.array(a, dtype) for a in (mfa.means, mfa.loadings, noise, mfa.weights))  # type: ignore[return-value]


def fastest_part(inputs: Inputs, log_prob: Callable[[Array], Array], choices: Sequence[int]) -> int:
    """How many samples of a call take the least time each, the better of two calls."""
    n = len(inputs.X)
    parts = sorted({samples_of_a_call(inputs.mfa, n, values) for values in choices})

    def seconds(m: int) -> float:
        start = time.perf_counter()
        log_prob(inputs.X[:m])
        return (time.perf_counter() - start) / m

    return min(parts, key=lambda m: min(seconds(m), seconds(m))) if len(parts) > 1 else parts[0]


def piecewise(inputs: Inputs, log_prob: Callable[[Array], Array], choices: Sequence[int] = VALUES) -> Side:
    """A library that takes a part of the samples at a time: one part is timed."""
    m = fastest_part(inputs, log_prob, choices)
    part = inputs.X[:m]
    result = np.concatenate([log_prob(inputs.few[i : i + m]) for i in range(0, len(inputs.few), m)])
    whole = m == len(inputs.X)
    return Side(Timed(lambda: log_prob(part), work=m / len(inputs.X)), result, "" if whole else f"{m} samples")


def check(inputs: Inputs, ours: Array, theirs: Array, known: float = 0.0) -> Checked:
    """Largest differences over the checked samples, nats. `known` is a constant in theirs that is subtracted before the
    two are compared, and not before the oracle is. Equal is in units of what may be lost, right of |log p(x)|.
    """
    oracle = inputs.oracle
    size = float(np.abs(oracle).max())

    def apart(a: Array, b: Array) -> float:
        return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max())

    facts = {"largest_nats": size}
    if known:
        facts |= {"known_constant": float(known), "peer_without_it": apart(theirs - known, oracle)}
    unit = inputs.cancelled + size * float(np.finfo(inputs.X.dtype).eps)
    return Checked(apart(theirs - known, ours), apart(ours, oracle), apart(theirs, oracle), facts, unit, size)


def check_torch_mfa(inputs: Inputs, ours: Array, theirs: Array) -> Checked:
    """torch-mfa adds π where log π belongs: with equal weights a constant, 1/k + log k."""
    k = inputs.mfa.n_components
    return check(inputs, ours, theirs, 1 / k + np.log(k))


def doubles(n: int, d: int, k: int, l: int) -> Inputs:
    """In float64."""
    return Inputs(n, d, k, l, np.float64)


def diagonal(n: int, d: int, k: int, l: int) -> Inputs:
    """In float64, with noise of its own for each feature."""
    return Inputs(n, d, k, l, np.float64, diagonal=True)


def unequal(n: int, d: int, k: int, l: int) -> Inputs:
    """Weights in proportion to 1, 2, 3, ..."""
    found = Inputs(n, d, k, l)
    found.mfa = found.mfa.replace(weights=np.arange(1, k + 1) / (k * (k + 1) / 2))
    return found


WOODBURY = Bound(1.0, "√d roundings of the largest ‖x - μ‖²/2σ², which cancels, and one of the result")
WHOLE = Bound(100.0, "as for factors, times the loss in a Cholesky factor of whole covariances of condition 1e5")
EXPANDED = Bound(1e4, "as for factors, but x² and μ² are what cancels, which are (1/3)/σ² times as large as (x - μ)²")
ROUNDED = Bound(2.0**-22, "relative: the result is rounded to float32, and what cancels is float64")
ROUNDED_64 = Bound(1e-10, "relative, float64: the condition of the oracle's covariances is 1e5")
MEASURE = "nats"
FACES, DIGITS = {"n": 1024, "d": 12_288, "k": 100, "l": 10}, {"n": 4096, "d": 784, "k": 50, "l": 6}
SINGLE = {"check": check, "measure": MEASURE, "equal": WOODBURY, "right": ROUNDED}
DOUBLE = {"check": check, "measure": MEASURE, "equal": WOODBURY, "right": ROUNDED_64, "dtype": "float64"}
COMPARISONS = (
    *[
        comparison
        for size in (FACES, DIGITS)
        for comparison in (
            Comparison("log_prob", TORCH, size, Inputs, ours, torch_distributions, **SINGLE),
            Comparison("log_prob, all components", TORCH, size, Inputs, partial(ours, method="dense"),
                       torch_distributions, **SINGLE),
            Comparison("log_prob", LINEAR_OPERATOR, size, Inputs, ours, linear_operator, **SINGLE),
            Comparison("log_prob", TORCH_MFA, size, Inputs, ours, torch_mfa, **{**SINGLE, "check": check_torch_mfa}),
            Comparison("log_prob, float64", TORCH, size, doubles, ours, torch_distributions, **DOUBLE),
        )
    ],
    Comparison("log_prob, unequal weights", TORCH_MFA, DIGITS, unequal, ours, torch_mfa, **SINGLE),
    Comparison("log_prob, whole covariances", SKLEARN, {**DIGITS, "n": 1024, "k": 10}, doubles, ours,
               partial(gaussian_mixture, covariance="full"), **{**DOUBLE, "equal": WHOLE}),
    Comparison("log_prob, diagonal covariances", SKLEARN, {**DIGITS, "l": 0}, diagonal, ours,
               partial(gaussian_mixture, covariance="diag"), **{**DOUBLE, "equal": EXPANDED}),
)  # fmt: skip
