"""MixtureOfFactorAnalyzers: the scikit-learn estimator on top of EM and SGD."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from .._arrays.containers import is_dask
from .._arrays.options import Method, Missing
from .._arrays.sharing import careful_products
from .._arrays.streams import opened
from .._checks import as_generator
from .._io.outputs import PathLike
from .._sklearn import become, names_of
from .._threads.process import keeps_errstate
from ..backends import Backend
from ..mixture.mfa import MFA
from .checkpoint import Checkpoint, check_checkpoint, checkpoint_of_start, what_it_is
from .cluster import ClusterSource
from .em import fit_em
from .fitted import FittedMixture
from .noise_floor import lowest_noise
from .observed import ObservedSource
from .parameters import Init, Noise, Solver, TransformTo, check_parameters
from .result import FitResult
from .source import Source
from .starts import new_start, own_start

__all__ = ["MixtureOfFactorAnalyzers"]

Array = NDArray[Any]


class MixtureOfFactorAnalyzers(FittedMixture):
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
    init : {"kmeans", "random"} or MFA
        Groups of a random sample of at most 20,000 rows, by k-means or by the nearest of k random samples along at most
        64 principal directions; each component starts as the truncated PPCA of its group. A mixture of the same shape
        is the start itself.
    means_init : array-like [k, d], optional
        Start with these means instead, and with the groups of rows that are nearest to each.
    weights_init : array-like [k], optional
        Start with these weights; positive, sum 1.
    tol : float
        Stop when the mean log-likelihood rises by less, in nats per sample.
    max_iter : int
        EM steps, or epochs of SGD; 0 keeps the start.
    n_init : int
        Independent starts, of which the one with the highest log-likelihood is kept; a warm start and a mixture as
        `init` are a single one.
    noise_floor : float or None
        No noise variance falls below this share of the data's variance (its mean over features), so that data in other
        units give the same mixture in those units. None: 1e-6 for isotropic and 2e-4 for diagonal noise, see Notes.
    random_state : int, numpy.random.RandomState, numpy.random.Generator or None
        The same seed gives the same bytes of model on the same machine; the global random state is never touched.
    warm_start : bool
        Go on from the last fit's ``mfa_`` instead of a new start.
    transform_to : {"latent", "responsibilities"}
        What :meth:`transform` returns.
    learning_rate : float
        Of Adam, for data of unit scale (the data is standardised inside). Where training diverges or does not improve
        on its start, a ConvergenceWarning says so and the best epoch's mixture is kept; epochs that run out are no
        warning, because SGD is given a number of them.
    batch_size : int
        Rows per step of SGD.
    missing : {"error", "marginal"}
        What NaN is: a mistake, or a feature that is not known. "marginal" fits to what is known of each row by exact EM
        (``mfakit/fit/observed.py``), from a start in which it is the feature's mean, and scores by its density; on the
        host, with solver="em".
    method : {"auto", "dense", "pruned", "residual"}
        How components that cannot matter are found: by the product with all of them, or by bounds from a few
        coordinates (on the host; docs/pruning.md); "auto" counts candidates.
    backend, block_rows, n_threads
        How to compute; see :class:`mfakit._arrays.options.Options`.
    progress : bool or None
        A progress bar; None shows it on a terminal and in notebooks.

    Attributes
    ----------
    mfa_ : MFA
        The fitted mixture, float64; of samples on a device, on that device (:meth:`mfakit.MFA.to`).
    weights_, means_, loadings_, noise_variance_ : [k], [k, d], [k, d, l], [k] or [k, d]
        Its parameters.
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
        noise: Noise = "isotropic",
        solver: Solver = "em",
        init: Init | MFA = "kmeans",
        means_init: Any = None,
        weights_init: Any = None,
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 1,
        noise_floor: float | None = None,
        random_state: Any = None,
        warm_start: bool = False,
        transform_to: TransformTo = "latent",
        learning_rate: float = 1e-2,
        batch_size: int = 256,
        missing: Missing = "error",
        method: Method = "auto",
        backend: Backend = "auto",
        block_rows: int | None = None,
        n_threads: int | None = None,
        progress: bool | None = None,
    ) -> None:
        super().__init__(
            n_components, n_factors, noise=noise, init=init, tol=tol, max_iter=max_iter, n_init=n_init,
            noise_floor=noise_floor, random_state=random_state, backend=backend, block_rows=block_rows,
            n_threads=n_threads, progress=progress,
        )  # fmt: skip
        self.solver = solver
        self.means_init = means_init
        self.weights_init = weights_init
        self.warm_start = warm_start
        self.transform_to = transform_to
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.missing = missing
        self.method = method

    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, checkpoint: PathLike | None = None,
        checkpoint_every: float = 60.0,
    ) -> MixtureOfFactorAnalyzers:  # fmt: skip
        """Fit to the rows of X.

        Parameters
        ----------
        X : array-like, [n, d]
            NumPy array in any layout, memory map, torch tensor, CuPy array, DataFrame or nested sequence; the path of a
            .npy or .safetensors file, whose rows stay there (``data.safetensors::name`` for one of several tensors); or
            a dask array, whose blocks are summed where they are (``mfakit/fit/cluster.py``), by EM and without missing
            values.
        y : ignored
        sample_weight : array-like, [n]
            2 counts a row twice, 0 leaves it out.
        checkpoint : path, optional
            A .safetensors file that EM's state is written to on the way. Where it is there, the fit goes on from it,
            and ends with the same mixture, bit for bit on the same machine with as many threads, as one that was not
            interrupted. It is one fit's: with other data, settings or version it is an error that says what differs;
            `max_iter` alone may be raised. The file stays when the fit is done. Each start of `n_init` has its own.
        checkpoint_every : float
            Seconds between two writes; 0 writes after each step.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            NaN or inf in X (with the first bad row), fewer rows than components, l > d, bad parameters or weights; a
            checkpoint of another fit.
        TypeError
            X that is not real numbers, or sparse; a DataFrame whose columns have names of several types.
        OSError
            A checkpoint that cannot be written.
        """
        check_parameters(self)
        check_checkpoint(checkpoint, checkpoint_every, self.solver)
        X = opened(X)
        kind = self._cluster_source() if is_dask(X) else self._source
        source = kind.from_array(X, sample_weight, self._options())
        names = names_of(self, X)  # before the fit: names of mixed types are refused at once
        become(self, **self._fit(source, checkpoint, checkpoint_every), **names)
        return self

    def fit_blocks(
        self, blocks: Any, *, weighted: bool = False, checkpoint: PathLike | None = None,
        checkpoint_every: float = 60.0,
    ) -> MixtureOfFactorAnalyzers:  # fmt: skip
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
        checkpoint, checkpoint_every
            As of :meth:`fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As :meth:`fit`; also when a later pass yields another number of rows, a block has another width than the
            first, or integers where that has floats, `blocks` can be read only once, or it yields pairs that `weighted`
            does not announce.
        """
        check_parameters(self)
        check_checkpoint(checkpoint, checkpoint_every, self.solver)
        source = self._source.from_blocks(blocks, self._options(), weighted=weighted)
        fitted = self._fit(source, checkpoint, checkpoint_every)
        become(self, **fitted, n_features_in_=source.survey.n_features)
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, then the most likely component [n] of each row."""
        return self.fit(X, y, sample_weight).predict(X)

    @property
    def _source(self) -> type[Source]:
        if self.missing == "error":
            return Source
        if self.solver != "em":
            raise ValueError(f'missing="marginal" is fitted by solver="em", got solver={self.solver!r}')
        return ObservedSource

    def _cluster_source(self) -> type[Source]:
        for name, wanted in (("solver", "em"), ("missing", "error")):
            if getattr(self, name) != wanted:
                raise ValueError(
                    f"X is an array of dask, and {name}={getattr(self, name)!r} fits to arrays on one machine alone; "
                    f"pass X.compute(), or {name}={wanted!r}"
                )
        return ClusterSource

    def _fit(self, source: Source, path: PathLike | None, every: float) -> dict[str, Any]:
        """The fitted attributes; the estimator stays as it is until all is done. `path`: of checkpoints."""
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
        rng = as_generator(self.random_state)
        own = own_start(self, survey.n_features, floor)
        fit = None if path is None else what_it_is(self, source, rng, own)
        starts = (
            self._start(own, source, floor, rng, checkpoint_of_start(path, every, fit, i))
            for i in range(self.n_init if own is None else 1)
        )
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
    def _start(
        self, own: MFA | None, source: Source, floor: float, rng: np.random.Generator, checkpoint: Checkpoint | None
    ) -> FitResult:  # fmt: skip
        """One of the starts, and where it leads; what a checkpoint has of it is not found again."""
        start = own
        if checkpoint is not None and checkpoint.exists:
            checkpoint.restore(rng)
        elif own is None:
            with careful_products():
                start = new_start(self, source, floor, rng)
        if checkpoint is not None:
            checkpoint.random = dict(rng.bit_generator.state)
        common: dict[str, Any] = {
            "floor": floor, "tol": self.tol, "max_iter": self.max_iter, "progress": self.progress
        }  # fmt: skip
        if self.solver == "em":
            return fit_em(start, source, checkpoint=checkpoint, **common)
        from .sgd import fit_sgd

        assert start is not None  # SGD has no checkpoints
        seed = int(rng.integers(2**63 - 1))
        return fit_sgd(start, source, learning_rate=self.learning_rate, batch_size=self.batch_size, seed=seed, **common)


def _device_of(source: Source) -> str | None:
    """Where the first rows are; None: on the host."""
    return next(source.parts())[0].device if source.on_device else None
