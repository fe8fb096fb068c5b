"""Carlini and Wagner's attack asks about one sample alone, whatever the other samples of its batch are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import close

import mfakit
from mfakit.attacks import carlini_wagner_l2, gradient_attack
from mfakit.classifiers import CNN

torch = pytest.importorskip("torch")
nn = torch.nn

from carlini_wagner_cases import net_and_samples  # noqa: E402 (needs torch)

QUICK: dict[str, Any] = {"max_iterations": 60, "binary_search_steps": 2}


def test_batch_mates_do_not_change_a_sample_by_default() -> None:
    """The others widen the range of the data a thousandfold, are wrong, or lie on the boundary."""
    net, X, y = net_and_samples(4)
    net, X = net.double(), X.astype(float)
    alone = carlini_wagner_l2(net, X[:1], y[:1], **QUICK)
    others = np.concatenate([X, 1e3 * X, X[1:2] + 1e-9])
    labels = np.concatenate([y, (y + 1) % 3, y[1:2]])
    together = carlini_wagner_l2(net, others, labels, **QUICK)
    close(together.l2[0], alone.l2[0], rtol=1e-9)
    close(together.x_adv[0], alone.x_adv[0], rtol=1e-6)


class BatchMean(nn.Module):
    """No layer of torch's, but the same fault: the mean over the batch is taken off."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.eval()

    def forward(self, x: Any) -> Any:
        return self.net(x - x.mean(dim=0))


def normalised(**options: Any) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16, **options), nn.ReLU(), nn.Linear(16, 3)).eval()


def images() -> Any:
    torch.manual_seed(0)
    layers = (nn.Unflatten(1, (1, 2, 5)), nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 3)).eval()


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: normalised(track_running_stats=False), "part '1', a BatchNorm1d with track_running_stats=False"),
        (images, "part '2', a BatchNorm2d with track_running_stats=False"),
        (lambda: BatchMean(net_and_samples()[0]), "takes a statistic over the batch, or mixes samples"),
    ],
)
def test_a_model_that_mixes_samples_is_refused_before_the_search(make: Any, why: str, n: int) -> None:
    X = np.random.default_rng(0).random((n, 10)).astype(np.float32)
    with pytest.raises(ValueError, match=f"answer for a sample depends on the other samples in its batch.*{why}"):
        carlini_wagner_l2(make(), X, max_iterations=10**6)


@pytest.mark.parametrize("n", [1, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_running_statistics_and_normalisation_of_single_samples_are_taken(dtype: Any, n: int) -> None:
    torch.manual_seed(0)
    single = nn.Sequential(
        nn.Unflatten(1, (2, 5)), nn.InstanceNorm1d(2), nn.Flatten(), nn.LayerNorm(10), nn.Linear(10, 3)
    )
    X = np.random.default_rng(0).random((n, 10)).astype(np.float32)
    for net in (normalised(), single.eval()):
        assert carlini_wagner_l2(net.to(dtype), X, max_iterations=5, rescue_searches=0).accuracy == 1.0


def test_active_dropout_is_warned_about() -> None:
    class Dropping(nn.Module):
        def forward(self, x: Any) -> Any:
            return nn.functional.dropout(x, 0.5, training=True)[:, :2]

    X = np.random.default_rng(0).random((6, 10)).astype(np.float32)
    with pytest.warns(UserWarning, match=r"two answers for one input, as with dropout.*switch the randomness off"):
        carlini_wagner_l2(Dropping().eval(), X, max_iterations=5, rescue_searches=0)


def test_rows_of_nan_fail_alone_where_the_check_is_switched_off() -> None:
    net, X, y = net_and_samples(5)
    expected = carlini_wagner_l2(net, X, y, **QUICK)
    with pytest.raises(ValueError, match="X has NaN or inf, first in row 1; clean it or pass check_finite=False"):
        carlini_wagner_l2(net, np.where(np.arange(5)[:, None] == 1, np.nan, X), y)
    for first, second in ((np.nan, np.inf), (-np.inf, np.nan)):
        broken = X.copy()
        broken[0, 3], broken[4, 0] = first, second
        for bounds in (None, (-1, 1), "data"):
            r = carlini_wagner_l2(net, broken, y, check_finite=False, bounds=bounds, **QUICK)
            assert r.reason.tolist() == ["NaN logits", *["flipped"] * 3, "NaN logits"]
            np.testing.assert_array_equal(r.x_adv[[0, 4]], broken[[0, 4]])
            if bounds is None:
                close(r.l2[1:4], expected.l2[1:4], rtol=1e-3)
    r = carlini_wagner_l2(net, np.full((2, 10), np.nan), y[:2], check_finite=False)
    assert set(r.reason) == {"NaN logits"}


@pytest.fixture(scope="module")
def tiny_cnn() -> Any:
    X = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)
    cnn = CNN(width=2, depth=2, epochs=1, device="cpu", progress=False)
    return {c: CNN(**cnn.get_params()).fit(X, np.arange(60) % c) for c in (2, 3)}, X


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_networks_answer_rows_of_nan_with_nan_and_others_as_ever(
    tiny_cnn: Any, bad: float, dtype: Any, n_classes: int
) -> None:
    cnn, X = tiny_cnn[0][n_classes], tiny_cnn[1][:4].astype(dtype)
    broken = X.copy()
    broken[1, 0] = bad
    rest = [0, 2, 3]
    for name in ("decision_function", "decision_gradient", "predict_proba", "predict_log_proba"):
        found, expected = getattr(cnn, name)(broken, check_finite=False), getattr(cnn, name)(X)
        assert np.isnan(found[1]).all(), name
        close(found[rest], expected[rest], dtype, rtol=1e-5, atol=1e-7)
    r = gradient_attack(cnn, broken, check_finite=False, max_steps=3)
    assert r.reason[1] == "NaN logits"
    assert "NaN logits" not in r.reason[rest]
    with pytest.raises(ValueError, match="X has NaN or inf, first in row 1; clean it or pass check_finite=False"):
        cnn.predict(broken)
    with pytest.raises(ValueError, match=r"X has NaN or inf, first in row 1; clean it$"):
        CNN(**cnn.get_params()).fit(np.concatenate([broken, X]), np.arange(8) % 2)


def test_bayes_classifiers_do_not_mix_samples() -> None:
    clf = mfakit.BayesClassifier([mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.01) for m in (-1.0, 1.0)])
    X = np.array([[-1.0, 0.5], [1.2, 0.0], [-3.0, 40.0]])
    together = carlini_wagner_l2(clf, X, **QUICK)
    alone = [carlini_wagner_l2(clf, x[None], **QUICK).l2[0] for x in X]
    close(together.l2, alone, rtol=1e-12)


WRAPPINGS: dict[str, Any] = {
    "tuple": (lambda z: (z, z), "got tuple for 2 samples; wrap it in a module that returns the tensor of logits alone"),
    "dict": (lambda z: {"logits": z}, "got dict for 2 samples; wrap it in a module that returns"),
    "list": (lambda z: [z], "got list for 2 samples; wrap it in a module that returns"),
}


@pytest.mark.parametrize("kind", WRAPPINGS)
def test_models_that_return_more_than_logits_are_told_what_to_return(kind: str) -> None:
    wrap, match = WRAPPINGS[kind]

    class Wrapped(nn.Module):
        def forward(self, x: Any) -> Any:
            return wrap(x[:, :2])

    with pytest.raises(ValueError, match=match):
        carlini_wagner_l2(Wrapped().eval(), np.zeros((2, 10), np.float32))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_hooked_and_compiled_modules_give_the_modules_result() -> None:
    net, X, y = net_and_samples(3)
    expected = carlini_wagner_l2(net, X, y, **QUICK)
    seen: list[int] = []
    hooked = net_and_samples(3)[0]
    hooked.register_forward_hook(lambda module, args, z: seen.append(len(z)))
    compiled = torch.compile(net, backend="eager")
    for model in (hooked, torch.jit.script(net.layers).eval(), compiled):
        close(carlini_wagner_l2(model, X, y, **QUICK).l2, expected.l2, rtol=1e-3)
    assert seen


def test_a_module_that_hides_a_network_runs_in_its_dtype() -> None:
    net, X, y = net_and_samples(3)

    class Hidden(nn.Module):
        def forward(self, x: Any) -> Any:
            return net(x)

    r = carlini_wagner_l2(Hidden().eval(), X, y, **QUICK)
    assert r.settings["runs_in"] == "float32"
    np.testing.assert_array_equal(r.x_adv, carlini_wagner_l2(net, X, y, **QUICK).x_adv)


def test_bounds_are_two_numbers() -> None:
    net, X, y = net_and_samples(3)
    expected = carlini_wagner_l2(net, X, y, bounds=(-1, 1), **QUICK).x_adv
    for bounds in (np.array([-1, 1]), (torch.tensor(-1.0), np.float32(1)), [np.array([-1.0]), np.array([1.0])]):
        np.testing.assert_array_equal(carlini_wagner_l2(net, X, y, bounds=bounds, **QUICK).x_adv, expected)
    low, high = X.min(axis=0), X.max(axis=0)
    for several in ((low, high), (torch.from_numpy(low), torch.from_numpy(high))):
        with pytest.raises(ValueError, match=r"got arrays; one pair of numbers holds for all features$"):
            carlini_wagner_l2(net, X, y, bounds=several)
