"""Which classifiers are trained, with which parameters, and how each is attacked (appendices B and C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..._io.messages import excerpt, meant

__all__ = [
    "CW",
    "CW_AUTO",
    "GRADIENT",
    "LEARNERS",
    "LOG_RATIO",
    "Learner",
    "learners",
    "network_parameters",
    "unfitted",
]

CW, CW_AUTO, GRADIENT, LOG_RATIO = "CW-L2", "CW-L2 auto", "gradient", "log-ratio"
# The paper's γ, as far as its numbers tell: one for all pairs of digits gives the shares that it prints.
PAPER_GAMMA = 0.04
# A bandwidth so large that the paper says the machine is like a linear one.
WIDE_GAMMA = 0.001


@dataclass(frozen=True)
class Learner:
    """One classifier.

    Attributes
    ----------
    name, label : str
        In files and in tables.
    kind : str
        "bayes", "cnn", "trades", "linear-svm", "rbf-svm".
    attacks : tuple of str
        The one of the paper first. Others stand beside where that one may fail by itself.
    n_train : int or None
        Training samples; None for the Bayes classifier, which is not trained, and for training on fresh samples.
    n_steps : int or None
        Batches of fresh samples to train on instead.
    parameters : mapping
        Of the classifier's constructor.
    """

    name: str
    label: str
    kind: str
    attacks: tuple[str, ...]
    n_train: int | None = 10_000
    n_steps: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def given(self, n_train: int | None = None, **parameters: Any) -> Learner:
        """With another number of training samples (but for Bayes), and more parameters."""
        n = self.n_train if n_train is None or self.kind == "bayes" else n_train
        return replace(self, n_train=n, parameters={**self.parameters, **parameters})

    def attacked_by(self, *attacks: str) -> Learner:
        """Attacked by these, each once."""
        return replace(self, attacks=tuple(dict.fromkeys(attacks)))

    def check(self) -> None:
        """Raise for parameters out of range, before hours of work and not when it is their turn."""
        if self.kind != "bayes":
            unfitted(self.kind, self.parameters)._check_parameters()


# The largest γ that has as many held-out samples right as any: all of them, the accuracy that Table 1 has, where the
# samples suffice for it.
_RBF = {"gamma": "largest-accurate", "accuracy_threshold": "best"}
LEARNERS = {
    learner.name: learner
    for learner in (
        Learner("bayes", "Bayes", "bayes", (GRADIENT,), None),
        Learner("cnn", "CNN", "cnn", (CW, CW_AUTO)),
        Learner("cnn-smoothed", "CNN, smoothing .1", "cnn", (CW, CW_AUTO), parameters={"label_smoothing": 0.1}),
        Learner("linear-svm", "linear SVM", "linear-svm", (GRADIENT,)),
        Learner("rbf-svm", "RBF SVM", "rbf-svm", (GRADIENT, LOG_RATIO), parameters=_RBF),
        Learner("rbf-svm-.04", "RBF SVM γ .04", "rbf-svm", (GRADIENT, LOG_RATIO), parameters={"gamma": PAPER_GAMMA}),
        Learner("rbf-svm-.001", "RBF SVM γ .001", "rbf-svm", (GRADIENT, LOG_RATIO), parameters={"gamma": WIDE_GAMMA}),
    )
}


def learners(names: Sequence[str]) -> list[Learner]:
    """The learners of these names, in the order of ``LEARNERS``.

    Raises
    ------
    ValueError
        For no or unknown names.
    """
    unknown = [name for name in names if name not in LEARNERS]
    if unknown or not names:
        got = excerpt(unknown[0]) + meant(str(unknown[0]), LEARNERS) if unknown else "none"
        raise ValueError(f"classifiers must be some of {', '.join(LEARNERS)}, got {got}")
    return [learner for name, learner in LEARNERS.items() if name in names]


def network_parameters(found: Sequence[Learner], config: Any) -> list[Learner]:
    """With a configuration's `n_train` and `seed`, and for networks its `width`, `depth` and `epochs`, where they are
    not None.
    """
    size = {name: getattr(config, name) for name in ("width", "depth", "epochs")}
    network = {name: value for name, value in size.items() if value is not None} | {"random_state": config.seed}
    own: dict[str, dict[str, Any]] = {"cnn": network, "trades": network, "rbf-svm": {"random_state": config.seed}}
    return [learner.given(config.n_train, **own.get(learner.kind, {})) for learner in found]


def unfitted(kind: str, parameters: Mapping[str, Any]) -> Any:
    """A classifier of this kind, with these arguments of its constructor.

    Raises
    ------
    ImportError
        Without torch, for a network.
    """
    from ... import classifiers

    names = {"cnn": "CNN", "trades": "TRADES", "linear-svm": "LinearSVM", "rbf-svm": "RBFSVM"}
    try:
        return getattr(classifiers, names[kind])(**parameters)
    except ImportError as error:
        raise ImportError("networks and CW-L2 need torch: pip install 'mfakit[torch]', or leave them out") from error
