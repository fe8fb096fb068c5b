"""Adam on batches: the loop that every network is trained by, and the plain loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from ..._io.progress import open_bar
from .batches import Batch
from .network import Network

__all__ = ["CrossEntropy", "Loss", "train"]

Array = NDArray[Any]
# (network, x [n, d], y [n]) to the sum of the samples' losses, and sums for the history (numbers of right answers).
Loss = Callable[[Network, torch.Tensor, torch.Tensor], tuple[torch.Tensor, dict[str, torch.Tensor]]]


class CrossEntropy:
    """Cross-entropy with label smoothing ε: the target is 1 - ε + ε/C for the true class and ε/C for the others."""

    # Forward passes that a sample costs: one, and twice that for the gradient.
    passes = 3

    def __init__(self, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def __call__(
        self, network: Network, x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss, and how many answers are right."""
        logits = network(x)
        loss = cross_entropy(logits, y, reduction="sum", label_smoothing=self.label_smoothing)
        return loss, {"accuracy": (logits.detach().argmax(dim=1) == y).sum()}


def train(
    network: Network,
    batches: Iterator[Batch],
    loss: Loss,
    *,
    learning_rate: float,
    n_steps: int,
    marks: Array,
    rows_at_once: int,
    progress: bool | None,
    name: str,
) -> dict[str, list[float]]:
    """Train `network` in place for `n_steps` batches.

    Parameters
    ----------
    network : Network
    batches : iterator of (X float32 [b, d], y int64 [b])
    loss : Loss
    learning_rate : float
        Of Adam.
    n_steps : int
    marks : [m]
        Steps after which a line of the history is written, the last one `n_steps`.
    rows_at_once : int
        A batch is processed in parts of this many samples; the gradient is that of the whole batch.
    progress : bool or None
    name : str
        On the progress bar.

    Returns
    -------
    dict
        "step", "loss" and what the loss counts: means over the samples since the line before.

    Raises
    ------
    ValueError
        A loss that is no longer finite.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    history: dict[str, list[float]] = {"step": [], "loss": []}
    written, sums = set(marks.tolist()), _Sums()
    with open_bar(progress, total=n_steps, desc=name, unit="step") as bar:
        for step in range(1, n_steps + 1):
            X, y = next(batches)
            _gradient(network, loss, X, y, rows_at_once, sums)
            if not math.isfinite(sums.values["loss"]):
                raise ValueError(
                    f"training diverged: the loss is {sums.values['loss']} at step {step}; lower learning_rate or "
                    f"scale X to [0, 1]"
                )
            optimizer.step()
            if step in written:
                history["step"].append(step)
                for key, value in sums.means().items():
                    history.setdefault(key, []).append(value)
                bar.set_postfix_str(f"loss {history['loss'][-1]:.4f}", refresh=False)
                sums = _Sums()
            bar.update()
    with torch.no_grad():  # what the last step did no loss has seen
        last = network(torch.from_numpy(X[:rows_at_once]).to(network.output.weight.device))
    if not torch.isfinite(last).all():
        raise ValueError(
            "training diverged: the last step made logits that are not finite; lower learning_rate or scale X"
        )
    return history


def _gradient(network: Network, loss: Loss, X: Array, y: Array, rows_at_once: int, sums: _Sums) -> None:
    """Leave the gradient of a batch's mean loss in the parameters."""
    device = network.output.weight.device
    network.zero_grad(set_to_none=True)
    for start in range(0, len(X), rows_at_once):
        part = slice(start, start + rows_at_once)
        x_part, y_part = (torch.from_numpy(a[part]).to(device) for a in (X, y))
        total, counts = loss(network, x_part, y_part)
        (total / len(X)).backward()  # type: ignore[no-untyped-call]
        sums.add({"loss": total.detach(), **counts}, len(x_part))


class _Sums:
    """Sums over samples, and their means."""

    def __init__(self) -> None:
        self.n, self.values = 0, {"loss": 0.0}

    def add(self, values: dict[str, torch.Tensor], n: int) -> None:
        self.n += n
        for key, value in values.items():
            self.values[key] = self.values.get(key, 0.0) + float(value)

    def means(self) -> dict[str, float]:
        return {key: value / self.n for key, value in self.values.items()}
