"""The CUDA backend where no test can make a real device do what is wanted: on the emulator only."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator.engine import EmulatedEngine, OutOfMemoryError
from emulator.fake_cupy import DeviceArray, Waits
from support import close, device_model, random_mfa

import mfakit
from mfakit import bench
from mfakit._arrays.options import Options
from mfakit._arrays.rows import RowBlocks
from mfakit.attacks.gradient import resident
from mfakit.attacks.models.bayes import MixtureVictim
from mfakit.backends import cuda_arrays, get_arrays, get_backend, numpy_ops
from mfakit.backends._cuda import engine as _cuda_engine
from mfakit.backends.cuda_arrays import Cuda
from mfakit.backends.operands import WeightedPairs
from mfakit.fit import Statistics


@pytest.fixture
def emulated(kernel_folder: Path) -> Iterator[EmulatedEngine]:
    engine = EmulatedEngine(kernel_folder)
    _cuda_engine.install(engine)
    yield engine
    _cuda_engine.install(None)


def test_out_of_memory_halves_the_block(emulated: Any, caplog: pytest.LogCaptureFixture) -> None:
    mfa, X = device_model()
    emulated.fail_above_rows = 6
    with caplog.at_level(logging.WARNING, "mfakit"):
        got = mfa.log_prob(X, backend="cuda")
    close(got, mfa.log_prob(X), "float64")
    assert [r.getMessage().split()[-2] for r in caplog.records] == ["12", "6"]


@pytest.mark.parametrize("what", ["statistics", "reconstruct", "latent", "attack factor", "attack features"])
def test_out_of_memory_anywhere(emulated: Any, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """At some launch: the block is done again in two halves, and nothing of it counts twice."""
    mfa, X = device_model("diagonal" if what == "statistics" else "isotropic", n=9)
    clf = mfakit.BayesClassifier([random_mfa(2, 15, 2, seed=s, spread=0.6) for s in (1, 2)])
    Z, y = clf.sample(9, rng=3, dtype=np.float64)

    def run(backend: str) -> tuple[Any, ...]:
        if what == "statistics":
            options = Options(backend=backend, block_rows=5)
            s = Statistics.zeros(mfa).add(X, np.linspace(0.0, 1.0, len(X)), options)
            worst = (s.worst.log_prob, s.worst.rows)
            return (s.weight, s.sum_x, s.sum_xx, s.sum_z, s.sum_zz, s.sum_xz, s.log_likelihood, *worst)
        if what.startswith("attack"):
            path = what.split()[1]
            r = mfakit.attacks.gradient_attack(
                clf, Z, y, step_size=0.2, max_steps=1, path=path, backend=backend, block_rows=9
            )
            return r.x_adv, r.success, r.n_steps, r.source
        found = getattr(mfa, what)(X, backend=backend, block_rows=5)
        return tuple(found) if isinstance(found, tuple) else (found,)

    expected, number = run("auto"), 0
    while True:
        emulated.launches.clear()
        emulated.fail_at_launch = number
        with caplog.at_level(logging.WARNING, "mfakit"):
            got = run("cuda")
        if emulated.fail_at_launch is not None:
            break
        assert "is out of memory" in caplog.records[-1].getMessage()
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
        number += 1 + number // 4  # all of the first ones; later ones are alike
    assert number >= 3


@pytest.mark.parametrize("failing", [False, True])
def test_large_results_come_beside_the_computation(emulated: Any, monkeypatch: Any, failing: bool) -> None:
    """One block behind it; a block that finds no memory is done again in two halves."""
    monkeypatch.setattr(cuda_arrays, "DOWNLOAD_BYTES", 0)
    mfa, X = device_model()
    clf = mfakit.BayesClassifier([mfa, random_mfa(2, X.shape[1], 2, seed=5)])
    calls = (
        mfa.grad_log_prob, mfa.responsibilities, mfa.component_log_prob, clf.decision_gradient, clf.decision_function,
    )  # fmt: skip
    for call in calls:
        emulated.uploads.clear()
        expected = call(X)
        emulated.fail_at_launch = len(emulated.launches) + 4 if failing else None
        close(call(X, backend="cuda", block_rows=10), expected, "float64")
        assert emulated.uploads.count("closed") >= 1
        assert ("bring 5" in emulated.uploads) == failing


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", ">i2", "float16", "int32", "int64"])
@pytest.mark.parametrize("call", ["log_prob", "fit", "attack"])
def test_narrow_numbers_go_up_as_they_are(emulated: Any, dtype: str, call: str) -> None:
    """And give what the host makes of them; wider ones go as float32."""
    mfa, X = device_model()
    X = (40 * X).astype(dtype)
    clf = mfakit.BayesClassifier([mfa, random_mfa(2, X.shape[1], 2, seed=5)])

    def run(**options: Any) -> Any:
        if call == "attack":
            how: dict[str, Any] = {"step_size": 9.0, "max_steps": 2, "polish": False, "path": "features"}
            return mfakit.attacks.gradient_attack(clf, X, **how, **options).x_adv
        if call == "log_prob":
            return mfa.log_prob(X, **options)
        return Statistics.zeros(mfa).add(X, None, Options(**options)).sum_xx

    got, sent = run(backend="cuda", block_rows=10), sum(emulated.sent)
    close(got, run(), got.dtype, rtol=1e-5 if call == "attack" else None)
    assert sent == min(X.itemsize, 4) * X.size


def test_out_of_memory_at_one_row_is_an_error(emulated: Any) -> None:
    mfa, X = device_model()
    emulated.fail_above_rows = 0
    with pytest.raises(OutOfMemoryError):
        mfa.log_prob(X, backend="cuda")


def test_arrays_of_two_devices(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mfa, X = device_model()
    there = emulated.asarray(X)
    moved = mfa.to("cuda")
    second = type("Device", (), {"id": 1})()
    monkeypatch.setattr(DeviceArray, "device", second)
    with pytest.raises(ValueError, match="X is on cuda:1 and the model on cuda:0"):
        moved.log_prob(there)


def test_a_missing_barrier_is_found(emulated: Any, tmp_path: Path) -> None:
    """The emulator sees what a device may hide: without its barriers a block's sum is wrong in some order."""
    from emulator import engine as module

    from mfakit.backends._cuda import source as _cuda_source

    source = _cuda_source.flatten("attack")
    broken = source.replace(
        "scratch[warp_number()].value = mine;\n    __syncthreads();", "scratch[warp_number()].value = mine;"
    )
    assert broken != source
    results = set()
    for order in module.ORDERS:
        engine = EmulatedEngine(tmp_path, order)
        original = _cuda_source.flatten
        try:
            _cuda_source.flatten = lambda family: broken  # type: ignore[assignment]
            X, g = engine.asarray(np.zeros((1, 64))), engine.asarray(np.arange(1.0, 65.0)[None])
            try:
                engine.launch("attack", "attack_step", (1,), 64, (X, g, 1.0, 1, 64))
                results.add(float(np.linalg.norm(X.get())).__round__(9))
            except module.EmulatorError as error:
                results.add(str(error))
        finally:
            _cuda_source.flatten = original
    assert results != {1.0}


@pytest.mark.parametrize("k", [3, 25])
def test_a_block_of_an_em_step_waits_for_the_device_a_fixed_number_of_times(emulated: Any, k: int) -> None:
    mfa = random_mfa(k, 20, 2, seed=4)
    X = emulated.asarray(mfa.sample(60, rng=1, dtype=np.float64)[0])
    Statistics.zeros(mfa).add(X)  # the factors are copied to the device once
    before, launches = Waits.count, len(emulated.launches)
    Statistics.zeros(mfa).add(X)
    assert Waits.count - before <= 8
    assert len(emulated.launches) - launches <= 8


def test_a_device_attack_takes_all_samples_at_once_where_they_fit(emulated: Any, monkeypatch: Any) -> None:
    """The copies that the walk holds belong to a row's bytes; what the caller asked for is not divided."""
    clf = mfakit.BayesClassifier([random_mfa(2, 15, 2, seed=s, spread=0.6) for s in (1, 2)])
    X, y = clf.sample(8, rng=3, dtype=np.float64)
    heights: list[int] = []
    each_block = Cuda.each_block

    def counted(self: Any, rows: Any, size: int, work: Any, *args: Any) -> None:
        each_block(self, rows, size, lambda block, first: (heights.append(len(block)), work(block, first))[1], *args)

    monkeypatch.setattr(Cuda, "each_block", counted)
    for options, expected in (({}, [8]), ({"block_rows": 6}, [6, 2])):
        heights.clear()
        mfakit.attacks.gradient_attack(clf, emulated.asarray(X), y, step_size=0.2, max_steps=2, **options)
        assert heights == expected


def test_the_copies_that_an_attack_holds_make_its_blocks_lower(emulated: Any, monkeypatch: Any) -> None:
    rows, options = RowBlocks(np.zeros((10**6, 500), np.float32)), Options()
    arrays = get_arrays(get_backend("cuda", None), None)
    monkeypatch.setattr(EmulatedEngine, "free_bytes", lambda self: 2**24)
    alone, with_copies = (arrays.plan_block(options, rows, 10, 8, copies) for copies in (0, 3))
    assert with_copies == pytest.approx(alone * (8 * (4 * 500 + 10) + 240) / (8 * (7 * 500 + 10) + 240), abs=2)


def test_the_benchmark_of_a_device_measures_what_it_says(emulated: Any) -> None:
    """Its cases run on the emulator, where TF32 rounds to nearest."""
    from benchmarks import device

    small = {"edge": 64, "bytes": 2**16, "launches": 3, "n": 6, "d": 12, "k": 3, "l": 3}
    kernels = ("kernels of log_prob", "kernels of EM statistics")  # of the others, too, but the emulator takes a minute
    cases = {
        case.name: replace(case, size={name: small[name] for name in case.size}, warm_up=False)
        for case in device.CASES
        if not case.name.startswith("kernels") or case.name in kernels
    }
    machine = bench.Machine("cuda")
    found = {name: case.make(case, machine) for name, case in cases.items()}
    assert {f"product {t} {x}" for t in ("float32", "tf32", "float64") for x in ("NN", "TN")} < set(found)
    assert all(work.error <= cases[name].allowed for name, work in found.items())
    assert all(
        machine.seconds(found[name].run.run) > 0 for name in ("product float32 TN", "copy to the host", "launch")
    )
    assert found["product tf32 NN"].facts["rounding"] == "nearest"
    assert {"refine_narrow", "mark_candidates"} <= set(found["kernels of log_prob"].facts["kernels"])
    assert found["kernels of EM statistics"].facts["kernels"]["accumulate_statistics"]["launches"] == 2
    assert "launch" not in vars(emulated)


@pytest.mark.parametrize("name", ["log_prob", "EM step"])
def test_the_profile_of_an_operation(emulated: Any, name: str, monkeypatch: Any, capsys: Any) -> None:
    from benchmarks import profile

    monkeypatch.setattr(profile, "SIZES", {"faces": bench.Size(n=6, d=12, k=3, l=3)})
    assert profile.main([name]) == 0
    printed = capsys.readouterr().out
    assert f"{name}, faces: " in printed
    assert ("accumulate_statistics" in printed) == (name == "EM step")
    emulated.uploads.clear()
    assert profile.main([name, "--once"]) == 0
    assert [mark for mark in emulated.uploads if mark.startswith("record")] == ["record", "recorded"]


@pytest.mark.parametrize("most", [1, 3, 9])
def test_gradients_do_not_wait_whatever_the_candidates_of_a_row(emulated: Any, most: int) -> None:
    mfa = random_mfa(9, 20, 2, seed=8)
    rows, components = np.repeat(np.arange(6), most), np.tile(np.arange(most), 6)
    order = np.argsort(components, kind="stable")
    pairs = (rows[order], components[order], np.ones(len(rows)), np.zeros((len(rows), 2)))
    there = WeightedPairs._make(map(emulated.asarray, pairs))
    X, out = emulated.asarray(np.zeros((6, 20))), emulated.asarray(np.zeros((6, 20)))
    factors = get_arrays(get_backend("cuda"), None).factors(mfa.factors).mixture
    before = Waits.count
    get_backend("cuda").accumulate_gradient(X, there, factors, out)
    assert Waits.count == before
    expected = np.zeros((6, 20))
    numpy_ops.accumulate_gradient(np.zeros((6, 20)), WeightedPairs._make(pairs), mfa.factors.mixture, expected)
    close(out.get(), expected, "float64")


FEATURES: dict[str, Any] = {"path": "features", "polish": False}


def _attacked(n: int = 6, C: int = 2, spread: float = 0.3) -> tuple[mfakit.BayesClassifier, Any, Any]:
    clf = mfakit.BayesClassifier([random_mfa(3, 15, 2, seed=s, spread=spread) for s in range(1, C + 1)])
    X = clf.sample(n, rng=3, dtype=np.float64)[0]
    return clf, X, clf.predict(X)


def _same_attack(got: Any, expected: Any) -> None:
    for name in ("success", "n_steps", "source", "target", "target_class", "y_adv", "reason"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), err_msg=name)
    close(got.x_adv.get(), expected.x_adv, rtol=1e-9, atol=1e-9)


def test_steps_of_an_attack_in_the_features_are_looked_at_now_and_then(emulated: Any, monkeypatch: Any) -> None:
    """Every 16 steps, and the bisections once: of samples that go on all the while."""
    clf, X, y = _attacked()
    waits: list[int] = []
    mfakit.attacks.gradient_attack(clf, emulated.asarray(X), y, max_steps=1, **FEATURES)  # the factors are copied there
    for steps in (2, 34):
        before = Waits.count
        mfakit.attacks.gradient_attack(clf, emulated.asarray(X), y, step_size=1e-6, max_steps=steps, **FEATURES)
        waits.append(Waits.count - before)
    assert waits[1] - waits[0] == 34 // 16
    waits = []
    for times in (3, 9):
        monkeypatch.setattr(resident, "BISECTIONS", times)
        before = Waits.count
        polished = {**FEATURES, "polish": True}
        r = mfakit.attacks.gradient_attack(clf, emulated.asarray(X), y, step_size=0.5, max_steps=15, **polished)
        waits.append(Waits.count - before)
        assert r.success.any()
    assert waits[1] == waits[0]


@pytest.mark.parametrize("how", ["any class", "targeted", "frozen", "bounds"])
def test_attacks_in_the_features_over_many_looks(emulated: Any, monkeypatch: Any, how: str) -> None:
    """What ended is dropped at the next look, and was not moved in between: of a large call few samples are left."""
    monkeypatch.setattr(resident, "LOOK_STEPS", 3)
    clf, X, y = _attacked(5, 3)
    options: dict[str, Any] = {
        "any class": {}, "targeted": {"target": (y + 1) % 3}, "frozen": {"targets": "frozen"},
        "bounds": {"bounds": (float(X.min()), float(X.max()))},
    }[how]  # fmt: skip
    heights: list[int] = []
    scores = MixtureVictim.scores_there

    def counted(self: Any, X: Any, y: Any) -> Any:
        heights.append(len(X))
        return scores(self, X, y)

    monkeypatch.setattr(MixtureVictim, "scores_there", counted)
    options |= {"step_size": 0.4, "max_steps": 10, **FEATURES}
    expected = mfakit.attacks.gradient_attack(clf, X, y, **options)
    _same_attack(mfakit.attacks.gradient_attack(clf, emulated.asarray(X), y, **options), expected)
    assert len(set(expected.n_steps.tolist())) > 2
    ended = np.where(expected.reason == "max_steps", 99, expected.n_steps)
    assert heights == [int((ended >= step // 3 * 3).sum()) for step in range(len(heights))]


@pytest.mark.parametrize("what", ["far", "crowd"])
def test_an_attack_in_doubt_is_done_again_step_by_step(emulated: Any, monkeypatch: Any, what: str) -> None:
    """Samples so far away that rounding hides the class, and more candidates of a row than lists have room for."""
    clf, X, y = _attacked()
    if what == "crowd":
        rng = np.random.default_rng(0)
        means = 0.01 * rng.normal(size=(2, 12, 15))
        clf = mfakit.BayesClassifier([mfakit.MFA(np.full(12, 1 / 12), m, np.ones((12, 15, 1)), 1.0) for m in means])
        y = clf.predict(X)
    else:
        X[2] *= 1e7
        y = clf.predict(X)
    options = {"step_size": 0.25, "max_steps": 5, **FEATURES}
    believed: list[bool] = []
    walked = resident.ResidentWalk._walk

    def noted(self: Any, *args: Any) -> bool:
        believed.append(walked(self, *args))
        return believed[-1]

    monkeypatch.setattr(resident.ResidentWalk, "_walk", noted)
    expected = mfakit.attacks.gradient_attack(clf, X, y, **options)
    _same_attack(mfakit.attacks.gradient_attack(clf, emulated.asarray(X), y, **options), expected)
    assert believed == [False]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "name",
    ["log_prob", "responsibilities", "grad_log_prob", "latent", "reconstruct", "predict", "predict_proba",
     "decision_function", "decision_gradient"],
)  # fmt: skip
def test_a_block_waits_once(emulated: Any, name: str, dtype: str) -> None:
    """Of two classes, each of three and two components, of which rows keep up to three: for the number of candidates.
    And a second block once more.
    """
    mfa, other = random_mfa(3, 40, 2, seed=4, spread=0.2), random_mfa(2, 40, 2, seed=5, spread=0.2)
    X = emulated.asarray(mfa.sample(30, rng=1, dtype=np.dtype(dtype))[0])
    call = getattr(mfa if hasattr(mfa, name) else mfakit.BayesClassifier([mfa, other]), name)
    call(X)  # the factors are copied to the device once
    for height, most in ((30, 1), (15, 2)):
        before = Waits.count
        call(X, block_rows=height)
        assert Waits.count - before == most
