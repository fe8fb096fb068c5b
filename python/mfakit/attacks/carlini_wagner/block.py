"""Carlini and Wagner's attack on one batch: which samples are attacked, the search, polish and final verification."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..state import Choice, State
from .network import Aim, Network, size_of
from .polish import polish, settle
from .search import search
from .settings import Settings

__all__ = ["Block"]

Array = NDArray[Any]


class Block:
    """One batch of samples X [n, d]."""

    def __init__(self, network: Network, X: Array, settings: Settings) -> None:
        self.network, self.X, self.settings = network, X, settings

    def decide(self, y: Array | None, targets: Array | None, start: int) -> None:
        """Score the samples; those that are right are attacked, each with its aim. `start` is for messages."""
        with torch.no_grad():
            z = self.network(self.network.tensor(self.X))
        n, predicted = len(z), z.argmax(dim=1).cpu().numpy()
        broken = z.isnan().any(dim=1).cpu().numpy() | ~np.isfinite(self.X).all(axis=1)
        self.targets, labels = targets, predicted if y is None else y
        if targets is not None and (targets == labels).any():
            row = int((targets == labels).argmax())
            raise ValueError(
                f"targets must differ from the true classes, but both are {targets[row]} in row {start + row}"
            )
        wrong = (predicted != labels) | broken
        reason = np.where(broken, "NaN logits", np.where(wrong, "already wrong", "max_steps")).astype("<U16")
        self.attacked = np.flatnonzero(~wrong)
        classes = torch.as_tensor(labels if targets is None else targets, device=z.device)
        aim = Aim(classes, 1.0 if targets is None else -1.0, size_of(z))
        self.aim = aim.take(torch.as_tensor(self.attacked, device=z.device))
        self.state = State(labels, predicted.copy(), wrong, np.zeros(n, bool), np.zeros(n, np.int64), reason, Choice(n))

    def search(self, progress: Any) -> Array:
        """The points to return [n, d], searched, polished and verified."""
        state, rows, network, settings = self.state, self.attacked, self.network, self.settings
        origin = torch.tensor(self.X[rows], dtype=network.work, device=network.device)
        frame, found = search(network, origin, self.aim, settings, progress)
        won = torch.isfinite(found.squares) & ~found.nan_logits
        frame, aim, changes = frame.take(won), self.aim.take(won), found.displacements[won]
        if settings.polish and len(changes):
            changes = polish(frame, changes, aim, settings.confidence)
        ends = {"no gradient": found.no_gradient, "NaN gradient": found.nan_gradient, "NaN logits": found.nan_logits}
        for reason, at in ends.items():
            state.reason[rows[at.cpu().numpy()]] = reason
        state.n_steps[rows] = found.n_steps.cpu().numpy()
        rows = rows[won.cpu().numpy()]
        points = self.X.copy()
        points[rows], sure, decisions = settle(frame, self.X[rows], changes, aim, settings.box)
        state.flipped[rows], state.reason[rows] = sure, np.where(sure, "flipped", "not verified")
        state.y_adv[rows] = np.where(sure, decisions, state.y_adv[rows])
        goals = state.y_adv if self.targets is None else self.targets
        state.choice.target_class = np.where(state.flipped, goals, -1)
        return points
