"""Results in a folder: whole or absent, read back as they were, and refused in one sentence where they are not ours."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from mfakit._io import report
from mfakit._io.tensor_files import write_tensors
from mfakit.experiments import load_result, outcome
from mfakit.experiments.outcome import Outcome, have_matplotlib


@dataclass(frozen=True)
class Config:
    names: tuple[str, ...] = ("a",)
    sigma: float | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Outcome):
    title: ClassVar[str] = "A small result"

    config: Config
    values: NDArray[Any] | None
    shares: dict[str, float]

    def tables(self) -> Mapping[str, report.Table]:
        rows = tuple((name, report.percent(share)) for name, share in self.shares.items())
        return {"Shares": report.Table(("name", "share\n(%)"), rows)}

    def pictures(self) -> dict[str, Callable[[], Any]]:
        return {"drawn": self._draw}

    def _draw(self) -> Any:
        from mfakit.plots.common import new_figure

        return new_figure(1, 1)


def result(**changes: Any) -> Result:
    made = Result(config=Config(), values=np.arange(4.0), shares={"x": 0.25, "none": math.nan}, seconds=1.5)
    return replace(made, **changes)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_result_comes_back(tmp_path: Path) -> None:
    sent = result(config=Config(("a", "b"), 0.5))
    written = sent.write(tmp_path / "out")
    assert written[-1].name == "result.json"
    assert listing(tmp_path / "out") == sorted(path.name for path in written)
    assert listing(tmp_path / "out") == ["drawn.png"] * have_matplotlib() + [
        "result.json", "result.md", "result.safetensors",
    ]  # fmt: skip
    got = Result.load(tmp_path / "out")
    assert (got.config, got.seconds, got.environment) == (sent.config, 1.5, sent.environment)
    assert got.values is not None
    np.testing.assert_array_equal(got.values, np.arange(4.0))
    assert got.shares["x"] == 0.25
    assert math.isnan(got.shares["none"])
    assert got.markdown() == sent.markdown() == (tmp_path / "out" / "result.md").read_text("utf-8")
    for part in ("# A small result", "## Shares", "| x | 25.0 |", "| none | – |", 'names ["a", "b"]', "sigma 0.5"):
        assert part in got.markdown()


def test_a_result_without_arrays_takes_none_of_an_older_one(tmp_path: Path) -> None:
    result().write(tmp_path)
    result(values=None).write(tmp_path)
    assert "result.safetensors" not in listing(tmp_path)
    assert Result.load(tmp_path).values is None


@pytest.mark.parametrize("name", ["write_text", "write_tensors", "_draw", "write_json"])
@pytest.mark.parametrize("older", [False, True])
def test_an_interrupted_writer_leaves_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, older: bool
) -> None:
    """Wherever it stops: never the numbers of one run beside the arrays of another."""
    if name == "_draw" and not have_matplotlib():
        pytest.skip("pictures need matplotlib")
    if older:
        result(values=np.zeros(2)).write(tmp_path)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(outcome.report if name in ("write_text", "write_json") else outcome, name, stop)
        with pytest.raises(KeyboardInterrupt):
            result().write(tmp_path)
    assert "result.json" not in listing(tmp_path)
    with pytest.raises(FileNotFoundError, match="no result at "):
        Result.load(tmp_path)
    result().write(tmp_path)
    loaded = Result.load(tmp_path).values
    assert loaded is not None
    assert len(loaded) == 4
    assert not list(tmp_path.glob(".*"))


DEEP = "[" * 400 + "]" * 400
HOSTILE = {
    "empty": ("", "is not readable JSON"),
    "binary": (b"\xff\xfe\x00", "is not readable JSON"),
    "cut": ('{"config": {"na', "is not readable JSON"),
    "nested": ("[" * 10**5, "is not readable JSON"),
    "digits": ("1" * 5000, "is not readable JSON"),
    "a list": ("[]", "is no result of this experiment: result must be an object"),
    "foreign": ('{"results": [1, 2]}', "is no result of this experiment: result has no field results"),
    "deep": (f'{{"config": {{"names": [], "sigma": null}}, "seconds": 1, "environment": {{"a": {DEEP}}}, '
             '"values": null, "shares": {}}', "is no result of this experiment"),
    "huge": ('{"config": {"names": [], "sigma": 1' + "0" * 400 + '}, "seconds": 1, "environment": {}, "values": null, '
             '"shares": {}}', r"is no result of this experiment: result\.config\.sigma must be"),
    "an array too few": ('{"config": {"names": [], "sigma": null}, "seconds": 1, "environment": {}, "values": '
                         '{"array": "others"}, "shares": {}}', r"result\.values must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_result_is_one_sentence(tmp_path: Path, name: str) -> None:
    text, message = HOSTILE[name]
    result().write(tmp_path)
    (tmp_path / "result.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as caught:
        Result.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_arrays_of_another_kind_are_refused(tmp_path: Path) -> None:
    result().write(tmp_path)
    write_tensors(tmp_path / "result.safetensors", "mfa", {"values": np.zeros(4)})
    with pytest.raises(ValueError, match="holds a mfa, not a experiment-result"):
        Result.load(tmp_path)
    (tmp_path / "result.safetensors").write_bytes(b"no arrays")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        Result.load(tmp_path)
    (tmp_path / "result.safetensors").unlink()
    with pytest.raises(ValueError, match=r"result\.values must be"):
        Result.load(tmp_path)


def test_what_validates_itself_does_so_when_it_is_read(tmp_path: Path) -> None:
    from mfakit.experiments import template

    row = template.Row("mnist-06", 0.1, 1.0, 2.0)
    template.Result(config=template.Config(), rows=(row,)).write(tmp_path)
    assert template.Result.load(tmp_path).rows == (row,)
    plain = json.loads((tmp_path / "result.json").read_text("utf-8"))
    plain["config"]["n"] = 0
    (tmp_path / "result.json").write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(ValueError, match="is no result of this experiment: n must be an integer of at least 1"):
        template.Result.load(tmp_path)


PUBLISHED = sorted((Path(__file__).parents[2] / "benchmarks" / "results" / "paper").glob("**/result.json"))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_published_results_are_read(path: Path) -> None:
    """But for those whose arrays are pictures that may not be published: these say which array is missing."""
    name, root = path.parent.name, path.parents[1]
    if '"array"' in path.read_text() and not path.with_suffix(".safetensors").exists():
        with pytest.raises(ValueError, match="must be an array that is there"):
            load_result(name, root)
    else:
        assert load_result(name, root).tables()
    assert "/" not in json.dumps(json.loads(path.read_text())["config"])
