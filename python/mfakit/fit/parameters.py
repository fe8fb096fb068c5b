"""The constructors' arguments that estimators share, and checks of them; random generators; free parameters."""

from __future__ import annotations

from typing import Any, Literal, get_args

from sklearn.base import BaseEstimator

from .._arrays.options import Missing
from .._checks import check_choice, check_integers, check_numbers, check_switches
from ..backends import Backend
from ..mixture.mfa import MFA

__all__ = [
    "Init", "ModelParameters", "Noise", "Solver", "TransformTo", "check_parameters", "free_parameters",
]  # fmt: skip

Noise = Literal["isotropic", "diagonal"]
Solver = Literal["em", "sgd"]
Init = Literal["kmeans", "random"]
TransformTo = Literal["latent", "responsibilities"]

CHOICES = {
    "missing": get_args(Missing), "noise": get_args(Noise), "solver": get_args(Solver), "init": get_args(Init),
    "transform_to": get_args(TransformTo),
}  # fmt: skip
COUNTS = {"n_components": 1, "n_factors": 0, "max_iter": 0, "n_init": 1, "batch_size": 1}


class ModelParameters(BaseEstimator):  # type: ignore[misc]
    """What one model is and how it is fitted, kept as scikit-learn asks: unchanged and unchecked until the fit."""

    def __init__(
        self, n_components: Any, n_factors: int, *, noise: Noise, init: Any, tol: float, max_iter: int, n_init: int,
        noise_floor: float | None, random_state: Any, backend: Backend, block_rows: int | None, n_threads: int | None,
        progress: bool | None,
    ) -> None:  # fmt: skip
        self.n_components = n_components
        self.n_factors = n_factors
        self.noise = noise
        self.init = init
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.noise_floor = noise_floor
        self.random_state = random_state
        self.backend = backend
        self.block_rows = block_rows
        self.n_threads = n_threads
        self.progress = progress


def check_parameters(estimator: Any) -> None:
    """Raise ValueError for an argument of the estimator's constructor that is out of range."""
    for name, least in COUNTS.items():
        check_integers({name: getattr(estimator, name)}, least)
    check_numbers({"tol": estimator.tol}, positive=False)
    check_numbers({"learning_rate": estimator.learning_rate}, positive=True)
    if estimator.noise_floor is not None:
        check_numbers({"noise_floor": estimator.noise_floor}, positive=True, also="or None")
    own = isinstance(estimator.init, MFA)
    for name, choices in CHOICES.items():
        if not (own and name == "init"):
            check_choice(name, getattr(estimator, name), choices)
    if own and not (estimator.means_init is None and estimator.weights_init is None):
        raise ValueError("init is a mixture with means and weights of its own; leave means_init and weights_init None")
    check_switches({"warm_start": estimator.warm_start})
    if estimator.progress is not None:
        check_switches({"progress": estimator.progress})


def free_parameters(mfa: MFA) -> int:
    """Free parameters of the components that have weight; a rotation of the factors changes nothing, which takes off
    l (l - 1) / 2 per component.
    """
    (_, d, l), k = mfa.loadings.shape, len(mfa.live)
    noise = 1 if mfa.is_isotropic else d
    return int(k - 1 + k * (d + d * l - l * (l - 1) // 2 + noise))
