"""Results as tables: dictionaries, data frames, slices, and what a notebook shows."""

from __future__ import annotations

import html.parser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import random_mfa

import mfakit
from mfakit.attacks import AttackResult, MinimalResult, gradient_attack, minimal_perturbation


@pytest.fixture(scope="module")
def clf() -> mfakit.BayesClassifier:
    return mfakit.BayesClassifier([random_mfa(k=2, d=6, l=2, seed=s, spread=1.0) for s in (0, 1)], [0.3, 0.7])


@pytest.fixture(scope="module")
def results(clf: mfakit.BayesClassifier) -> tuple[AttackResult, MinimalResult]:
    X, y = clf.sample(20, rng=0, dtype=np.float64)
    return gradient_attack(clf, X, y, polish=True), minimal_perturbation(clf, X, y)


def test_a_dictionary_has_a_row_for_each_sample(results: Any, tmp_path: Path) -> None:
    attack, minimal = results
    for result in results:
        assert all(column.shape == (20,) for column in result.to_dict().values())
    assert list(attack.to_dict())[:2] == ["success", "l2"]
    assert set(minimal.to_dict()) - set(attack.to_dict()) == {"lower", "upper", "n_pairs_examined"}
    np.savez(tmp_path / "kept.npz", x_adv=attack.x_adv, **attack.to_dict())
    with np.load(tmp_path / "kept.npz") as kept:
        np.testing.assert_array_equal(kept["reason"], attack.reason)


@pytest.mark.parametrize(
    "rows", [slice(3, 9), slice(None, None, -2), [4, 1], np.arange(20) % 3 == 0, 5, -1, [], np.int64(2)]
)
def test_a_slice_is_the_result_of_those_samples(results: Any, rows: Any) -> None:
    index = np.atleast_1d(np.arange(20)[rows])
    for result in results:
        part = result[rows]
        assert type(part) is type(result)
        assert len(part) == len(index)
        np.testing.assert_array_equal(part.x_adv, result.x_adv[index])
        for name, column in part.to_dict().items():
            np.testing.assert_array_equal(column, result.to_dict()[name][index])
        assert (part.settings, part.classifier) == (result.settings, result.classifier)
    attack, minimal = results
    np.testing.assert_array_equal(attack[rows].grade(minimal[rows]).over_upper, attack.grade(minimal).over_upper[index])


def test_samples_beyond_the_last_are_an_error(results: Any) -> None:
    with pytest.raises(IndexError):
        results[0][20]
    with pytest.raises(IndexError):
        results[0][np.ones(19, bool)]
    with pytest.raises(IndexError, match="indexed by samples"):
        results[0][[[0, 1]]]
    assert len(list(results[0])) == 20


def test_tensors_stay_tensors(clf: mfakit.BayesClassifier) -> None:
    torch = pytest.importorskip("torch")
    X, y = clf.sample(5, rng=0)
    result = gradient_attack(clf, torch.from_numpy(X), y)
    assert isinstance(result[::-1].x_adv, torch.Tensor)
    torch.testing.assert_close(result[::-1].x_adv, result.x_adv.flip(0))


def test_frames_are_made_on_request(results: Any) -> None:
    pandas = pytest.importorskip("pandas")
    attack, minimal = results
    frame = attack.to_frame().join(attack.grade(minimal).to_frame())
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == 20
    np.testing.assert_array_equal(frame["l2"], attack.l2)


def test_a_grade_says_which_samples_contradict(results: Any) -> None:
    attack, minimal = results
    grade = attack.grade(minimal)
    assert not grade.to_dict()["contradicts"].any()
    below = AttackResult(**{**vars(attack), "l2": np.where(np.arange(20) == 4, 1e-9, attack.l2)})
    assert np.flatnonzero(below.grade(minimal).to_dict()["contradicts"]).tolist() == [4]


class Text(html.parser.HTMLParser):
    """The text of a page, and whether every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def shown(thing: Any) -> list[str]:
    parser = Text()
    parser.feed(thing._repr_html_())
    assert parser.open == []
    return parser.text


def test_notebooks_show_what_it_is(clf: mfakit.BayesClassifier, results: Any) -> None:
    attack, minimal = results
    mfa = clf.mixtures[0]
    assert shown(mfa)[3:5] == ["features d", "6"]
    assert shown(mfakit.MFA([1.0], np.zeros((1, 2)), np.zeros((1, 2, 0)), 0.25))[-3] == "1"
    assert shown(clf)[:3] == ["BayesClassifier", "class 0, prior 0.3", repr(mfa)]
    assert f"{attack.mean_l2:.4g}" in shown(attack)
    assert f"flipped: {attack.success.sum()}" in shown(attack)[-1]
    assert "largest gap" in shown(minimal)
    assert "20 of 20" in shown(attack.grade(minimal))
    odd = AttackResult(**{**vars(attack), "settings": {"attack": "<script>"}})
    assert "<script>" in shown(odd)


def test_curves_count_samples_by_hand(results: Any) -> None:
    attack, minimal = results
    eps = np.concatenate([[0.0], np.linspace(0, 2 * np.nanmax(attack.l2[attack.success]), 30), attack.l2[:5]])
    eps = eps[np.isfinite(eps)]
    by_hand = [np.mean([not w and not (s and l2 <= e) for w, s, l2 in zip(*_of(attack), strict=True)]) for e in eps]
    np.testing.assert_array_equal(attack.curve(eps), by_hand)
    low, high = minimal.certified_curve(eps)
    assert (low <= high).all()
    assert (high <= attack.curve(eps) + 1e-12).all()  # no attack fools below the upper end
    right = ~minimal.already_wrong
    np.testing.assert_array_equal(low, [(right & (minimal.lower >= e)).mean() for e in eps])
    np.testing.assert_array_equal(high, [(right & (minimal.upper > e)).mean() for e in eps])
    assert attack.curve(0.0).shape == (1,)
    assert np.isnan(attack[[]].curve([1.0])).all()
    for wrong in ([-1.0], [np.nan], [[1.0]]):
        with pytest.raises(ValueError, match="eps must be norms of at least 0"):
            attack.curve(wrong)


def _of(result: AttackResult) -> tuple[Any, Any, Any]:
    return result.already_wrong, result.success, result.l2
