"""What comes in: containers that are read right, and one true sentence for those that would be read wrongly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import random_mfa

import mfakit
from mfakit._arrays.containers import sum_tolerance
from mfakit._arrays.options import Options
from mfakit.fit import MixtureOfFactorAnalyzers, Source

Array = NDArray[Any]
Use = Callable[[Any], Any]


def classifier(priors: Any = None) -> mfakit.BayesClassifier:
    return mfakit.BayesClassifier([random_mfa(d=4, seed=0), random_mfa(d=4, seed=1)], priors)


def samples(n: int = 6) -> Array:
    return np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)


def model(**changes: Any) -> mfakit.MFA:
    good = {"weights": [0.5, 0.5], "means": np.zeros((2, 4)), "loadings": np.ones((2, 4, 1)), "noise_variance": [1, 2]}
    return mfakit.MFA(**{**good, **changes})


SAMPLES: dict[str, Use] = {
    "estimator": lambda X: MixtureOfFactorAnalyzers(max_iter=0).fit(samples()).predict(X),
    "log_prob": lambda X: random_mfa(d=4).log_prob(X),
    "predict": lambda X: classifier().predict(X),
    "fit": lambda X: MixtureOfFactorAnalyzers(max_iter=0).fit(X),
    "fit_blocks": lambda X: MixtureOfFactorAnalyzers(max_iter=0).fit_blocks([X]),
}


@pytest.mark.parametrize("use", SAMPLES)
@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda X: np.ma.masked_array(X, X > 0), "masked array; pass"),
        (lambda X: [np.ma.masked_array(row, row > 0) for row in X], "has masked arrays in it"),
        (lambda X: {"data": X}, r"is a dict, whose arrays have names.*\['data'\]"),
        (lambda X: {1.0, 2.0}, "has no order"),
        (lambda X: None, "must be an array, got None"),
        (lambda X: Path("X.npy"), "must be an array, got a PosixPath"),
        (lambda X: np.ndarray, "must be an array, got a type"),
        (lambda X: random_mfa(d=4), "must be an array, got an? MFA"),
        (lambda X: X.sum, "must be an array, got a builtin"),
        (lambda X: X.astype("datetime64[s]"), "must be real numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_be_read_wrongly_is_refused_with_the_remedy(use: str, make: Use, remedy: str) -> None:
    with pytest.raises(TypeError, match=remedy):
        SAMPLES[use](make(samples()))


@pytest.mark.parametrize("use", ["fit", "fit_blocks"])
@pytest.mark.parametrize("make", [iter, lambda X: (row for row in X)], ids=["iterator", "generator"])
def test_fits_read_more_than_once(use: str, make: Use) -> None:
    with pytest.raises(TypeError, match=r"is an? (generator|iterator), which can be read only once.*use fit_blocks"):
        SAMPLES[use](make(samples()))


@pytest.mark.parametrize("use", ["log_prob", "predict", "fit"])
def test_images_are_told_how_to_become_rows(use: str) -> None:
    with pytest.raises(ValueError, match=r"got shape \(6, 2, 2\).*X\.reshape\(len\(X\), -1\)"):
        SAMPLES[use](samples().reshape(6, 2, 2))
    with pytest.raises(ValueError, match="rectangular, but its rows have different lengths"):
        SAMPLES[use]([[1.0, 2.0, 3.0, 4.0], [1.0]])


@pytest.mark.parametrize("use", SAMPLES)
def test_torchs_objects_that_are_no_samples(use: str) -> None:
    torch = pytest.importorskip("torch")
    X = torch.from_numpy(samples())
    data = torch.utils.data.TensorDataset(X, torch.zeros(6))
    for thing, remedy in (
        (data, "is a torch Dataset, a TensorDataset; pass its samples as an array"),
        (torch.utils.data.DataLoader(data), "is a torch DataLoader, a DataLoader; pass its samples"),
        (torch.nn.Linear(4, 2), "is a torch module, a Linear; pass the samples"),
        (X.clone().requires_grad_(), r"requires grad.*\.detach\(\).*mfakit\.torch\.MFAModule"),
        (torch.nn.Parameter(X), r"mfakit\.torch\.MFAModule"),
    ):
        with pytest.raises(TypeError, match=remedy):
            SAMPLES[use](thing)
    with pytest.raises(TypeError, match=r"list of tensors; pass torch\.stack"):
        SAMPLES[use]([row.bfloat16().requires_grad_() for row in X])


PARAMETERS: dict[str, Use] = {
    "weights": lambda v: model(weights=v),
    "noise_variance": lambda v: model(noise_variance=v),
    "priors": lambda v: classifier(v),
    "sample_weight": lambda v: MixtureOfFactorAnalyzers(max_iter=0).fit(samples(2), None, v),
    "y": lambda v: classifier().score(samples(2), v),
    "out": lambda v: random_mfa(d=4).log_prob(samples(2), out=v),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_mask_is_lost_nowhere(name: str) -> None:
    value = np.ma.masked_array(np.array([0.5, 0.5], np.float32), mask=[False, True])
    with pytest.raises(TypeError, match=f"{name} is a masked array"):
        PARAMETERS[name](value)


@pytest.mark.parametrize("name", ["means", "loadings"])
def test_a_mask_of_means_and_loadings(name: str) -> None:
    value = np.ma.masked_array(np.zeros((2, 4) if name == "means" else (2, 4, 1)), mask=True)
    with pytest.raises(TypeError, match=f"{name} is a masked array"):
        model(**{name: value})
    with pytest.raises(TypeError, match="outlier_mean is a masked array"):
        mfakit.BayesClassifier(classifier().mixtures, extras={"outlier_mean": np.ma.masked_array([1.0], mask=True)})


def test_bfloat16_is_taken_everywhere() -> None:
    torch = pytest.importorskip("torch")

    def half(*values: float) -> Any:
        return torch.tensor(values).bfloat16()

    np.testing.assert_array_equal(model(noise_variance=half(0.5, 2.0)).noise_variance, [0.5, 2.0])
    assert model(noise_variance=half(0.5)[0]).noise_variance.tolist() == [0.5, 0.5]
    assert model(noise_variance=torch.full((2, 4), 0.5).bfloat16()).noise_variance.shape == (2, 4)
    np.testing.assert_array_equal(classifier(half(0.25, 0.75)).priors, [0.25, 0.75])
    assert classifier().score(torch.from_numpy(samples(2)).bfloat16(), half(0, 1)) in (0.0, 0.5, 1.0)
    weighted, plain = (
        MixtureOfFactorAnalyzers(max_iter=0, random_state=0).fit(samples(), None, w)
        for w in (half(1, 2, 1, 1, 1, 1), [1, 2, 1, 1, 1, 1])
    )
    np.testing.assert_array_equal(weighted.mfa_.means, plain.mfa_.means)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_fractions_may_miss_the_sum_by_the_rounding_of_their_dtype(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    value = torch.tensor([0.1, 0.9]).to(getattr(torch, dtype))
    assert model(weights=value).weights.sum() == pytest.approx(1.0, abs=1e-15)
    assert classifier(value).priors.sum() == pytest.approx(1.0, abs=1e-15)
    with pytest.raises(ValueError, match="sum"):
        model(weights=value * 1.02)
    with pytest.raises(ValueError, match="sum"):
        model(weights=value.double().numpy() + 1e-3)
    assert sum_tolerance(np.ones(1)) == sum_tolerance([1.0]) == 1e-5


def test_out_that_requires_grad_is_refused_on_the_host_too() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="out requires grad"):
        Options(out=torch.zeros(2, requires_grad=True)).result((2,), np.float32)


def test_subclasses_of_tensors_are_tensors() -> None:
    torch = pytest.importorskip("torch")

    class Mine(torch.Tensor):  # type: ignore[misc, name-defined, unused-ignore]
        pass

    X = torch.from_numpy(samples()).as_subclass(Mine)
    assert isinstance(random_mfa(d=4).log_prob(X), torch.Tensor)


@pytest.mark.parametrize("labels", [np.array([0, 1, 0]), np.array([0.0, 1.0, 0.0]), np.array([True, False, True])])
def test_labels_beside_blocks_are_never_taken_for_weights(labels: Array) -> None:
    X, est = samples(3), MixtureOfFactorAnalyzers(max_iter=0)
    for pair in ((X, labels), [X, labels], (X,)):
        with pytest.raises(TypeError, match=r"blocks are arrays.*drop labels, or pass weighted=True"):
            est.fit_blocks([pair])
    est.fit_blocks([(X, labels)], weighted=True)
    with pytest.raises(TypeError, match="block 0 must be a pair of samples and their weights"):
        est.fit_blocks([X], weighted=True)
    with pytest.raises(ValueError, match="the sample_weight of block 1 must have one weight per row"):
        est.fit_blocks([(X, labels), (X, labels[:2])], weighted=True)
    with pytest.raises(TypeError, match="blocks is a dict; pass a list of arrays"):
        est.fit_blocks({"a": X})


def test_a_data_loader_gives_blocks() -> None:
    torch = pytest.importorskip("torch")
    X = torch.from_numpy(samples())
    loader = torch.utils.data.DataLoader(X, batch_size=4)
    assert Source.from_blocks(loader).survey.n_rows == 6
    pairs = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, torch.zeros(6)), batch_size=4)
    with pytest.raises(TypeError, match="drop labels"):
        Source.from_blocks(pairs)
    with pytest.raises(TypeError, match="blocks is a Linear"):
        Source.from_blocks(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"blocks\(\) must return an iterator over arrays, got None"):
        Source.from_blocks(lambda: None)
    images = torch.utils.data.DataLoader(torch.zeros(3, 1, 2, 2))
    with pytest.raises(ValueError, match=r"block 0 must be \[n, d\].*X\.reshape\(len\(X\), -1\)"):
        Source.from_blocks(images)


@pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning")
def test_tensors_that_numpy_cannot_hold() -> None:
    torch = pytest.importorskip("torch")
    small = torch.ones(2, 4).to(torch.float8_e4m3fn)
    nested = torch.nested.nested_tensor([torch.ones(4), torch.ones(3)])
    for use in SAMPLES.values():
        with pytest.raises(TypeError, match=r"has dtype torch\.float8_e4m3fn, which NumPy lacks; pass .*\.float\(\)"):
            use(small)
        with pytest.raises(TypeError, match="is a nested tensor, whose rows differ in length"):
            use(nested)
    with pytest.raises(TypeError, match=r"weights has dtype .* pass weights\.float\(\)"):
        model(weights=small[0, :2])
    with pytest.raises(TypeError, match="weights must be dense"):
        model(weights=torch.tensor([0.5, 0.5]).to_sparse())


def test_lazy_arrays_are_not_loaded_silently() -> None:
    xarray, _ = pytest.importorskip("xarray"), pytest.importorskip("dask")
    X, mfa = xarray.DataArray(samples(), dims=("n", "d")), random_mfa(d=4)
    np.testing.assert_array_equal(mfa.log_prob(X), mfa.log_prob(samples()))
    for use in SAMPLES.values():
        with pytest.raises(TypeError, match=r"an xarray DataArray over dask; pass .*\.compute\(\)"):
            use(X.chunk({"n": 2}))


class OnlyDLPack:
    """An array of a library that NumPy has never heard of."""

    def __init__(self, values: Array, device: tuple[int, int] = (1, 0)) -> None:
        self._values, self._device = values, device
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __len__(self) -> int:
        return len(self._values)

    def __dlpack__(self, **options: Any) -> Any:
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_that_speak_dlpack_alone(dtype: Any) -> None:
    X, mfa, clf = samples().astype(dtype), random_mfa(d=4), classifier()
    got = mfa.log_prob(OnlyDLPack(X))
    assert isinstance(got, np.ndarray)
    np.testing.assert_array_equal(got, mfa.log_prob(X))
    np.testing.assert_array_equal(clf.predict(OnlyDLPack(X)), clf.predict(X))
    y = clf.predict(X)
    assert clf.score(OnlyDLPack(X), OnlyDLPack(y)) == 1.0
    np.testing.assert_array_equal(
        mfakit.attacks.gradient_attack(clf, OnlyDLPack(X), y, max_steps=2).x_adv,
        mfakit.attacks.gradient_attack(clf, X, y, max_steps=2).x_adv,
    )
    fitted = mfakit.MixtureOfFactorAnalyzers(1, 1, max_iter=2, tol=1.0).fit(OnlyDLPack(X))
    assert fitted.mfa_.n_features == 4
    with pytest.raises(mfakit.BackendUnavailable, match=r"X is on a device \(DLPack's type 2\).*cupy.from_dlpack\(X\)"):
        mfa.log_prob(OnlyDLPack(X, (2, 0)))
