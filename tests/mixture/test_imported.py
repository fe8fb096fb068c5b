"""Models of other implementations: what their noise means, how their files vary, and what they may not ask for."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import close, random_mfa

import mfakit
from mfakit import MFA

PICKLED = {"gans": (MFA.from_gans_n_gmms, lambda v: v), "bayes": (MFA.from_bayes_optimal, np.sqrt)}


def components(mfa: MFA, noise: Any, dtype: Any = np.float64) -> dict[int, dict[str, Any]]:
    """A mixture as the pickles have it; `noise` makes D of a variance."""
    D = np.broadcast_to(mfa.noise_variance.reshape(mfa.n_components, -1), mfa.means.shape)
    return {
        i: {
            "pi": dtype(mfa.weights[i]),
            "mu": mfa.means[i].astype(dtype),
            "A": mfa.loadings[i].astype(dtype),
            "D": noise(D[i]).astype(dtype),
        }
        for i in range(mfa.n_components)
    }


def same(got: MFA, expected: MFA, rtol: float = 1e-14) -> None:
    for name in ("weights", "means", "loadings", "noise_variance"):
        values = getattr(got, name)
        close(values, getattr(expected, name), values.dtype, rtol=rtol, atol=0.0)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", PICKLED)
def test_pickles_of_any_protocol(kind: str, protocol: int, noise: str, tmp_path: Path) -> None:
    """The noise is a variance in one of the two, a standard deviation in the other."""
    load, of_variance = PICKLED[kind]
    mfa = random_mfa(3, 7, 2, noise=noise)
    path = tmp_path / "final_gmm.pkl"
    path.write_bytes(pickle.dumps(components(mfa, of_variance), protocol))
    same(load(path), mfa)
    same(load(str(path)), mfa)
    assert load(path).is_isotropic == (noise == "isotropic")
    same(load(components(mfa, of_variance)), mfa)


def test_float32_stays_float32(tmp_path: Path) -> None:
    mfa = random_mfa(2, 5, 2)
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(components(mfa, np.sqrt, np.float32)))
    got = MFA.from_bayes_optimal(path)
    assert (got.means.dtype, got.loadings.dtype, got.weights.dtype) == (np.float32, np.float32, np.float64)
    same(got, mfa, rtol=3e-7)


def test_components_in_any_order_with_what_else_was_kept(tmp_path: Path) -> None:
    """A model that has been used keeps inverses beside its parameters; some have one noise for all features."""
    mfa = random_mfa(3, 6, 2)
    written = {i: {**c, "inv_sigma1": np.eye(2), "c_factor": 3.0} for i, c in components(mfa, lambda v: v).items()}
    written = {i: written[i] for i in (2, 0, 1)}
    written[1]["mu"] = written[1]["mu"][:, None]
    written[2]["D"] = np.float64(mfa.noise_variance[2])
    del written[0]["D"]
    written[0]["s"] = float(mfa.noise_variance[0])
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(written))
    same(MFA.from_gans_n_gmms(tmp_path / "m.pkl"), mfa)


def test_keys_that_python_2_wrote(tmp_path: Path) -> None:
    mfa = random_mfa(2, 4, 1)
    written = {i: {key.encode(): value for key, value in c.items()} for i, c in components(mfa, lambda v: v).items()}
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(written, 2))
    same(MFA.from_gans_n_gmms(tmp_path / "m.pkl"), mfa)


def test_padding_is_left_out_of_the_papers_models() -> None:
    """And stays in the older ones, whose weights are not padded; D of 0 is no noise there."""
    mfa = random_mfa(3, 5, 2)
    padded = components(mfa, np.sqrt)
    padding = {"pi": 1e-12, "mu": np.zeros(5), "A": np.zeros((5, 2)), "D": np.zeros(5)}
    padded = {0: padding, **{i + 1: c for i, c in padded.items()}, 4: padding}
    same(MFA.from_bayes_optimal(padded), mfa, rtol=1e-11)
    with pytest.raises(ValueError, match="noise_variance must be positive"):
        MFA.from_gans_n_gmms(padded)
    padded = {i: {**c, "D": np.full(5, 0.5)} for i, c in padded.items()}
    assert MFA.from_gans_n_gmms(padded).n_components == 5


def state_of(mfa: MFA) -> dict[str, Any]:
    D = np.broadcast_to(mfa.noise_variance.reshape(mfa.n_components, -1), mfa.means.shape)
    return {"MU": mfa.means, "A": mfa.loadings, "log_D": np.log(D), "PI_logits": np.log(mfa.weights) + 900.0}


def test_torch_mfa(noise: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    mfa = random_mfa(3, 7, 2, noise=noise)
    state = {name: torch.tensor(value) for name, value in state_of(mfa).items()}
    same(MFA.from_torch_mfa(state), mfa, rtol=1e-12)
    single = {name: torch.nn.Parameter(value.float(), requires_grad=True) for name, value in state.items()}
    torch.save(single, tmp_path / "model.pth")
    got = MFA.from_torch_mfa(tmp_path / "model.pth")
    assert got.is_isotropic == (noise == "isotropic")
    same(got, mfa, rtol=1e-4)
    torch.save(single, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    same(MFA.from_torch_mfa(tmp_path / "old.pth"), got, rtol=0.0)


class Runs:
    """A pickle that would make a folder."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("made",)


def test_a_pickle_that_asks_for_something_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = components(random_mfa(2, 4, 1), np.sqrt)
    for protocol in range(6):
        Path("bad.pkl").write_bytes(pickle.dumps({**good, 2: Runs()}, protocol))
        for load, _ in PICKLED.values():
            with pytest.raises(ValueError, match=r"^bad\.pkl is not a [\w-]+ model: it asks for (posix|nt)\.mkdir$"):
                load("bad.pkl")
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(value) for name, value in state_of(random_mfa(2, 4, 1)).items()}
    torch.save({**state, "x": Runs()}, "bad.pth")
    with pytest.raises(ValueError, match=r"^bad\.pth is not a torch-mfa model: it asks for (posix|nt)\.mkdir"):
        MFA.from_torch_mfa("bad.pth")
    assert not Path("made").exists()


GOOD = components(random_mfa(2, 4, 1), np.sqrt)
WRONG: dict[str, tuple[Any, str]] = {
    "list": ([1, 2], "has a list in the place of a dict"),
    "empty": ({}, "must be numbered from 0 on"),
    "gap": ({0: GOOD[0], 2: GOOD[1]}, "must be numbered from 0 on"),
    "no loadings": ({0: GOOD[0], 1: {k: v for k, v in GOOD[1].items() if k != "A"}}, "component 1 lacks A"),
    "numbers": ({0: 1.0, 1: 2.0}, "has a float in the place of a dict"),
    "text": ({**GOOD, 1: {**GOOD[1], "mu": "abc"}}, "mu is not an array of real numbers"),
    "complex": ({**GOOD, 1: {**GOOD[1], "mu": np.zeros(4, complex)}}, "mu is not an array of real numbers"),
    "objects": ({**GOOD, 1: {**GOOD[1], "mu": np.array([None] * 4)}}, "is not a bayes-optimal model"),
    "width": ({**GOOD, 1: {**GOOD[1], "mu": np.zeros(5)}}, r"component 1 must have .*\(5,\), \(4, 1\)"),
    "sizes": ({0: GOOD[0], 1: {"pi": 0.5, "mu": [0.0] * 3, "A": np.zeros((3, 1)), "D": np.ones(3)}}, "mu|sizes"),
    "weights": ({i: {**c, "pi": 0.7} for i, c in GOOD.items()}, "weights must sum to 1, got 1.4"),
    "nan": ({**GOOD, 1: {**GOOD[1], "mu": np.full(4, np.nan)}}, "means has NaN"),
    "other widths": (
        {0: {**GOOD[0], "pi": 0.5}, 1: {"pi": 0.5, "mu": np.zeros(3), "A": np.zeros((3, 1)), "D": np.ones(3)}},
        "components differ in their sizes",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_model_is_one_sentence(case: str, tmp_path: Path) -> None:
    value, message = WRONG[case]
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises((ValueError, TypeError), match=message) as error:
        MFA.from_bayes_optimal(path)
    assert "\n" not in str(error.value)


HOSTILE = {
    "garbage": b"\xff\xd8\xff\xe0 no pickle",
    "nothing": b"",
    "cut": pickle.dumps(GOOD)[:-40],
    "lists without end": b"\x80\x02" + b"]" * 10**7 + b".",
    "a length of terabytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "a dict in itself": b"\x80\x02}q\x00K\x00h\x00s.",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_damaged_pickles_take_no_memory(case: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(HOSTILE[case])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"m\.pkl is not a gans-n-gmms model: "):
            MFA.from_gans_n_gmms(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (64 << 20) + 3 * len(HOSTILE[case])


def test_missing_files_and_states(tmp_path: Path) -> None:
    for load in (MFA.from_torch_mfa, MFA.from_gans_n_gmms, MFA.from_bayes_optimal):
        with pytest.raises(FileNotFoundError, match="no model file at nothing"):
            load("nothing")
    with pytest.raises(ValueError, match="the state dict is not a torch-mfa model: it lacks A, log_D"):
        MFA.from_torch_mfa({"MU": np.zeros((1, 2)), "PI_logits": np.zeros(1)})
    torch = pytest.importorskip("torch")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth is not a torch-mfa model: it holds a list"):
        MFA.from_torch_mfa(tmp_path / "list.pth")
    (tmp_path / "garbage.pth").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"garbage\.pth is not a torch-mfa model: "):
        MFA.from_torch_mfa(tmp_path / "garbage.pth")


def test_two_of_them_make_a_pair(tmp_path: Path) -> None:
    mixtures = [random_mfa(2, 6, 2, noise="diagonal", seed=seed) for seed in (0, 1)]
    for c, mfa in enumerate(mixtures):
        (tmp_path / f"mfa_class_{c}.pkl").write_bytes(pickle.dumps(components(mfa, np.sqrt)))
    pair = mfakit.BayesClassifier([MFA.from_bayes_optimal(tmp_path / f"mfa_class_{c}.pkl") for c in (0, 1)])
    X, y = mfakit.BayesClassifier(mixtures).sample(50, rng=0, dtype=np.float64)
    close(pair.decision_function(X), mfakit.BayesClassifier(mixtures).decision_function(X), rtol=1e-9, atol=1e-9)
    assert pair.score(X, y) > 0.9
