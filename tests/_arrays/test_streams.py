"""Samples in files and in blocks: the same results as of the array, one block at a time, and true sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import close, random_mfa, rtol

import mfakit
from mfakit.fit import MixtureOfFactorAnalyzers

Array = NDArray[Any]
Use = Callable[..., Any]

MFA = random_mfa(d=4, seed=0)
CLF = mfakit.BayesClassifier([random_mfa(d=4, seed=0), random_mfa(d=4, seed=1)])
EST = MixtureOfFactorAnalyzers(2, 1, max_iter=2, tol=1e9, random_state=0)
CLASSES = mfakit.MFAClassifier(1, 1, max_iter=2, tol=1e9, random_state=0)
SVM = mfakit.classifiers.LinearSVM()
Y = np.arange(30) % 2


def samples() -> Array:
    return CLF.sample(30, rng=0)[0]


EST.fit(samples())
CLASSES.fit(samples(), Y)
SVM.fit(samples(), Y)

# What takes samples, and whether it takes a place for its result.
USES: dict[str, tuple[Use, bool]] = {
    "log_prob": (MFA.log_prob, True),
    "component_log_prob": (MFA.component_log_prob, True),
    "responsibilities": (MFA.responsibilities, True),
    "grad_log_prob": (MFA.grad_log_prob, True),
    "reconstruct": (MFA.reconstruct, True),
    "impute": (MFA.impute, True),
    "latent": (MFA.latent, True),
    "log_prob of what is known": (lambda X, **o: MFA.log_prob(X, missing="marginal", **o), True),
    "point distances": (lambda X, **o: mfakit.point_subspace_distances(X, MFA, **o), True),
    "class_log_prob": (CLF.class_log_prob, True),
    "decision_function": (CLF.decision_function, True),
    "decision_gradient": (CLF.decision_gradient, True),
    "predict": (CLF.predict, False),
    "predict_proba": (CLF.predict_proba, True),
    "score_samples": (EST.score_samples, False),
    "component": (EST.predict, False),
    "transform": (EST.transform, False),
    "MFAClassifier.predict": (CLASSES.predict, False),
    "LinearSVM.predict": (SVM.predict, False),
    "LinearSVM.decision_gradient": (SVM.decision_gradient, False),
    "MFAClassifier.decision_function": (CLASSES.decision_function, False),
}


def first(found: Any) -> Array:
    return np.asarray(found[0] if isinstance(found, tuple) else found)


def blocks(X: Array, rows: int = 12) -> Iterator[Array]:
    return (X[start : start + rows] for start in range(0, len(X), rows))


def same(got: Any, expected: Array) -> None:
    close(np.asarray(got), expected, expected.dtype, rtol=100 * rtol(expected.dtype), atol=1e-5)


@pytest.mark.parametrize("name", USES)
def test_files_and_blocks_give_what_the_array_gives(name: str, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    use, writes = USES[name]
    X = samples()
    expected = first(use(X))
    np.save(tmp_path / "X.npy", X)
    save_file({"X": X, "Z": X}, tmp_path / "X.safetensors")
    for path in (tmp_path / "X.npy", str(tmp_path / "X.npy"), f"{tmp_path / 'X.safetensors'}::X"):
        np.testing.assert_array_equal(first(use(path)), expected)
    parts = [first(found) for found in use(blocks(X))]
    assert [len(part) for part in parts] == [12, 12, 6]
    same(np.concatenate(parts), expected)
    if writes:
        found = first(use(tmp_path / "X.npy", out=tmp_path / "out.npy"))
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
        with pytest.raises(TypeError, match="out is one array, and an iterator of blocks has a result for each"):
            use(blocks(X), out=expected.copy())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["X.npy", "X.safetensors", *["out.npy"] * writes]


ATTACKS: dict[str, Use] = {
    "gradient": lambda X, y=None: mfakit.attacks.gradient_attack(CLF, X, y, max_steps=50),
    "minimal": lambda X, y=None: mfakit.attacks.minimal_perturbation(CLF, X, y),
    "radius": lambda X, y: mfakit.theory.own_and_other_distances(CLF, X, y),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_and_certificates_of_blocks_and_files(name: str, tmp_path: Path) -> None:
    attack, X, y = ATTACKS[name], samples()[:8], Y[:8]
    np.save(tmp_path / "X.npy", X)

    def measured(found: Any) -> Array:
        return np.asarray(found[1] if isinstance(found, tuple) else getattr(found, "lower", found.l2))

    expected = measured(attack(X, y))
    np.testing.assert_array_equal(measured(attack(tmp_path / "X.npy", y)), expected)
    for labels in (y, y.tolist(), blocks(y, 5)):
        parts = [measured(found) for found in attack(blocks(X, 5), labels)]
        np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-4)


def test_labels_go_with_blocks() -> None:
    attack, X = ATTACKS["gradient"], samples()
    assert [len(found.y) for found in attack(blocks(X))] == [12, 12, 6]
    with pytest.raises(ValueError, match="y has 29 entries, and X has more rows"):
        list(attack(blocks(X), Y[1:]))
    with pytest.raises(ValueError, match="y has 31 entries, and the blocks of X 30 rows"):
        list(attack(blocks(X), np.append(Y, 0)))
    with pytest.raises(ValueError, match="y ends before X does: it has 1 blocks"):
        list(attack(blocks(X), iter([Y[:12]])))


def test_points_of_others_may_be_in_files(tmp_path: Path) -> None:
    X = samples()
    points = X + np.float32(0.5)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "points.npy", points)
    expected = mfakit.attacks.evaluate(CLF, X, points, Y)
    found = mfakit.attacks.evaluate(CLF, tmp_path / "X.npy", tmp_path / "points.npy", Y)
    np.testing.assert_array_equal(found.l2, expected.l2)


def test_fits_read_files(tmp_path: Path) -> None:
    X = samples()
    np.save(tmp_path / "X.npy", X)
    for est, y in ((EST, None), (CLASSES, Y), (SVM, Y)):
        again = type(est)(**est.get_params()).fit(str(tmp_path / "X.npy"), y)
        np.testing.assert_array_equal(again.predict(tmp_path / "X.npy"), est.predict(X))
        assert again.n_features_in_ == 4
    assert EST.score(tmp_path / "X.npy") == EST.score(X)


def test_a_block_is_drawn_when_its_result_is_asked_for() -> None:
    drawn: list[int] = []

    def slowly() -> Iterator[Array]:
        for i, block in enumerate(blocks(samples())):
            drawn.append(i)
            yield block

    found = MFA.log_prob(slowly())
    assert drawn == []
    for i, _ in enumerate(found):
        assert drawn == list(range(i + 1))


def test_blocks_of_torch_give_tensors() -> None:
    torch = pytest.importorskip("torch")
    X = torch.from_numpy(samples())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, torch.from_numpy(Y)), batch_size=12)
    parts = list(MFA.log_prob(X for X, _ in loader))
    assert all(torch.is_tensor(part) for part in parts)
    same(torch.cat(parts).numpy(), MFA.log_prob(samples()))
    with pytest.raises(ValueError, match=r"block 1 is .* of float64, and those before it are"):
        list(MFA.log_prob(iter([X, X.double()])))


X0 = samples()[:5]
BAD: dict[str, tuple[list[Any], type[Exception], str]] = {
    "width": ([X0, X0[:, :3]], ValueError, r"block 1 is \[n, 3\] of float32, and .* \[n, 4\] of float32; .* alike"),
    "dtype": (
        [X0, X0, X0 > 0],
        ValueError,
        r"block 2 is \[n, 4\] of bool, and those before it",
    ),
    "bytes": ([X0, X0.astype(np.uint8)], ValueError, "block 1 is .* of uint8"),
    "of another model": ([X0[:, :2]], ValueError, r"block 0: X must be \[n, 4\]"),
    "pairs": ([(X0, Y[:5])], TypeError, r"block 0 is a tuple of 2.*\(X for X, y in blocks\)"),
    "NaN": ([X0, X0 * np.nan], ValueError, "block 1: X has NaN or inf, first in row 0"),
    "rows": (list(X0), ValueError, r"block 0: X must be \[n, 4\], got shape \(4,\)"),
    "words": (["X", "Y"], TypeError, "block 0: X must be"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_block_that_is_unlike_the_others_is_named(case: str) -> None:
    given, error, message = BAD[case]
    with pytest.raises(error, match=message):
        list(MFA.log_prob(iter(given)))


def test_blocks_of_a_fit_must_be_alike() -> None:
    """Floats of several widths are rounded differently, and bytes after floats are on another scale."""
    est = MixtureOfFactorAnalyzers(**EST.get_params())
    assert est.fit_blocks([samples(), samples().astype(float)]).n_features_in_ == 4
    with pytest.raises(ValueError, match=r"block 1 is \[n, 4\] of uint8, and those before it are \[n, 4\] of floats"):
        est.fit_blocks([samples(), samples().astype(np.uint8)])


@pytest.mark.parametrize("use", [MFA.log_prob, CLF.predict, EST.predict, EST.fit], ids=["density", "b", "e", "fit"])
def test_words_that_are_no_files_are_refused(use: Use, tmp_path: Path) -> None:
    gone = tmp_path / "X.npy"
    for X in (gone, str(gone), f"{tmp_path / 'X.safetensors'}::X"):
        with pytest.raises(TypeError, match=r"X must be an array, got a (str|\w+Path), and there is no file .*X\."):
            use(X)
    for X in ("X", "X.npz", Path("X")):
        with pytest.raises((TypeError, ValueError), match=r"X (must be|does not contain any features)"):
            use(X)
    gone.write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"X is a path, and .*X\.npy cannot be read as an array: its header is"):
        use(gone)


def test_a_result_that_fails_leaves_nothing(tmp_path: Path) -> None:
    X = samples()
    X[20] = np.nan
    (tmp_path / "out.npy").write_bytes(b"old")
    for out in (tmp_path / "out.npy", str(tmp_path / "new.npy")):
        with pytest.raises(ValueError, match="first in row 20"):
            MFA.log_prob(X, out=out, block_rows=10)
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy"]
    assert (tmp_path / "out.npy").read_bytes() == b"old"
    with pytest.raises(ValueError, match=r"out must end in \.npy"):
        MFA.log_prob(X, out="result")
    with pytest.raises(TypeError, match="predict takes no out"):
        CLF.predict(samples(), out=str(tmp_path / "out.npy"))


def test_arguments_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", samples())
    expected = MFA.log_prob(samples())
    np.testing.assert_array_equal(MFA.log_prob(X=tmp_path / "X.npy"), expected)
    same(np.concatenate(list(MFA.log_prob(X=blocks(samples())))), expected)
    found = mfakit.attacks.gradient_attack(clf=CLF, X=tmp_path / "X.npy", y=Y, max_steps=5)
    assert len(found.success) == 30
    parts = list(mfakit.attacks.gradient_attack(clf=CLF, X=blocks(samples()), y=Y, max_steps=5))
    np.testing.assert_array_equal(np.concatenate([part.success for part in parts]), found.success)
    with pytest.raises(TypeError, match="gradient_attack got an unexpected keyword argument 'step'"):
        mfakit.attacks.gradient_attack(CLF, samples(), step=1.0)  # type: ignore[call-arg]


def test_out_is_not_the_file_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    mfa = random_mfa(d=3)
    np.save(path, np.zeros((4, 3)))
    before = path.read_bytes()
    for X in (path, np.load(path, mmap_mode="r")):
        with pytest.raises(ValueError, match=r"out must be another file than .*x\.npy, which X is read from"):
            mfa.log_prob(X, out=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["samples", "x.npz", "x.npy::X", b"x.npy"])
def test_text_that_is_no_path_of_samples(text: Any) -> None:
    with pytest.raises(TypeError, match=r"X must be real numbers, got text; a path of samples must end in \.npy or"):
        random_mfa(d=3).log_prob(text)
