"""Every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import mfakit

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(mfakit.__path__, "mfakit.")
    if not module.name.endswith(("_native", "__main__"))
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    networks = (".sgd", ".torch", ".network", ".training", ".cnn", ".trades")
    searches = (".carlini_wagner", "._cw_network", "._cw_search", "._cw_polish")
    needed = {**dict.fromkeys(networks + searches, "torch"), ".plots": "matplotlib"}
    for part, package in needed.items():
        if name.endswith(part) or (part == ".plots" and part in name):
            pytest.importorskip(package)
    if name.endswith("native_ops"):
        pytest.importorskip("mfakit._native")
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_the_front_page_has_examples() -> None:
    finder = doctest.DocTestFinder()
    public = [
        mfakit.MFA,
        mfakit.BayesClassifier,
        mfakit.MFAClassifier,
        mfakit.MixtureOfFactorAnalyzers,
        mfakit.point_subspace_distances,
        mfakit.attacks.gradient_attack,
        mfakit.attacks.minimal_perturbation,
        mfakit.attacks.carlini_wagner_l2,
        mfakit.attacks.evaluate,
        mfakit.attacks.run_external,
        mfakit.classifiers.CNN,
        mfakit.classifiers.RBFSVM,
        mfakit.torch.BayesClassifierModule,
        mfakit.torch.TrainableMFA,
        mfakit.datasets.load_bayes_pair,
    ]
    for thing in public:
        assert any(test.examples for test in finder.find(thing)), f"{thing.__name__} has no example"


@pytest.mark.parametrize("room", ["", *mfakit._LAZY_MODULES])
def test_dir_is_the_public_list(room: str) -> None:
    """What completion offers is what may be used, and all of it is there."""
    if room in ("plots", "torch"):
        pytest.importorskip({"plots": "matplotlib"}.get(room, room))
    module = importlib.import_module(f"mfakit.{room}".rstrip("."))
    assert dir(module) == sorted(module.__all__)
    for name in set(dir(module)) - {"plots", "torch"}:  # which need their extras
        assert getattr(module, name) is not None
