"""What an attack calls a success its classifier's own predict calls one: alone, in a batch, and in a wider dtype."""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np
import pytest
from sklearn.svm import SVC
from support import close

torch = pytest.importorskip("torch")

import mfakit  # noqa: E402 (after the skip)
from mfakit.attacks import carlini_wagner_l2, gradient_attack  # noqa: E402
from mfakit.classifiers import CNN, RBFSVM, LinearSVM  # noqa: E402


@pytest.fixture(scope="module")
def sharp_cnn() -> tuple[CNN, Any, Any]:
    """Trained to large logits, whose rounding is large as well."""
    X = np.random.default_rng(1).random((300, 64))
    y = (X[:, :32].mean(axis=1) > X[:, 32:].mean(axis=1)).astype(int)
    cnn = CNN(
        width=8, depth=6, epochs=15, batch_size=20, learning_rate=3e-3, label_smoothing=0.0, device="cpu",
        random_state=0, progress=False,
    )  # fmt: skip
    return cnn.fit(X, y), X, y


def _denied(clf: Any, r: Any, y: Any) -> int:
    """How many successes predict does not confirm, in the batch or one by one."""
    alone = np.concatenate([clf.predict(x[None]) for x in r.x_adv])
    return int((r.success & ((clf.predict(r.x_adv) == y) | (alone == y))).sum())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_networks(sharp_cnn: tuple[CNN, Any, Any], dtype: str) -> None:
    cnn, X, y = sharp_cnn
    r = carlini_wagner_l2(cnn, X[:60].astype(dtype), y[:60], max_iterations=60)
    assert r.success.sum() > 50
    assert _denied(cnn, r, y[:60]) == 0


@pytest.mark.parametrize("make", [LinearSVM, lambda: RBFSVM(gamma=0.3)])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_machines_far_from_the_origin(make: Any, offset: float) -> None:
    y = np.arange(60) % 2
    X = np.random.default_rng(0).normal(size=(60, 4))
    X[:, 0] += 2 * y
    svm = make().fit(X + offset, y)
    right = svm.predict(X + offset) == y
    cw = carlini_wagner_l2(svm, X + offset, y, bounds=None, max_iterations=200)
    for r in (cw, gradient_attack(svm, X + offset, y)):
        assert r.success[right].mean() > 0.9
        assert _denied(svm, r, y) == 0


def test_pairwise_machines_are_not_taken_for_one_against_the_rest() -> None:
    y = np.arange(90) % 3
    X = np.random.default_rng(0).normal(size=(90, 4)) + 3 * np.eye(4)[y]
    for shape in ("ovo", "ovr"):
        svc = SVC(kernel="linear", decision_function_shape=shape).fit(X, y)
        with pytest.raises(TypeError, match="SVC decides between its 3 classes by the votes"):
            gradient_attack(svc, X, y)


class _NaN(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.where(x[:, :1] > 0, torch.nan, x[:, :2])


def test_a_model_without_an_answer_is_not_right() -> None:
    X = np.array([[0.5, 0.1, 0.0], [-0.5, 0.1, 0.0], [0.2, 0.0, 0.0]])
    r = carlini_wagner_l2(_NaN().eval(), X, [0, 1, 1])
    assert r.already_wrong.tolist() == [True, False, True]
    assert r.reason[[0, 2]].tolist() == ["NaN logits"] * 2
    assert r.accuracy == pytest.approx(1 / 3)


def test_samples_on_the_boundary_are_pushed_over_it() -> None:
    linear = LinearSVM().fit([[-1.0, 0.0], [1.0, 0.0]], [0, 1])
    X = np.array([[0.0, 0.5]])
    assert linear.decision_function(X) == 0
    for options in ({"bounds": (-1, 1)}, {"bounds": None}, {"preset": "paper", "bounds": None}):
        r = carlini_wagner_l2(linear, X, [0], **options)  # type: ignore[arg-type]
        assert r.success.all(), (options, r.reason)
        assert linear.predict(r.x_adv) == [1]
    mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.01) for m in (-1.0, 1.0)]
    clf = mfakit.BayesClassifier(mixtures)
    for dtype in ("float32", "float64"):
        for path in ("factor", "features"):
            r = gradient_attack(clf, X.astype(dtype), [0], polish=True, path=path)
            assert r.success.all(), r.reason
            assert r.l2 < 1e-3
            assert clf.predict(r.x_adv) == [1]


def test_bounds_that_are_none() -> None:
    X, y = np.array([[-1.0, 0.0], [1.0, 0.0]]), [0, 1]
    linear = LinearSVM().fit(X, y)
    r = carlini_wagner_l2(linear, X, y, bounds=(-np.inf, np.inf))
    assert r.success.all()
    assert r.settings["bounds"] is None
    for bounds in ((-100, np.inf), (-1e308, 1e308)):
        with pytest.raises(ValueError, match="bounds must be finite and not wider"):
            carlini_wagner_l2(linear, X, y, bounds=bounds)
    for attack in (carlini_wagner_l2, gradient_attack):
        for bad in (3, (0, 1, 2), (1, 0), ("a", "b")):
            with pytest.raises(ValueError, match=r"bounds must be \(low, high\) with low < high, or None, got"):
                attack(linear, X, y, bounds=bad)


@pytest.mark.parametrize("argument", ["confidence", "initial_const", "learning_rate"])
def test_numbers_that_are_none(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be a (positive|non-negative) number, finite.*, got None"):
        carlini_wagner_l2(LinearSVM(), np.zeros((1, 2)), **{argument: None})


def test_no_images() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).eval()
    assert carlini_wagner_l2(net, np.zeros((0, 1, 4, 4)), bounds=None).x_adv.shape == (0, 1, 4, 4)


def test_inference_mode_around_everything(sharp_cnn: tuple[CNN, Any, Any]) -> None:
    cnn, X, y = sharp_cnn
    linear = LinearSVM().fit(X, y)
    with torch.inference_mode():
        made = mfakit.torch.SVMModule(linear)
        assert carlini_wagner_l2(linear, X[:3], y[:3]).success.any()
        assert np.isfinite(cnn.decision_gradient(X[:3])).all()
        gradient_attack(cnn, X[:3], y[:3], max_steps=2)
    assert carlini_wagner_l2(made, X[:3], y[:3]).success.any()


def _attack_in_child(svm: Any, X: Any, y: Any, pipe: Any) -> None:
    r = carlini_wagner_l2(svm, X, y, max_iterations=5)
    x = torch.from_numpy(X).requires_grad_()
    mfakit.torch.SVMModule(svm)(x).sum().backward()
    pipe.send((r.l2, torch.get_num_threads()))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_fork_after_use_does_not_hang() -> None:
    X = np.random.default_rng(0).random((200, 784))
    y = (X[:, 0] > 0.5).astype(int)
    svm = LinearSVM().fit(X, y)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = carlini_wagner_l2(svm, X, y, max_iterations=5)
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_attack_in_child, args=(svm, X, y, sender))
        child.start()
        assert receiver.poll(60), "the child hangs"
        l2, threads = receiver.recv()
        child.join(10)
    finally:
        child.kill()
        torch.set_num_threads(before)
    close(l2, expected.l2, rtol=1e-6)
    assert threads == 1
