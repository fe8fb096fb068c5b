"""BayesClassifier: the optimal classifier of classes whose densities are known mixtures, and its two variants."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._arrays.lazy_rows import by_blocks
from .._arrays.options import Options, no_out
from .._arrays.rows import RowBlocks, array_module, as_labels, on_device_of, returned, to_numpy
from .._arrays.streams import streamed
from .._io.html import card
from .._io.messages import one_line
from .._io.tensor_files import read_tensors, write_tensors
from .._threads.process import errstate
from ..mixture import sampling
from ..mixture.marginals import fill_classes, takes_gaps
from ..mixture.mfa import MFA, common_device
from .parameters import as_priors, checked_extras, checked_metadata
from .posterior import log_odds, log_proba
from .variants import asymmetric_mixtures, rescaled_parts, symmetric_mixtures

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Unpack

    from .._arrays.options import ArrayOptions, Missing, RunOptions
    from ..mixture.evaluator import Evaluator
    from .parameters import Parts

__all__ = ["BayesClassifier"]

Array = Any  # NumPy's or, on a device, CuPy's

# What a file of a Bayes classifier calls itself.
KIND = "bayes-classifier"


class BayesClassifier:
    """The Bayes-optimal classifier of two or more classes with densities p_c: argmax_c log prior_c + log p_c(x).

    Parameters
    ----------
    mixtures : sequence of MFA
        One density per class, over the same features; class labels are 0, 1, ...
    priors : array-like [C] or None
        Class probabilities; None is uniform.
    extras : mapping of str to array, optional
        What is stored beside the model, such as what :meth:`with_outlier_step` adds for :meth:`asymmetric`.
    metadata : mapping, optional
        What JSON can hold, stored as well: where the model comes from.

    Raises
    ------
    TypeError, ValueError
        For anything that is not a mixture, fewer than two classes, other widths, mixtures on different devices, priors
        that are no distribution.

    References
    ----------
    Richardson & Weiss 2021, section 2.1.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.1) for m in (-1.0, 1.0)]
    >>> mfakit.BayesClassifier(mixtures).predict(np.array([[-0.3, 5.0], [0.2, 0.0]]))
    array([0, 1])
    """

    def __init__(
        self,
        mixtures: Sequence[MFA],
        priors: ArrayLike | None = None,
        *,
        extras: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(mixtures, MFA) or not isinstance(mixtures, Iterable):
            raise TypeError(f"mixtures must be a sequence of MFA objects, one a class, got a {type(mixtures).__name__}")
        mixtures = tuple(mixtures)
        if len(mixtures) < 2:
            raise ValueError(f"a classifier needs at least two mixtures, got {len(mixtures)}")
        if not all(isinstance(m, MFA) for m in mixtures):
            raise TypeError("mixtures must be MFA objects; a fitted estimator has one in its mfa_ attribute")
        widths = [m.n_features for m in mixtures]
        if len(set(widths)) > 1:
            raise ValueError(f"the mixtures must have the same number of features, got {widths}")
        common_device({f"mixtures[{c}]": m for c, m in enumerate(mixtures)})
        self._mixtures = mixtures
        self._priors = as_priors(priors, len(mixtures))
        self._extras = checked_extras(extras, widths[0])
        self._metadata = checked_metadata(metadata)
        self._coordinates: Any = None  # of mfakit.attacks.coordinates, computed on first use

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_coordinates": None}

    def __dask_tokenize__(self) -> tuple[str, Any]:
        """A name for dask that the contents decide."""
        from dask.base import normalize_token

        return "mfakit.BayesClassifier", normalize_token(self.__getstate__())

    @property
    def mixtures(self) -> tuple[MFA, ...]:
        """The class densities."""
        return self._mixtures

    @property
    def priors(self) -> Array:
        """Class probabilities, float64 [C]."""
        return self._priors

    @property
    def extras(self) -> dict[str, Array]:
        """Arrays that are stored beside the model."""
        return dict(self._extras)

    @property
    def metadata(self) -> dict[str, Any]:
        """What JSON can hold and is stored beside the model; a copy."""
        return checked_metadata(self._metadata)

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self._mixtures)

    @property
    def n_features(self) -> int:
        """d."""
        return self._mixtures[0].n_features

    @property
    def classes_(self) -> Array:
        """The labels 0 .. C - 1."""
        return np.arange(self.n_classes)

    def __repr__(self) -> str:
        return f"BayesClassifier({', '.join(map(repr, self._mixtures))})"

    def _repr_html_(self) -> str:
        rows = ((f"class {c}, prior {self._priors[c]:.4g}", repr(m)) for c, m in enumerate(self._mixtures))
        return card("BayesClassifier", rows)

    @streamed
    @by_blocks
    def class_log_prob(self, X: Any, *, missing: Missing = "error", **options: Unpack[ArrayOptions]) -> Array:
        """log prior_c + log p_c(x), float64 [n, C], nats, whatever X's dtype: differences reach 1e5 nats. A NumPy
        array, or a CuPy array for samples on a device. With ``missing="marginal"`` NaN is a feature that is not known,
        and the densities are those of the others: :func:`mfakit.mixture.marginals.log_prob`.
        """
        return self._joint(X, missing, options)[0]

    def _joint(self, X: Any, missing: Missing, options: ArrayOptions) -> tuple[Array, float]:
        """:meth:`class_log_prob`, and a bound on the log-densities of the classes that matter, in nats and without
        their signs.
        """
        from ..mixture.density import Filling, each_block

        rows = RowBlocks(X, self.n_features)
        opts = Options(**options)
        for mixture in self._mixtures:
            mixture.check_device(rows.device, opts.backend)
        joint = opts.result((len(rows), self.n_classes), np.float64, rows)
        with errstate(divide="ignore"):
            log_priors = np.log(self._priors)
        if takes_gaps(missing):
            fill_classes(self._mixtures, rows, opts, joint)
            with on_device_of(joint):
                joint += array_module(joint).asarray(log_priors)
            return joint, np.inf
        largest = [0.0]  # of blocks and classes; threads append to it

        # Blocks outside, classes inside: X is read once, and only one block of it is ever converted.
        def fill(evaluator: Evaluator, block: Array, first: int, part: Array) -> None:
            shared = evaluator.project(block, first, rows.name)  # once for all classes, where components are bounded
            siblings = [evaluator.sibling(mixture.factors) for mixture in self._mixtures]
            for c, (its, scores) in enumerate(evaluator.of_classes(siblings, shared, first, rows.name)):
                part[:, c] = its.total(scores) + log_priors[c]
                largest.append(its.largest_log_prob())

        each_block(rows, [m.factors for m in self._mixtures], opts, Filling(fill, joint))
        return joint, max(largest) - float(log_priors[self._priors > 0].min())

    def _relative_joint(self, X: Any, *, missing: Missing = "error", **options: Unpack[ArrayOptions]) -> Array:
        """class_log_prob, less a number for each sample that is too far away to tell its classes apart by it."""
        from .decisions import FAR_NATS, settle

        joint, largest = self._joint(X, missing, options)
        if not largest < FAR_NATS:
            with on_device_of(joint):
                settle(joint, self, X)
        return joint

    def _from_joint(
        self, X: Any, missing: Missing, options: ArrayOptions, tail: tuple[int, ...],
        compute: Callable[[Any], Any] | None,
    ) -> Any:  # fmt: skip
        """What `compute` makes of log prior_c p_c(x) less a number for each sample (None: those themselves),
        [n, *tail], in X's dtype and container, or in ``out``.
        """
        rows, opts = RowBlocks(X, self.n_features), Options(**options)
        out = None if opts.out is None else opts.result((len(rows), *tail), rows.dtype, rows)
        score = self.class_log_prob if compute is None else self._relative_joint
        how: ArrayOptions = {**options, "out": None}
        joint = score(X, missing=missing, **how)
        with on_device_of(joint), errstate(under="ignore", over="ignore"):
            values = (joint if compute is None else compute(joint)).astype(rows.dtype)
            if out is not None:
                out[...] = values
            return returned(values if out is None else out, X, opts.out)

    @overload
    def decision_function(
        self, X: NDArray[Any], *, missing: Missing = ..., **options: Unpack[RunOptions]
    ) -> NDArray[Any]: ...
    @overload
    def decision_function(self, X: Tensor, *, missing: Missing = ..., **options: Unpack[RunOptions]) -> Tensor: ...
    @overload
    def decision_function(self, X: Any, *, missing: Missing = ..., **options: Unpack[ArrayOptions]) -> Any: ...
    @streamed
    @by_blocks
    def decision_function(self, X: Any, *, missing: Missing = "error", **options: Unpack[ArrayOptions]) -> Any:
        """Log-odds: two classes [n], log π₁p₁ - log π₀p₀; more classes [n, C], log π_c p_c. Nats, in X's dtype.

        Of two classes, also far samples have the right sign and size: where the log-densities round by more than the
        classes differ by, their difference is computed component by component. More classes have the log-densities
        themselves.

        Parameters
        ----------
        X : array-like, [n, d]
        missing : {"error", "marginal"}
            What NaN is; see :meth:`class_log_prob`.
        **options
            See :class:`mfakit._arrays.options.Options`.

        Raises
        ------
        ValueError, TypeError
            As :func:`mfakit.mixture.density.log_prob`.
        """
        two = self.n_classes == 2
        tail = () if two else (self.n_classes,)
        return self._from_joint(X, missing, options, tail, log_odds if two else None)

    @overload
    def decision_gradient(self, X: NDArray[Any], **options: Unpack[RunOptions]) -> NDArray[Any]: ...
    @overload
    def decision_gradient(self, X: Tensor, **options: Unpack[RunOptions]) -> Tensor: ...
    @overload
    def decision_gradient(self, X: Any, **options: Unpack[ArrayOptions]) -> Any: ...
    @streamed
    @by_blocks
    def decision_gradient(self, X: Any, **options: Unpack[ArrayOptions]) -> Any:
        """Gradient of :meth:`decision_function`: [n, d] for two classes, [n, C, d] for more, in X's dtype; right
        to the rounding of a class's own gradient.
        """
        from ..mixture.density import Filling, each_block

        rows, opts, two = RowBlocks(X, self.n_features), Options(**options), self.n_classes == 2
        for mixture in self._mixtures:
            mixture.check_device(rows.device, opts.backend)
        shape = (len(rows), self.n_features) if two else (len(rows), self.n_classes, self.n_features)
        out = opts.result(shape, rows.dtype, rows)

        # By blocks, so that beside the result no more than a block of another class's gradient is held.
        def fill(evaluator: Evaluator, block: Array, first: int, part: Array) -> None:
            other = evaluator.xp.empty(part.shape, part.dtype) if two else None
            shared = evaluator.project(block, first, rows.name)
            siblings = [evaluator.sibling(mixture.factors) for mixture in self._mixtures]
            for c, (its, scores) in enumerate(evaluator.of_classes(siblings, shared, first, rows.name)):
                its.gradient(scores, part[:, c] if other is None else (other, part)[c])
            if other is not None:
                part -= other

        each_block(rows, [m.factors for m in self._mixtures], opts, Filling(fill, out))
        return returned(out, X, opts.out, features=True)

    @overload
    def predict(self, X: NDArray[Any], *, missing: Missing = ..., **options: Unpack[RunOptions]) -> NDArray[Any]: ...
    @overload
    def predict(self, X: Tensor, *, missing: Missing = ..., **options: Unpack[RunOptions]) -> Tensor: ...
    @overload
    def predict(self, X: Any, *, missing: Missing = ..., **options: Unpack[RunOptions]) -> Any: ...
    @streamed
    @by_blocks
    def predict(self, X: Any, *, missing: Missing = "error", **options: Unpack[RunOptions]) -> Any:
        """The most probable class of each sample, int64 [n]; a tie goes to the lower label."""
        no_out("predict", options)
        joint = self._relative_joint(X, missing=missing, **options)
        with on_device_of(joint):
            return returned(joint.argmax(axis=1), X)

    @overload
    def predict_log_proba(
        self, X: NDArray[Any], *, missing: Missing = ..., **options: Unpack[RunOptions]
    ) -> NDArray[Any]: ...
    @overload
    def predict_log_proba(self, X: Tensor, *, missing: Missing = ..., **options: Unpack[RunOptions]) -> Tensor: ...
    @overload
    def predict_log_proba(self, X: Any, *, missing: Missing = ..., **options: Unpack[ArrayOptions]) -> Any: ...
    @streamed
    @by_blocks
    def predict_log_proba(self, X: Any, *, missing: Missing = "error", **options: Unpack[ArrayOptions]) -> Any:
        """log p(class | x), [n, C], nats."""
        return self._from_joint(X, missing, options, (self.n_classes,), log_proba)

    @overload
    def predict_proba(
        self, X: NDArray[Any], *, missing: Missing = ..., **options: Unpack[RunOptions]
    ) -> NDArray[Any]: ...
    @overload
    def predict_proba(self, X: Tensor, *, missing: Missing = ..., **options: Unpack[RunOptions]) -> Tensor: ...
    @overload
    def predict_proba(self, X: Any, *, missing: Missing = ..., **options: Unpack[ArrayOptions]) -> Any: ...
    @streamed
    @by_blocks
    def predict_proba(self, X: Any, *, missing: Missing = "error", **options: Unpack[ArrayOptions]) -> Any:
        """p(class | x), [n, C]; a sample that no class explains gets 1/C for each."""
        return self._from_joint(
            X, missing, options, (self.n_classes,), lambda joint: array_module(joint).exp(log_proba(joint))
        )

    def score(self, X: Any, y: Any, *, missing: Missing = "error", **options: Unpack[RunOptions]) -> float:
        """Share of samples whose predicted class is `y` [n].

        Raises
        ------
        ValueError
            For labels that are not classes of this model, or no samples at all.
        """
        predicted = to_numpy(self.predict(X, missing=missing, **options))
        labels = as_labels(y, len(predicted), self.n_classes)
        if not len(labels):
            raise ValueError("score needs at least one sample")
        return float((predicted == labels).mean())

    def to(self, device: str) -> BayesClassifier:
        """The same classifier with its mixtures on a device; see :meth:`mfakit.MFA.to`."""
        moved = [m.to(device) for m in self._mixtures]
        if all(there is here for there, here in zip(moved, self._mixtures, strict=True)):
            return self
        return self.replace(mixtures=moved)

    def replace(self, **parts: Unpack[Parts]) -> BayesClassifier:
        """The same classifier with some of its parts (mixtures, priors, extras, metadata) replaced."""
        own = {"mixtures": self._mixtures, "priors": self._priors, "extras": self._extras, "metadata": self._metadata}
        values: dict[str, Any] = {**own, **parts}
        return BayesClassifier(**values)

    def sample(
        self, n: int, rng: Any = None, *, balanced: bool = False, noise: bool = True, dtype: Any = np.float32
    ) -> tuple[Array, Array]:
        """n labelled samples in all: X [n, d] and y int64 [n], shuffled.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator, int or None
        balanced : bool
            Split evenly between the classes (the first ones get what is left over); otherwise labels follow the priors.
        noise : bool
            False draws points on the subspaces.
        dtype : {float32, float64}
        """
        n = sampling.as_count(n)
        generator = np.random.default_rng(rng)
        if balanced:
            y = generator.permutation(np.arange(n) % self.n_classes)
        else:
            y = generator.choice(self.n_classes, size=n, p=self._priors)
        y = y.astype(np.int64)
        X = None
        for c, mixture in enumerate(self._mixtures):
            rows = np.flatnonzero(y == c)
            part = mixture.sample(len(rows), generator, noise, dtype)[0]
            xp = array_module(part)
            with on_device_of(part):
                X = xp.empty((n, self.n_features), dtype) if X is None else X
                X[xp.asarray(rows)] = part
        with on_device_of(X):
            return X, xp.asarray(y)

    def symmetric(self, sigma: float = 0.01, *, uniform_weights: bool = True) -> BayesClassifier:
        """The symmetric variant (appendix B.2): every component's noise is σ², so that the classes meet Theorem 2.

        Parameters
        ----------
        sigma : float
            Standard deviation of the noise, in data units.
        uniform_weights : bool
            Make the components of a class equally likely, as the paper's code does: those whose weight exceeds 1e-10.
            Others, which pad a model, keep theirs, and without weight play no part in anything.

        Raises
        ------
        ValueError
            For σ that is not positive: the limit σ = 0 has no density, see :func:`mfakit.subspace_distances`; or whose
            square leaves float64.
        """
        return self.replace(mixtures=symmetric_mixtures(self, sigma, uniform_weights))

    def asymmetric(
        self, X_train: Any = None, scale: float = 1.0, sigma: float = 0.5, *, direction: int = 50
    ) -> BayesClassifier:
        """The asymmetric variant (appendix B.2): one outlier component per class, which Theorem 3 then applies to.

        The outlier has weight 1/(k+1), where k components have any, A = 0, noise σ² and sits at the data's mean plus
        (class 0) or minus (class 1) scale · √λ · v, with λ and v the `direction`-th largest eigenvalue and eigenvector
        of the data's covariance.

        Parameters
        ----------
        X_train : array-like [n, d], optional
            The data of all classes. None: what :meth:`with_outlier_step` stored, as in shipped pairs and those of
            ``mfakit fit-pair``, else the moments of the mixtures themselves.
        scale : float
            Length of the step in standard deviations.
        sigma : float
            Noise of the outlier, in data units.
        direction : int
            Which principal direction, counted from 1.

        Raises
        ------
        ValueError
            For more than two classes, σ that is not positive or whose square leaves float64, a scale that is no finite
            number, or a direction beyond d.
        """
        return self.replace(mixtures=asymmetric_mixtures(self, X_train, scale, sigma, direction))

    def with_outlier_step(self, X_train: Any, *, direction: int = 50) -> BayesClassifier:
        """The same classifier, which keeps the mean and the step √λ · v of its training data, in its file as well, so
        that :meth:`asymmetric` needs no data.

        Parameters
        ----------
        X_train : array-like [n, d]
            The data of all classes.
        direction : int
            Which principal direction, counted from 1.

        Raises
        ------
        ValueError
            For fewer samples or features than directions, and NaN or inf in X_train.
        """
        from .outliers import outlier_extras

        return self.replace(extras={**self._extras, **outlier_extras(X_train, direction, self.n_features)})

    def rescaled(self, low: float, high: float) -> BayesClassifier:
        """The same classifier for samples (x - low) / (high - low): low becomes 0 and high becomes 1.

        Decisions stay, and certified radii and the lengths of perturbations are divided by high - low. So a model of
        other units, or one whose samples leave [0, 1], fits libraries that clip to [0, 1].

        Parameters
        ----------
        low, high : float
            Two numbers for all features: a scale for each would deform the balls that radii measure.

        Returns
        -------
        BayesClassifier
            Its mixtures and what :meth:`with_outlier_step` stored are rescaled; other extras and metadata stay.

        Raises
        ------
        ValueError
            For anything but two finite numbers with low < high.

        Examples
        --------
        >>> import numpy as np, mfakit
        >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 0)), 1.0) for m in (-10.0, 10.0)]
        >>> clf = mfakit.BayesClassifier(mixtures)
        >>> unit = clf.rescaled(-20, 20)
        >>> X = np.array([[-10.0, 0.0]])
        >>> r = mfakit.attacks.minimal_perturbation(clf, X), mfakit.attacks.minimal_perturbation(unit, (X + 20) / 40)
        >>> r[0].lower.round(6), r[1].lower.round(6)
        (array([10.]), array([0.25]))
        """
        mixtures, extras = rescaled_parts(self, low, high)
        return self.replace(mixtures=mixtures, extras=extras)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write mixtures, priors, extras and metadata to a safetensors file."""
        tensors: dict[str, Array] = {}
        for c, mixture in enumerate(self._mixtures):
            tensors |= mixture.to_tensors(str(c))
        tensors |= {"priors": self.priors, **{f"extra.{name}": value for name, value in self.extras.items()}}
        write_tensors(path, KIND, tensors, self._metadata or None)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BayesClassifier:
        """Read a file written by :meth:`save`; errors as :meth:`mfakit.MFA.load`."""
        tensors, metadata = read_tensors(path, KIND)
        found = {name.split(".")[0] for name in tensors if "." in name} - {"extra"}
        classes = [str(c) for c in range(len(found))]
        if found != set(classes):
            raise ValueError(f"{path} is not a valid classifier: its classes must be numbered from 0 on, without gaps")
        mixtures = [MFA.from_tensors(tensors, name, path) for name in classes]
        extras = {name[len("extra.") :]: value for name, value in tensors.items() if name.startswith("extra.")}
        try:
            return BayesClassifier(mixtures, tensors.get("priors"), extras=extras, metadata=metadata)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a valid classifier: {one_line(error)}") from None
