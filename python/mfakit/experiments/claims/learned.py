"""What the paper measures of classifiers that learn; from ``table1`` and the experiments on settings and real data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..._io.report import number, percent
from .. import paper, table3
from ..study.learners import CW, CW_AUTO
from ..study.numbers import AttackNumbers, LearnerNumbers, SetNumbers
from .claim import (
    BRITTLE,
    ROBUST,
    Claim,
    Decision,
    NotMeasuredError,
    Results,
    decided,
    is_face,
    learners,
    percents,
    ratio,
    ratios,
    scope,
    spread,
    studied,
)  # fmt: skip

__all__ = ["ACCURATE", "CLAIMS", "FOOLED", "brittle"]

# A classifier that learned its data set at all, and an attack that fooled as good as all.
ACCURATE, FOOLED = 0.95, 0.1
# The least accurate RBF SVM that the paper's Table 1 has.
ACCURATE_RBF = 0.85
# Of norms that are called alike, and of γ that is called small: the bandwidth is 1/√(2γ).
ALIKE, SMALL_GAMMA = 0.2, 0.002
# In accuracy: what is called a loss, and what "about 5%" may be.
LOSS, ABOUT_5 = 0.02, 0.08


def brittle(
    kind: str, name: str, accurate: float, printed: Mapping[str, object] = paper.TABLE1
) -> Callable[[Results], Decision]:
    """What decides that every learner of a kind is accurate and brittle; `printed`: data sets that the paper has."""

    def decide(results: Results) -> Decision:
        sets = studied(results, kind)
        found = ratios(sets, kind)
        right = [learner.accuracy for _, learner, _ in found]
        left = [learner.strongest.adversarial_accuracy for _, learner, _ in found]
        values = [value for _, _, value in found]
        return decided(
            max(values) < BRITTLE and max(left) <= FOOLED and min(right) >= accurate,
            f"{name}: {percents(right)}% right; fooled at {spread(values)} of the certified "
            f"Bayes radius (median), mean ℓ2 {spread([learner.strongest.mean_l2 for _, learner, _ in found])}; at most "
            f"{percent(max(left))}% resist",
            scope(sets, printed),
        )

    return decide


def _rbf(results: Results) -> Decision:
    sets = studied(results, "rbf-svm")
    best: dict[str, tuple[float, LearnerNumbers]] = {}
    by_label: dict[str, list[float]] = {}
    for s, learner, value in ratios(sets, "rbf-svm"):
        by_label.setdefault(learner.label, []).append(value)
        if learner.accuracy >= ACCURATE_RBF and value > best.get(s.name, (-np.inf,))[0]:
            best[s.name] = (value, learner)
    if not best:
        raise NotMeasuredError(f"no RBF SVM is right on {100 * ACCURATE_RBF:g}% of the samples")
    values = [value for value, _ in best.values()]
    norms = [learner.strongest.mean_l2 for _, learner in best.values()]
    right = [learner.accuracy for _, learner in best.values()]
    return decided(
        len(best) == len({s.name for s in sets}) and min(values) > ROBUST,
        f"The most robust one of each data set is {percents(right)}% right, and fooled at {spread(values)} of the "
        f"certified Bayes radius (median), mean ℓ2 {spread(norms)}; by rule for γ: "
        f"{'; '.join(f'{label} {spread(group)}' for label, group in by_label.items())}",
        scope(sets),
    )


def _bandwidth(results: Results) -> Decision:
    sets = studied(results, "rbf-svm", "linear-svm")
    shares = []
    for s, learner in learners(sets, "rbf-svm"):
        gamma = learner.training.get("gamma", np.inf)
        (linear,) = [other.strongest.mean_l2 for _, other in learners([s], "linear-svm")][:1]
        if gamma <= SMALL_GAMMA and np.isfinite(learner.strongest.mean_l2 / linear):
            shares.append(learner.strongest.mean_l2 / linear)
    if not shares:
        raise NotMeasuredError(
            f"no RBF SVM with γ of at most {SMALL_GAMMA:g} was trained in {', '.join(results)}; cw_vs_gradient has one"
        )
    return decided(
        all(abs(share - 1) <= ALIKE for share in shares),
        f"With γ of at most {SMALL_GAMMA:g} an RBF SVM needs {spread(shares)} times the linear one's mean ℓ2",
        scope(sets),
    )


def _by_setting(results: Results, kinds: tuple[str, ...]) -> tuple[dict[str, list[LearnerNumbers]], list[SetNumbers]]:
    """Learners of studies by label, over data sets."""
    sets = studied(results, kinds[0])
    found: dict[str, list[LearnerNumbers]] = {}
    for s in sets:
        for learner in s.learners:
            if learner.kind in kinds and np.isfinite(ratio(learner)):
                found.setdefault(learner.label, []).append(learner)
    return found, sets


def _settings(results: Results) -> Decision:
    by_label, sets = _by_setting(results, ("cnn",))
    values = {label: _mean([ratio(one) for one in group]) for label, group in by_label.items()}
    if len(values) < 2:
        raise NotMeasuredError("fewer than two settings of the CNN were measured")
    best = max(values, key=lambda name: values[name])
    fresh = [int(n) for one in sets for n in (u.name.removeprefix("fresh-") for u in one.learners) if n.isdecimal()]
    return decided(
        values[best] < BRITTLE,
        f"{len(values)} settings ({'; '.join(values)}) need {spread(list(values.values()))} of the certified Bayes "
        f"radius (mean over data sets of medians); the most robust: {best}",
        f"{scope(sets)}; at most {max(fresh, default=0):,} dynamic samples of the paper's 1,000,000",
    )


def _trades(results: Results) -> Decision:
    by_label, sets = _by_setting(results, ("trades", "bayes", "rbf-svm"))
    right = {label: _mean([one.accuracy for one in group]) for label, group in by_label.items()}
    robustness = {label: _mean([ratio(one) for one in group]) for label, group in by_label.items()}
    trades = [label for label, group in by_label.items() if group[0].kind == "trades"]
    others = [right[label] for label in by_label if label not in trades]
    if not trades or not others:
        raise NotMeasuredError("the results lack TRADES CNNs, or an optimal classifier or RBF SVM beside them")
    robust = [label for label in trades if robustness[label] > ROBUST]
    kept = [label for label in robust if max(others) - right[label] < LOSS]
    each = ", ".join(f"{label} {percent(right[label])}% right at {number(robustness[label])}" for label in trades)
    said = f"robust: {', '.join(robust)}" if robust else "none of them is robust"
    return decided(
        not kept,
        f"{each} of the certified radius; {said}; the others are up to {percent(max(others))}% right",
        scope(sets),
    )


def _alike(printed: paper.Accuracies, prefix: str) -> Callable[[Results], Decision]:
    def decide(results: Results) -> Decision:
        sets = [s for s in studied(results, "cnn", "linear-svm", "rbf-svm") if s.name.startswith(prefix)]
        if not sets:
            raise NotMeasuredError(f"no data set in {', '.join(results)} is called {prefix}...")
        shares: dict[str, list[float]] = {"cnn": [], "linear-svm": []}
        for s in sets:
            rbf = max((learner.strongest.mean_l2 for _, learner in learners([s], "rbf-svm")), key=_known)
            for kind, values in shares.items():
                values += [learner.strongest.mean_l2 / rbf for _, learner in learners([s], kind)]
        known = {kind: [v for v in values if np.isfinite(v)] for kind, values in shares.items()}
        if not all(known.values()):
            raise NotMeasuredError("no sample of some classifier was fooled")
        return decided(
            max(v for values in known.values() for v in values) < BRITTLE,
            f"CNNs need {spread(known['cnn'])} and linear SVMs {spread(known['linear-svm'])} times the mean ℓ2 of the "
            "RBF SVM",
            scope(sets, printed),
        )

    return decide


def _known(value: float) -> float:
    return value if np.isfinite(value) else -np.inf


def _transfer(results: Results) -> Decision:
    rows = [row for result in results.values() if isinstance(result, table3.Result) for row in result.rows]
    faces = [row for row in rows if is_face(row.name)]
    if not rows:
        raise NotMeasuredError("the result of table3 has no data sets")
    losses = [row.real - row.symmetric for row in faces or rows]
    printed = _mean([(real - symmetric) / 100 for real, symmetric in paper.TABLE3.values()])
    each = ", ".join(f"{row.name} {100 * (row.real - row.symmetric):.1f}" for row in rows)
    return decided(
        _mean(losses) <= ABOUT_5,
        f"CNNs that learned from symmetric data lose {100 * _mean(losses):.1f} points on real test images on average; "
        f"the paper's Table 3: {100 * printed:.1f}; each: {each}",
        f"{len(losses)} data sets, {len({row.name for row in faces} & set(paper.TABLE3))} of the paper's "
        f"{len(paper.TABLE3)}",
    )


def _attacks_agree(results: Results) -> Decision:
    shares, sets = {}, studied(results)
    for s in sets:
        for learner in s.learners:
            by_cw = [a for a in learner.attacks if a.attack in (CW, CW_AUTO)]
            by_gradient = [a for a in learner.attacks if a.attack not in (CW, CW_AUTO)]
            if by_cw and by_gradient:
                value = _strongest(by_cw).mean_l2 / _strongest(by_gradient).mean_l2
                if np.isfinite(value):
                    shares[f"{learner.label} on {s.name}"] = value
    if not shares:
        raise NotMeasuredError(f"no classifier in {', '.join(results)} was attacked by both (table1 --cw-all does it)")
    furthest = max(shares, key=lambda name: abs(shares[name] - 1))
    return decided(
        abs(shares[furthest] - 1) <= ALIKE,
        f"CW-L2 needs {spread(list(shares.values()))} times the mean ℓ2 of the gradient attack; furthest from it: "
        f"{furthest}, {number(shares[furthest])}",
        scope(sets),
    )


def _strongest(attacks: Sequence[AttackNumbers]) -> AttackNumbers:
    return min(attacks, key=lambda attack: attack.adversarial_accuracy)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


_ROBUST_MEANS = f"{ROBUST:g} of the certified Bayes radius (median over samples)"
_BRITTLE_MEANS = f"{BRITTLE:g} of the certified Bayes radius (median over samples)"
_FOOLED_MEANS = f"the strongest attack leaves at most {100 * FOOLED:g}%"

CLAIMS = (
    Claim(
        "cnn-brittle",
        "CNNs learn a brittle classifier",
        "On all 15 symmetric data sets the CNN finds an accurate classifier that small perturbations fool, though the "
        "optimal one is robust.",
        "section 3, Table 1, Figures 7 and 8",
        ("table1",),
        f"on every data set each CNN is right on {100 * ACCURATE:g}% of the samples and fooled below {_BRITTLE_MEANS}; "
        f"{_FOOLED_MEANS}",
        brittle("cnn", "CNNs", ACCURATE),
    ),
    Claim(
        "linear-brittle",
        "Linear SVMs learn a brittle classifier",
        "The linear SVM, too, learns a brittle classifier, since the optimal one is not linear.",
        "section 3, Table 1, Figure 7",
        ("table1",),
        f"on every data set it is right on {100 * ACCURATE:g}% of the samples and fooled below {_BRITTLE_MEANS}; "
        f"{_FOOLED_MEANS}",
        brittle("linear-svm", "Linear SVMs", ACCURATE),
    ),
    Claim(
        "rbf-robust",
        "RBF SVMs learn a robust classifier",
        "With an appropriate bandwidth RBF SVMs find robust classifiers from the same training data.",
        "section 3, Table 1, Figure 7",
        ("table1",),
        f"on every data set some RBF SVM is right on {100 * ACCURATE_RBF:g}% of the samples (the least in the paper is "
        f"86%), and fooled above {_ROBUST_MEANS}",
        _rbf,
    ),
    Claim(
        "large-bandwidth",
        "An RBF SVM of large bandwidth is like a linear one",
        "Where the bandwidth is too large, the RBF SVM performs similarly to a linear SVM.",
        "section 3",
        ("table1", "fig10", "cw_vs_gradient"),
        f"with γ of at most {SMALL_GAMMA:g} its mean ℓ2 is within {100 * ALIKE:g}% of the linear SVM's",
        _bandwidth,
    ),
    Claim(
        "cnn-settings",
        "Width, depth, training time and more data do not help",
        "Neither more filters or layers, nor longer training, nor up to a million dynamic samples make a CNN robust.",
        "section 3, Figure 9",
        ("fig9",),
        f"every setting is fooled below {BRITTLE:g} of the certified Bayes radius (mean over data sets of medians)",
        _settings,
    ),
    Claim(
        "trades",
        "No TRADES CNN is both robust and accurate",
        "Adversarial training by TRADES gives a robust CNN only at a much lower accuracy than the optimal classifier's "
        "or the RBF SVM's.",
        "section 3, Figure 10",
        ("fig10",),
        f"every TRADES CNN that is fooled above {ROBUST:g} of the certified radius is at least {100 * LOSS:g} points "
        "less accurate than the best of the others",
        _trades,
    ),
    Claim(
        "real-faces",
        "Real faces: the same order",
        "On real images of faces CNN and linear SVM are brittle, and the RBF SVM is robust.",
        "section 3.1, Figure 11, Table 2",
        ("table2",),
        f"on every data set CNN and linear SVM need less than {BRITTLE:g} of the RBF SVM's mean ℓ2",
        _alike(paper.TABLE2, "celeba-"),
    ),
    Claim(
        "real-objects",
        "CIFAR-10: the same order",
        "On pairs of CIFAR-10's classes the results agree with all others.",
        "section 3.1, Figure 12",
        ("fig12",),
        f"on every pair CNN and linear SVM need less than {BRITTLE:g} of the RBF SVM's mean ℓ2",
        _alike({}, "cifar10-"),
    ),
    Claim(
        "transfer",
        "Symmetric data are close to real data",
        "CNNs that were trained on symmetric data lose about 5% of accuracy on real test images.",
        "appendix D.4, Table 3",
        ("table3",),
        f"the mean loss is at most {100 * ABOUT_5:g} points",
        _transfer,
    ),
    Claim(
        "attacks-agree",
        "CW-L2 and the gradient attack agree",
        "CW-L2 needs perturbations of similar size as the gradient attack, and what resists one resists the other.",
        "appendix C.2",
        ("cw_vs_gradient", "table1"),
        f"the mean ℓ2 of every classifier that both attacked differs by at most {100 * ALIKE:g}%",
        _attacks_agree,
    ),
)
