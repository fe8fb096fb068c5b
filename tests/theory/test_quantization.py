"""Discrete classes: levels to the boundary against brute force over all pairs of cells, and Lemma A.2's limit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from support import close

from mfakit import theory

METRICS = ("l1", "linf", "single")


def brute_force(table0: np.ndarray, table1: np.ndarray, metric: str) -> np.ndarray:
    """Every cell against every other."""
    decision = table1 > table0
    out = np.full(decision.shape, np.inf)
    cells = list(itertools.product(*map(range, decision.shape)))
    for here in cells:
        for there in cells:
            if decision[here] == decision[there]:
                continue
            steps = np.abs(np.subtract(here, there))
            if metric == "single" and (steps > 0).sum() != 1:
                continue
            out[here] = min(out[here], steps.max() if metric == "linf" else steps.sum())
    return out


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [(9, 7), (1, 8), (13,), (4, 5, 3)])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_levels_are_those_of_brute_force(metric: str, shape: tuple[int, ...], share: float) -> None:
    rng = np.random.default_rng([len(shape), round(100 * share)])
    table0 = rng.dirichlet(np.ones(np.prod(shape))).reshape(shape)
    # Few cells of class 1, far apart, so that levels grow.
    table1 = np.where(rng.random(shape) < share, 10.0, 1e-3) * table0
    table1 /= table1.sum()
    got = theory.levels_to_boundary(table0, table1, metric=metric)
    np.testing.assert_array_equal(got, brute_force(table0, table1, metric))


def test_the_metrics_agree_on_one_feature_and_are_ordered() -> None:
    table0, table1 = theory.random_discrete_classes(12, rng=3)
    l1, linf, single = (theory.levels_to_boundary(table0, table1, metric=m) for m in METRICS)
    assert (linf <= l1).all()
    assert (l1 <= single).all()
    np.testing.assert_array_equal(l1 == 1, single == 1)


def test_ties_and_priors_and_one_class_everywhere() -> None:
    same = np.full((3, 3), 1 / 9)
    for metric in METRICS:
        assert np.isinf(theory.levels_to_boundary(same, same, metric=metric)).all()  # ties go to class 0
    check = theory.check_lemma_a2(same, same)
    assert (check.decision == 0).all()
    assert check.accuracy.tolist() == pytest.approx([1.0, 0.0])
    assert np.isnan(check.one_level[1])
    assert check.mean_levels[0] == np.inf
    falls, rises = [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]
    assert theory.levels_to_boundary(falls, rises, priors=(0.3, 0.7)).tolist() == [1, 1, 2, 3]


def test_shares_are_masses_of_the_rightly_decided() -> None:
    table0, table1 = np.array([[0.5, 0.2], [0.2, 0.1]]), np.array([[0.1, 0.1], [0.2, 0.6]])
    check = theory.check_lemma_a2(table0, table1)
    np.testing.assert_array_equal(check.decision, [[0, 0], [0, 1]])
    np.testing.assert_array_equal(check.levels, [[2, 1], [1, 1]])
    close(check.accuracy, [0.9, 0.6])
    close(check.one_level, [0.4 / 0.9, 1.0])
    close(check.mean_levels, [1.4 / 0.9, 1.0])
    close(check.concentration, [0.7, 0.8])
    assert check.smallest.tolist() == [0.1, 0.1]
    close(check.mass(0), [[0.5, 0.2], [0.2, 0.0]])
    assert len(check.table().rows) == 2


def test_random_classes_are_distributions_with_a_floor_and_a_seed() -> None:
    table0, table1 = theory.random_discrete_classes((40, 30), floor=0.01, rng=5)
    for table in (table0, table1):
        assert table.shape == (40, 30)
        assert table.sum() == pytest.approx(1, abs=1e-12)
        assert table.min() >= 0.01 / 1200
    again = theory.random_discrete_classes((40, 30), floor=0.01, rng=5)
    np.testing.assert_array_equal(again, (table0, table1))
    assert (theory.random_discrete_classes((40, 30), rng=6)[0] != table0).any()


@pytest.mark.parametrize("feature", [0, 1])
def test_concentration_moves_one_marginal_and_keeps_the_conditionals(feature: int) -> None:
    table, _ = theory.random_discrete_classes((20, 15), rng=1)
    moved = theory.concentrate_feature(table, 0.9, feature=feature)
    marginal = moved.sum(axis=1 - feature)
    k = int(marginal.argmax())
    assert marginal[k] == pytest.approx(0.9)
    assert moved.sum() == pytest.approx(1)
    conditional = [np.moveaxis(t, feature, 0) / t.sum(axis=1 - feature)[:, None] for t in (table, moved)]
    np.testing.assert_allclose(*conditional, rtol=1e-12)
    assert theory.concentrate_feature(table, 1.0, feature=feature, level=3).sum(axis=1 - feature)[3] == pytest.approx(1)


def test_lemma_a2() -> None:
    """In the limit every point of the concentrated class is one level away, and the other class stays where it was."""
    found = theory.validate_lemma_a2(100, (0.9, 0.999, 0.99999), n=6)
    assert np.isnan(found.concentrations[0])
    assert found.one_level[0].max() < 0.1  # smooth classes: few points near the boundary
    assert (found.one_level[-1, :, 0] > 0.999).all()
    assert (np.diff(found.one_level[:, :, 0].mean(axis=1)) > 0).all()
    np.testing.assert_allclose(found.mean_levels[-1, :, 0], 1.0, atol=1e-3)
    assert found.one_level[-1, :, 1].max() < 0.1
    assert found.accuracy[-1].min() > 0.9
    assert [row[0] for row in found.table().rows] == ["as drawn", "0.9", "0.999", "0.99999"]
    assert max(map(len, found.table().terminal().split("\n"))) <= 100


def test_a_floor_in_the_other_class_is_needed() -> None:
    """Lemma A.2 assumes p2 > 0 everywhere; where that is tiny, the concentrated class keeps its distance."""
    table0, table1 = theory.random_discrete_classes(100, concentration=0.99999, floor=1e-3, rng=2)
    _, empty = theory.random_discrete_classes(100, floor=1e-12, rng=2)
    assert theory.check_lemma_a2(table0, table1).one_level[0] > 0.9999
    assert theory.check_lemma_a2(table0, empty).one_level[0] < 0.8


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.levels_to_boundary([0.5, 0.5], [1.0]), "same levels, got shapes"),
        (lambda: theory.levels_to_boundary([0.5, 0.6], [0.5, 0.5]), "table0 must sum to 1, got 1.1"),
        (lambda: theory.levels_to_boundary([0.5, 0.5], [1.5, -0.5]), "table1 must hold probabilities"),
        (lambda: theory.levels_to_boundary([np.nan, 0.5], [0.5, 0.5]), "table0 must hold probabilities"),
        (lambda: theory.levels_to_boundary(1.0, 1.0), "at least one feature"),
        (lambda: theory.levels_to_boundary([0.5, 0.5], [0.5, 0.5], metric="l2"), "'linf', 'single', got 'l2'"),
        (lambda: theory.levels_to_boundary([0.5, 0.5], [0.5, 0.5], priors=[1.0]), "two probabilities"),
        (lambda: theory.random_discrete_classes(0), r"levels\[0\] must be an integer of at least 1"),
        (lambda: theory.random_discrete_classes(5, floor=0.0), "floor must be a probability above 0"),
        (lambda: theory.random_discrete_classes(5, bumps=0), "bumps must be an integer of at least 1"),
        (lambda: theory.random_discrete_classes(5, concentration=1.5), "concentration must be a probability"),
        (lambda: theory.concentrate_feature(np.eye(2) / 2, 0.5, feature=2), "an axis of the table, 0 to 1, got 2"),
        (lambda: theory.concentrate_feature([0.5, 0.5], 0.5, level=2), "level must be 0 to 1, got 2"),
        (lambda: theory.concentrate_feature([1.0], 0.5), "none elsewhere"),
        (lambda: theory.validate_lemma_a2(n=0), "n must be an integer of at least 1, got 0"),
    ],
)
def test_bad_input_says_what_is_wrong(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
