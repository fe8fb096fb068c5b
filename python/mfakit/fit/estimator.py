"""MixtureOfFactorAnalyzers: the scikit-learn estimator on top of EM and SGD."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from .._arrays.options import Options
from .._arrays.rows import to_numpy, wrap_like
from .._arrays.sharing import careful_products
from .._checks import check_choice, check_integers, check_numbers
from .._sklearn import become, check_input, names_of
from .._threads.process import keeps_errstate
from ..mixture.mfa import MFA
from .em import FitResult, fit_em
from .initialize import initial_mfa
from .noise_floor import lowest_noise
from .source import Source

__all__ = ["MixtureOfFactorAnalyzers"]

Array = NDArray[Any]
_logger = logging.getLogger("mfakit")

CHOICES = {"noise": ("isotropic", "diagonal"), "solver": ("em", "sgd"), "init": ("kmeans", "random")}


class MixtureOfFactorAnalyzers(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """A mixture of factor analyzers fitted to data: p(x) = Σ_k weight_k N(x; μ_k, A_k A_kᵀ + D_k).

    Parameters
    ----------
    n_components : int
        k.
    n_factors : int
        l, at most d; 0 gives spherical or diagonal Gaussians.
    noise : {"isotropic", "diagonal"}
        One variance per component, or one per component and feature.
    solver : {"em", "sgd"}
        Expectation-maximisation, or Adam on mini-batches (the paper's own training; needs torch).
    init : {"kmeans", "random"}
        Groups of a random sample of at most 20,000 rows, by k-means or by the nearest of k random samples along at most
        64 principal directions; each component starts as the truncated PPCA of its group.
    tol : float
        Stop when the mean log-likelihood rises by less, in nats per sample.
    max_iter : int
        EM steps, or epochs of SGD; 0 keeps the start.
    n_init : int
        Independent starts, of which the one with the highest log-likelihood is kept; a warm start is a single one.
    noise_floor : float or None
        No noise variance falls below this share of the data's variance (its mean over features), so that data in other
        units give the same mixture in those units. None: 1e-6 for isotropic and 2e-4 for diagonal noise, see Notes.
    random_state : int, numpy.random.RandomState, numpy.random.Generator or None
        The same seed gives the same bytes of model on the same machine; the global random state is never touched.
    warm_start : bool
        Go on from the last fit's ``mfa_`` instead of a new start.
    learning_rate : float
        Of Adam, for data of unit scale (the data is standardised inside). Where training diverges or does not improve
        on its start, a ConvergenceWarning says so and the best epoch's mixture is kept; epochs that run out are no
        warning, because SGD is given a number of them.
    batch_size : int
        Rows per step of SGD.
    method : {"auto", "dense", "pruned", "residual"}
        How components that cannot matter are found: by the product with all of them, or by bounds from a few
        coordinates (isotropic noise, on the host; docs/pruning.md); "auto" counts candidates.
    backend, block_rows, n_threads
        How to compute; see :class:`mfakit._arrays.options.Options`.
    progress : bool or None
        A progress bar; None shows it on a terminal only.

    Attributes
    ----------
    mfa_ : MFA
        The fitted mixture, float64; of samples on a device, on that device (:meth:`mfakit.MFA.to`).
    history_ : dict
        "log_likelihood": mean log p(x) in nats before each step, and at last of ``mfa_`` (SGD: of every epoch);
        "candidates", "method": of EM, components per sample that were scored exactly, and what left out the others;
        "events": what was logged on the way, such as re-seeded components.
    converged_ : bool
        Whether `tol` was reached.
    n_iter_ : int
        Steps or epochs made.
    lower_bound_ : float
        Mean log p(x) of the training data under ``mfa_``, nats.
    n_features_in_ : int
        d.
    feature_names_in_ : [d]
        Names of the columns, for a DataFrame with string names.

    Notes
    -----
    Each thread of EM takes a share of the rows, and the process's matrix products run in one thread each. EM never
    lowers the log-likelihood by more than rounding, except where a component without samples is put on a badly
    explained one, as ``history_`` notes. Memory beyond the data is one block of rows, some copies of the model, and the
    sample that fitting starts from.

    Diagonal noise of a feature that hardly varies within a component ends on the floor, and the floor then decides what
    that feature adds to the log-likelihood: with 1e-6, pixels that are black in all training images of a digit cost
    test images 10,000 nats and more. The default of 2e-4 comes within 2% of the best floor's held-out log-likelihood on
    the MNIST digits 0, 3 and 8 and on standardised CelebA faces. Features that do not vary (or, with the default, whose
    variance is below the floor) are counted in a UserWarning; standardise features of different units, because the
    floor is one for all.

    Fitted to CuPy arrays or CUDA tensors, the estimator stays there: :meth:`sample` returns CuPy arrays, and to score
    samples on the host needs ``backend="cuda"`` or ``est.mfa_ = est.mfa_.to("cpu")``.

    References
    ----------
    Richardson & Weiss, A Bayes-Optimal View on Adversarial Examples, JMLR 2021, section 2.1 and appendix B.1.
    Tipping & Bishop, Mixtures of probabilistic principal component analysers, 1999.
    Ghahramani & Hinton, The EM algorithm for mixtures of factor analyzers, 1996.

    Examples
    --------
    >>> import mfakit, numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 5)) + 4 * np.repeat(np.eye(2, 5), 100, axis=0)
    >>> est = mfakit.MixtureOfFactorAnalyzers(n_components=2, n_factors=1, random_state=0).fit(X)
    >>> est.mfa_
    MFA(k=2, d=5, l=1, isotropic noise)
    >>> est.score_samples(X).shape
    (200,)
    """

    mfa_: MFA
    history_: dict[str, Any]
    converged_: bool
    n_iter_: int
    lower_bound_: float
    n_features_in_: int
    feature_names_in_: Array

    def __init__(
        self,
        n_components: int = 1,
        n_factors: int = 1,
        *,
        noise: str = "isotropic",
        solver: str = "em",
        init: str = "kmeans",
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 1,
        noise_floor: float | None = None,
        random_state: Any = None,
        warm_start: bool = False,
        learning_rate: float = 1e-2,
        batch_size: int = 256,
        method: str = "auto",
        backend: str = "auto",
        block_rows: int | None = None,
        n_threads: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self.n_components = n_components
        self.n_factors = n_factors
        self.noise = noise
        self.solver = solver
        self.init = init
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.noise_floor = noise_floor
        self.random_state = random_state
        self.warm_start = warm_start
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.method = method
        self.backend = backend
        self.block_rows = block_rows
        self.n_threads = n_threads
        self.progress = progress

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> MixtureOfFactorAnalyzers:
        """Fit to the rows of X.

        Parameters
        ----------
        X : array-like, [n, d]
            NumPy array in any layout, memory map, torch tensor, CuPy array, DataFrame or nested sequence.
        y : ignored
        sample_weight : array-like, [n]
            2 counts a row twice, 0 leaves it out.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            NaN or inf in X (with the first bad row), fewer rows than components, l > d, bad parameters or weights.
        TypeError
            X that is not real numbers, or sparse; a DataFrame whose columns have names of several types.
        """
        self._check_parameters()
        source = Source.from_array(X, sample_weight, self._options())
        names = names_of(self, X)  # before the fit: names of mixed types are refused at once
        become(self, **self._fit(source), **names)
        return self

    def fit_blocks(self, blocks: Any, *, weighted: bool = False) -> MixtureOfFactorAnalyzers:
        """Fit to rows that come in blocks, of which one is in memory at a time.

        Parameters
        ----------
        blocks : callable or iterable
            A callable that returns a new iterator at each call, or an object that can be iterated again and again. It
            yields blocks [n_i, d], the same ones each time: each EM step is one pass. The rows may come in any sizes;
            the result differs by rounding only.
        weighted : bool
            True: what comes are pairs (block, its sample weights [n_i]). Otherwise a pair is an error, because pairs of
            samples and labels, as data loaders yield them, look the same.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As :meth:`fit`; also when a later pass yields another number of rows, `blocks` can be read only once, or
            it yields pairs that `weighted` does not announce.
        """
        self._check_parameters()
        source = Source.from_blocks(blocks, self._options(), weighted=weighted)
        become(self, **self._fit(source), n_features_in_=source.survey.n_features)
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, then the most likely component [n] of each row."""
        return self.fit(X, y, sample_weight).predict(X)

    def score_samples(self, X: Any) -> Any:
        """log p(x) of each row, [n], nats."""
        return self._checked(X).log_prob(X, **self._how())

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log p(x) of the rows, nats; no rows are a ValueError."""
        return float(np.mean(self._log_prob_of_some(X, "score")))

    def predict(self, X: Any) -> Any:
        """The most likely component of each row, int64 [n]."""
        shares = self._checked(X).responsibilities(X, **self._how())
        return wrap_like(to_numpy(shares).argmax(axis=1), X)

    def predict_proba(self, X: Any) -> Any:
        """p(component | x), [n, k]; rows sum to 1."""
        return self._checked(X).responsibilities(X, **self._how())

    def sample(self, n: int = 1, *, rng: Any = None, dtype: Any = np.float32) -> tuple[Array, Array]:
        """n samples [n, d] and their components [n], where ``mfa_`` is; `rng` None derives one from `random_state`."""
        check_is_fitted(self)
        return self.mfa_.sample(n, rng=self._generator().spawn(1)[0] if rng is None else rng, dtype=dtype)

    def bic(self, X: Any) -> float:
        """Bayesian information criterion on X; lower is better. No rows are a ValueError."""
        rows = self._log_prob_of_some(X, "bic")
        return float(-2.0 * rows.sum() + self._n_parameters() * np.log(len(rows)))

    def aic(self, X: Any) -> float:
        """Akaike information criterion on X; lower is better. No rows are a ValueError."""
        return float(-2.0 * self._log_prob_of_some(X, "aic").sum() + 2.0 * self._n_parameters())

    def _log_prob_of_some(self, X: Any, name: str) -> Array:
        """score_samples, float64 [n], on the host, of at least one row."""
        rows = to_numpy(self.score_samples(X)).astype(np.float64)
        if not len(rows):
            raise ValueError(f"{name} needs at least one sample, got X with 0 rows; pass the samples to be scored")
        return rows

    def _n_parameters(self) -> int:
        """Free parameters of the components that have weight; a rotation of the factors changes nothing, which takes
        off l (l - 1) / 2 per component.
        """
        (_, d, l), k = self.mfa_.loadings.shape, len(self.mfa_.live)
        noise = 1 if self.mfa_.is_isotropic else d
        return int(k - 1 + k * (d + d * l - l * (l - 1) // 2 + noise))

    def _fit(self, source: Source) -> dict[str, Any]:
        """The fitted attributes; the estimator stays as it is until all is done."""
        survey = source.survey
        if self.n_factors > survey.n_features:
            raise ValueError(
                f"n_factors={self.n_factors} must be at most the number of features, {survey.n_features}; lower it"
            )
        if survey.n_rows < self.n_components:
            raise ValueError(
                f"n_components={self.n_components} needs at least as many samples, got {survey.n_rows} rows with a "
                f"positive weight; lower n_components or add data"
            )
        floor = lowest_noise(source, self.noise, self.noise_floor)
        rng = self._generator()
        if self.warm_start and hasattr(self, "mfa_"):
            best = self._solve(self._continued(survey.n_features, floor), source, floor, rng)
        else:
            starts = (self._start(source, floor, rng) for _ in range(self.n_init))
            best = max(starts, key=lambda result: result.lower_bound)
        if best.problem:
            warnings.warn(best.problem, ConvergenceWarning, stacklevel=3)
        return {
            "mfa_": best.mfa.to(_device_of(source) or "cpu"),
            "history_": best.history,
            "converged_": best.converged,
            "n_iter_": best.n_iter,
            "lower_bound_": best.lower_bound,
        }

    @keeps_errstate
    def _start(self, source: Source, floor: float, rng: np.random.Generator) -> FitResult:
        with careful_products():
            start = initial_mfa(
                source,
                self.n_components,
                self.n_factors,
                isotropic=self.noise == "isotropic",
                method=self.init,
                floor=floor,
                rng=rng,
            )
        return self._solve(start, source, floor, rng)

    def _solve(self, start: MFA, source: Source, floor: float, rng: np.random.Generator) -> FitResult:
        common: dict[str, Any] = {
            "floor": floor, "tol": self.tol, "max_iter": self.max_iter, "progress": self.progress
        }  # fmt: skip
        if self.solver == "em":
            return fit_em(start, source, **common)
        from .sgd import fit_sgd

        seed = int(rng.integers(2**63 - 1))
        return fit_sgd(start, source, learning_rate=self.learning_rate, batch_size=self.batch_size, seed=seed, **common)

    def _continued(self, d: int, floor: float) -> MFA:
        """The last fit's mixture, if it is of the shape that is asked for, with its noise at the floor or above."""
        wanted = (self.n_components, d, self.n_factors, self.noise == "isotropic")
        found = (*self.mfa_.loadings.shape, self.mfa_.is_isotropic)
        if wanted != found:
            raise ValueError(
                f"warm_start goes on from {self.mfa_}, but k={wanted[0]}, d={d}, l={wanted[2]}, {self.noise} noise is "
                f"asked for; set warm_start=False"
            )
        last = self.mfa_.to("cpu")  # the samples decide where it computes
        return last.replace(noise_variance=np.maximum(last.noise_variance, floor))

    def _checked(self, X: Any) -> MFA:
        check_input(self, X)
        return self.mfa_

    def _how(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("method", "backend", "block_rows", "n_threads")}

    def _options(self) -> Options:
        return Options(**self._how())

    def _generator(self) -> np.random.Generator:
        state = self.random_state
        if isinstance(state, np.random.RandomState):
            return np.random.default_rng(state.randint(0, 2**32, size=4, dtype=np.uint32))
        try:
            return np.random.default_rng(state)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"random_state must be a non-negative integer, a numpy.random.Generator, RandomState or SeedSequence, "
                f"or None, got {state!r}"
            ) from None

    def _check_parameters(self) -> None:
        for least, names in ((0, ("n_factors", "max_iter")), (1, ("n_components", "n_init", "batch_size"))):
            check_integers({name: getattr(self, name) for name in names}, least)
        check_numbers({"tol": self.tol}, positive=False)
        check_numbers({"learning_rate": self.learning_rate}, positive=True)
        if self.noise_floor is not None:
            check_numbers({"noise_floor": self.noise_floor}, positive=True, also="or None")
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name, known in (("warm_start", False), ("progress", self.progress is None)):
            value = getattr(self, name)
            if not (known or isinstance(value, bool | np.bool_)):
                also = ", or None" if name == "progress" else ""
                raise ValueError(f"{name} must be True or False{also}, got {value!r}")


def _device_of(source: Source) -> str | None:
    """Where the first rows are; None: on the host."""
    return next(source.parts())[0].device if source.on_device else None
