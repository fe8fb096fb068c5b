"""What CNN and TRADES share: scikit-learn's interface around a trained network."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..._arrays.lazy_rows import by_blocks
from ..._arrays.options import Options, Precision
from ..._arrays.rows import wrap_like
from ..._arrays.streams import opened, streamed
from ..._checks import as_generator, check_integers, check_numbers
from ..._sklearn import become, names_of
from ..._threads.process import errstate
from .._checks import check_block, encode_labels
from .._classifier import Classifier
from .batches import Batch, Stream, as_rows, shuffled_batches, writeable
from .files import check_tensors, read_image_shape
from .layout import Layout, as_image_shape

if TYPE_CHECKING:
    import torch

    from .network import Network

__all__ = ["NetworkClassifier"]

Array = NDArray[Any]
Self = TypeVar("Self", bound="NetworkClassifier")

# A stream of batches has no epochs: its history has at most this many lines.
STREAM_LINES = 100
SURVEY_ROWS = 4096


class NetworkClassifier(Classifier):
    """A classifier whose logits are a :class:`~mfakit.classifiers.networks.network.Network`; see
    :class:`mfakit.classifiers.CNN` for parameters and attributes. A subclass says what is trained: ``_loss``.
    """

    image_shape: Any
    width: int
    depth: int
    epochs: int
    batch_size: int
    learning_rate: float
    label_smoothing: float
    negative_slope: float
    device: str
    random_state: Any
    n_threads: int | None
    progress: bool | None

    module_: Network
    image_shape_: tuple[int, int, int]
    history_: dict[str, list[float]]

    def fit(self: Self, X: Any, y: Any) -> Self:
        """Train on the rows of X for ``epochs`` passes in new random orders.

        Parameters
        ----------
        X : array-like, [n, d]
            Images flattened height-width-channel; any real values, [0, 1] by convention. NumPy array in any layout,
            memory map, CPU torch tensor or nested sequence; only batches of it are converted.
        y : array-like, [n]
            Integer labels, two classes or more.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Images that do not fit ``image_shape``, labels that are not integers or of one class only, NaN or inf in X
            (with the first bad row), bad parameters, a loss that diverges.
        TypeError
            X that is not real numbers, or sparse.
        BackendUnavailable
            A CUDA device that is not there.
        """
        self._check_parameters()
        X = opened(X)
        rows = as_rows(X)
        classes, codes = encode_labels(y, len(rows), type(self).__name__)
        layout = self._layout(rows.shape[1], len(classes))
        for start in range(0, len(rows), SURVEY_ROWS):
            check_block(rows, rows.block(start, min(start + SURVEY_ROWS, len(rows))), start)
        steps = -(-len(rows) // self.batch_size)
        init, data, noise = self._generators()
        batches = shuffled_batches(rows, codes, self.batch_size, data)
        names = names_of(self, X)
        network, history = self._train(layout, batches, steps * np.arange(1, self.epochs + 1), init, noise)
        become(self, module_=network, classes_=classes, image_shape_=layout.image_shape, history_=history, **names)
        return self

    def fit_stream(self: Self, sampler: Any, n_steps: int, *, classes: Any = None) -> Self:
        """Train on ``n_steps`` batches of fresh samples: ``n_steps * batch_size`` different ones in all.

        Parameters
        ----------
        sampler : BayesClassifier, or callable
            An object with ``sample(n, rng=...)``, or a callable (n, rng) that returns X [n, d] and y [n]; rng is a
            :class:`numpy.random.Generator`, and what it gives is the only randomness that a seed can repeat.
        n_steps : int
        classes : array-like of int, optional
            All labels there are. None: the sampler's ``classes_``, else those of the first batch.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError, BackendUnavailable
            As :meth:`fit`, for any batch; a sampler that is none; labels that are not among the classes.
        """
        self._check_parameters()
        check_integers({"n_steps": n_steps}, 1)
        init, data, noise = self._generators()
        stream = Stream(sampler, self.batch_size, data, classes)
        layout = self._layout(stream.n_features, len(stream.classes))
        lines = min(n_steps, STREAM_LINES)
        marks = np.arange(1, lines + 1) * n_steps // lines
        network, history = self._train(layout, iter(stream), marks, init, noise)
        become(
            self, module_=network, classes_=stream.classes, image_shape_=layout.image_shape, history_=history,
            n_features_in_=stream.n_features,
        )  # fmt: skip
        return self

    @streamed
    @by_blocks
    def decision_function(
        self, X: Any, *, precision: Precision | None = None, check_finite: bool = True, block_rows: int | None = None
    ) -> Any:
        """Two classes: log-odds of the second, [n]; more: logits [n, C]. In X's dtype and container.

        Parameters
        ----------
        X : array-like, [n, d]
        precision : {None, "float32", "float64"}
            What the network runs in, its weights widened if need be; None is X's own dtype (float64 is several times
            slower).
        check_finite : bool
            Refuse NaN and inf; False skips the check, and the results of the rows that have them are NaN.
        block_rows : int or None
            Samples at once; results depend on it by rounding only.

        Raises
        ------
        NotFittedError
        ValueError, TypeError
            X of another width, with NaN or inf, or not real numbers.
        """
        return self._evaluate(X, _decision, 1, (), Options(precision=precision, check_finite=check_finite,
                                                           block_rows=block_rows))  # fmt: skip

    @streamed
    @by_blocks
    def decision_gradient(
        self, X: Any, *, precision: Precision | None = None, check_finite: bool = True, block_rows: int | None = None
    ) -> Any:
        """Gradient of :meth:`decision_function` in X: [n, d] for two classes, [n, C, d] for more."""
        options = Options(precision=precision, check_finite=check_finite, block_rows=block_rows)
        return self._evaluate(X, _gradient, 3, (self._checked(X).shape[1],), options)

    @streamed
    @by_blocks
    def predict(self, X: Any, *, precision: Precision | None = None, check_finite: bool = True) -> Any:
        """The class of each sample, int64 [n]; a tie goes to the lower label."""
        decision = np.asarray(self.decision_function(X, precision=precision, check_finite=check_finite))
        codes = (decision > 0).astype(np.int64) if decision.ndim == 1 else decision.argmax(axis=1)
        return wrap_like(self.classes_[codes], X)

    @streamed
    @by_blocks
    def predict_log_proba(self, X: Any, *, precision: Precision | None = None, check_finite: bool = True) -> Any:
        """log p(class | x) as the network has it, [n, C], nats, in X's dtype."""
        decision = np.asarray(self.decision_function(X, precision=precision, check_finite=check_finite))
        logits = decision.astype(np.float64)
        if decision.ndim == 1:
            logits = np.stack([np.zeros(len(logits)), logits], axis=1)
        logits -= logits.max(axis=1, keepdims=True)
        with errstate(under="ignore"):  # what cannot be is 0, whatever the caller has asked of NumPy
            logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return wrap_like(logits.astype(decision.dtype), X)

    @streamed
    @by_blocks
    def predict_proba(self, X: Any, *, precision: Precision | None = None, check_finite: bool = True) -> Any:
        """p(class | x) as the network has it, [n, C]; rows sum to 1."""
        log_proba = self.predict_log_proba(X, precision=precision, check_finite=check_finite)
        with errstate(under="ignore"):
            return wrap_like(np.exp(np.asarray(log_proba)), X)

    def _loss(self, rng: np.random.Generator) -> Any:
        """What is minimised, a :class:`~mfakit.classifiers.networks.training.Loss`; `rng` is for its own randomness."""
        raise NotImplementedError

    def _check_parameters(self) -> None:
        check_integers({"width": self.width, "epochs": self.epochs, "batch_size": self.batch_size}, 1)
        check_integers({"depth": self.depth}, 1, 1000)
        check_numbers({"learning_rate": self.learning_rate}, positive=True)
        check_numbers({"label_smoothing": self.label_smoothing, "negative_slope": self.negative_slope}, positive=False,
                      below=1.0)  # fmt: skip
        if self.n_threads is not None:
            check_integers({"n_threads": self.n_threads}, 1)

    def _layout(self, d: int, n_classes: int) -> Layout:
        layout = Layout(as_image_shape(self.image_shape, d), n_classes, int(self.width), int(self.depth))
        layout.check()
        return layout

    def _generators(self) -> tuple[np.random.Generator, np.random.Generator, np.random.Generator]:
        """For the weights, the samples and the loss, each of its own: what one draws changes no other."""
        rng = as_generator(self.random_state)
        first, second, third = (np.random.default_rng(rng.integers(2**63 - 1, size=4)) for _ in range(3))
        return first, second, third

    def _train(
        self,
        layout: Layout,
        batches: Iterator[Batch],
        marks: Array,
        init: np.random.Generator,
        noise: np.random.Generator,
    ) -> tuple[Network, dict[str, list[float]]]:
        """A new network and its history; the estimator is not touched, so that an interrupt leaves it as it was."""
        _require_torch(type(self).__name__)
        from .network import Network, as_device, settled
        from .training import train

        device = as_device(self.device)
        loss = self._loss(noise)
        rows = min(self.batch_size, layout.rows_at_once(loss.passes))
        with settled(device, self.n_threads), self._threads(layout, loss.passes, rows):
            network = Network(layout, self.negative_slope, init).to(device)
            history = train(
                network, batches, loss, learning_rate=float(self.learning_rate), n_steps=int(marks[-1]), marks=marks,
                rows_at_once=layout.rows_at_once(loss.passes), progress=self.progress, name=type(self).__name__,
            )  # fmt: skip
        network.zero_grad(set_to_none=True)
        # Attacks differentiate in x: gradients of the weights would only cost them time.
        return network.eval().requires_grad_(False), history

    def _threads(self, layout: Layout, passes: int, rows: int) -> Any:
        """What bounds torch's threads by the work of this many forward passes of `rows` images; nothing where the
        caller has said how many there are to be.
        """
        from .network import bounded_threads

        if self.n_threads is not None:
            return contextlib.nullcontext()
        return bounded_threads(2.0 * passes * rows * layout.n_products)

    def _to_file(self) -> tuple[dict[str, Array], dict[str, Any]]:
        tensors = {name: value.detach().cpu().numpy() for name, value in self.module_.named_parameters()}
        return tensors, {"image_shape": self.image_shape_}

    def _from_file(self, tensors: dict[str, Array], settings: dict[str, Any], classes: Array) -> dict[str, Any]:
        layout = Layout(read_image_shape(settings), len(classes), self.width, self.depth)
        check_tensors(tensors, layout)
        return {"layout": layout, "tensors": tensors}

    def _fitted(self, classes: Array, **learned: Any) -> dict[str, Any]:
        _require_torch(type(self).__name__)
        import torch

        from .network import Network, as_device, settled

        layout, device = learned["layout"], as_device(self.device)
        with settled(device), torch.no_grad():
            network = Network(layout, self.negative_slope)
            for name, parameter in network.named_parameters():
                parameter.copy_(torch.from_numpy(writeable(learned["tensors"][name])))
            network = network.to(device).eval().requires_grad_(False)
        return {
            "module_": network,
            "classes_": classes,
            "image_shape_": layout.image_shape,
            "n_features_in_": layout.n_features,
        }

    def _evaluate(
        self, X: Any, of: Callable[[Network, torch.Tensor], torch.Tensor], passes: int, tail: tuple[int, ...],
        options: Options,
    ) -> Any:  # fmt: skip
        """`of` the network and a block [b, d], for all blocks: [n, *tail] for two classes, else [n, C, *tail]."""
        import torch

        from .network import settled

        rows, n_classes = self._checked(X), len(self.classes_)
        dtype = np.dtype(options.precision or rows.dtype)
        network = self.module_
        step = options.block_rows or network.layout.rows_at_once(passes * max(1, n_classes - 1), dtype.itemsize)
        result = np.empty((len(rows), *(() if n_classes == 2 else (n_classes,)), *tail), rows.dtype)
        device = network.output.weight.device
        with settled(device, self.n_threads), self._threads(network.layout, passes, min(step, len(rows))):
            if dtype != np.float32:
                network = copy.deepcopy(network).double()
            for start in range(0, len(rows), step):
                block = rows.block(start, min(start + step, len(rows)))
                part = result[start : start + len(block)]
                if options.check_finite:
                    check_block(rows, block, start, dtype, optional=True)
                with errstate(over="ignore"):
                    x = torch.from_numpy(writeable(block.astype(dtype, copy=False))).to(device)
                part[:] = of(network, x).cpu().numpy()
                if not options.check_finite:  # LeakyReLU has a slope at NaN, and inf an answer
                    part[~np.isfinite(block).all(axis=1)] = np.nan
        return wrap_like(result, X)


def _decision(network: Network, x: torch.Tensor) -> torch.Tensor:
    import torch

    with torch.no_grad():
        logits: torch.Tensor = network(x)
        return logits[:, 1] - logits[:, 0] if network.n_classes == 2 else logits


def _gradient(network: Network, x: torch.Tensor) -> torch.Tensor:
    import torch

    x = x.detach().requires_grad_()
    gradient: torch.Tensor
    logits = network(x)
    if network.n_classes == 2:
        (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), x)
        return gradient
    grads = [torch.autograd.grad(logits[:, c].sum(), x, retain_graph=True)[0] for c in range(network.n_classes)]
    return torch.stack(grads, dim=1)


def _require_torch(name: str) -> None:
    try:
        import torch  # noqa: F401 (whether it is there is what is asked)
    except ImportError as error:
        raise ImportError(f"{name} needs torch, which is not installed: pip install mfakit[torch]") from error
