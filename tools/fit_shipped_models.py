"""Fit the models that the package ships: ``python tools/fit_shipped_models.py`` with MFAKIT_DATA set.

Two mixtures per pair of MNIST digits, 25 components of 6 factors with isotropic noise, by EM from k-means; means and
loadings are stored in float32. Beside them: the mean of the pair's training images and the step to its outliers, √λ₅₀
v₅₀ (appendix B.2). The seed is fixed; the files' bytes depend on the BLAS and its threads, the results they give do
not.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import mfakit
from mfakit.bayes.outliers import principal_step

PAIRS = {"mnist-06": (0, 6), "mnist-27": (2, 7), "mnist-45": (4, 5)}
MODELS = Path(__file__).parents[1] / "python" / "mfakit" / "datasets" / "models"


def fit_digit(images: np.ndarray, n_init: int) -> mfakit.MFA:
    estimator = mfakit.MixtureOfFactorAnalyzers(
        n_components=25, n_factors=6, noise="isotropic", n_init=n_init, max_iter=300, tol=1e-3, random_state=0
    )
    mfa = estimator.fit(images).mfa_
    print(
        f"  {len(images)} images, {estimator.n_iter_} iterations, mean log-likelihood {estimator.lower_bound_:.2f} nats"
    )
    return mfa.replace(means=mfa.means.astype(np.float32), loadings=mfa.loadings.astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with mnist/ in it (default: MFAKIT_DATA)")
    parser.add_argument("--out", type=Path, default=MODELS)
    parser.add_argument("--n-init", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, digits in PAIRS.items():
        start = time.perf_counter()
        print(name)
        X, y, _, _ = mfakit.datasets.load_mnist(args.data, classes=digits)
        mean, step = principal_step(X, 50)
        print(f"  step to the outliers: {np.linalg.norm(step):.3f}")
        mixtures = [fit_digit(X[y == c], args.n_init) for c in (0, 1)]
        extras = {"outlier_mean": mean.astype(np.float32), "outlier_step": step.astype(np.float32)}
        path = args.out / f"{name}.safetensors"
        mfakit.BayesClassifier(mixtures, extras=extras).save(path)
        print(f"  {path.name}: {path.stat().st_size / 1e6:.2f} MB, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
