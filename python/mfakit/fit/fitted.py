"""What a fitted estimator answers: densities, components, descriptions, samples, criteria, all of its mixture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import DensityMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .._arrays.frames import without_index
from .._arrays.lazy_rows import by_blocks
from .._arrays.options import Missing, Options
from .._arrays.rows import to_numpy, wrap_like
from .._arrays.streams import streamed
from .._checks import as_generator
from .._sklearn import check_input
from ..mixture.marginals import posterior_mean
from ..mixture.mfa import MFA
from .parameters import ModelParameters, free_parameters
from .source import as_weights

__all__ = ["FittedMixture"]

Array = NDArray[Any]


class FittedMixture(TransformerMixin, DensityMixin, ModelParameters):  # type: ignore[misc]
    """The methods of :class:`mfakit.MixtureOfFactorAnalyzers` that read ``mfa_``."""

    mfa_: MFA
    method: str
    missing: Missing
    transform_to: str

    @streamed
    @by_blocks
    def score_samples(self, X: Any) -> Any:
        """log p(x) of each row, [n], nats; a Series with its index for a DataFrame."""
        return self._checked(X).log_prob(X, missing=self.missing, **self._how())

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log p(x) of the rows, nats, weighted by `sample_weight` [n] if given.

        Raises
        ------
        ValueError
            For no rows, and for weights that are negative or all zero.
        """
        values = self._log_prob_of_some(X, "score")
        weights = as_weights(sample_weight, len(values))
        if weights is not None and not weights.any():
            raise ValueError("sample_weight is zero for every row; score needs one row with a positive weight")
        return float(np.average(values, weights=weights))

    @streamed
    @by_blocks
    def predict(self, X: Any) -> Any:
        """The most likely component of each row, int64 [n]."""
        shares = self._checked(X).responsibilities(X, missing=self.missing, **self._how())
        return wrap_like(to_numpy(shares).argmax(axis=1), X)

    @streamed
    @by_blocks
    def predict_proba(self, X: Any) -> Any:
        """p(component | x), [n, k]; rows sum to 1."""
        return self._checked(X).responsibilities(without_index(X), missing=self.missing, **self._how())

    @streamed
    @by_blocks
    def transform(self, X: Any) -> Any:
        """A description of each row, in X's dtype: by `transform_to`, E[z | x] under its most likely component, [n, l],
        or p(component | x), [n, k].
        """
        mfa = self._checked(X)
        if self.transform_to == "latent":
            rows = without_index(X)
            if self.missing == "marginal":
                return posterior_mean(mfa, rows, **self._how())
            return mfa.latent(rows, **self._how())[0]
        return mfa.responsibilities(without_index(X), missing=self.missing, **self._how())

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Names of the columns of :meth:`transform`, str [l] or [k]: "latent0", … or "component0" and so on."""
        check_is_fitted(self)
        latent = self.transform_to == "latent"
        name, count = ("latent", self.mfa_.n_factors) if latent else ("component", self.mfa_.n_components)
        return np.array([f"{name}{i}" for i in range(count)], dtype=object)

    def sample(self, n_samples: int = 1, *, random_state: Any = None, dtype: Any = np.float32) -> tuple[Array, Array]:
        """Samples [n_samples, d] and their components [n_samples], where ``mfa_`` is; a `random_state` of None derives
        one from the estimator's own.
        """
        check_is_fitted(self)
        own = random_state is None
        rng = as_generator(self.random_state).spawn(1)[0] if own else as_generator(random_state)
        return self.mfa_.sample(n_samples, rng=rng, dtype=dtype)

    @property
    def weights_(self) -> Array:
        """Mixing proportions, float64 [k]."""
        return self.mfa_.weights

    @property
    def means_(self) -> Array:
        """Means, float64 [k, d]."""
        return self.mfa_.means

    @property
    def loadings_(self) -> Array:
        """Loadings, float64 [k, d, l]."""
        return self.mfa_.loadings

    @property
    def noise_variance_(self) -> Array:
        """Noise variances, float64 [k] or [k, d]."""
        return self.mfa_.noise_variance

    def bic(self, X: Any) -> float:
        """Bayesian information criterion on X; lower is better. No rows are a ValueError."""
        rows = self._log_prob_of_some(X, "bic")
        return float(-2.0 * rows.sum() + free_parameters(self.mfa_) * np.log(len(rows)))

    def aic(self, X: Any) -> float:
        """Akaike information criterion on X; lower is better. No rows are a ValueError."""
        return float(-2.0 * self._log_prob_of_some(X, "aic").sum() + 2.0 * free_parameters(self.mfa_))

    def _log_prob_of_some(self, X: Any, name: str) -> Array:
        """score_samples, float64 [n], on the host, of at least one row."""
        rows = to_numpy(self.score_samples(X)).astype(np.float64)
        if not len(rows):
            raise ValueError(f"{name} needs at least one sample, got X with 0 rows; pass the samples to be scored")
        return rows

    def _checked(self, X: Any) -> MFA:
        check_input(self, X)
        return self.mfa_

    def _how(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("method", "backend", "block_rows", "n_threads")}

    def _options(self) -> Options:
        return Options(**self._how())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "marginal"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
