"""The site's sources: code on its pages runs, and its reference names everything public."""

from __future__ import annotations

import inspect
import operator
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import mfakit

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
SOURCES = (page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
PAGES = sorted(page for page in SOURCES if FENCE.search(page.read_text("utf-8")))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_code_on_pages_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All blocks of a page together, as a reader would type them."""
    text = page.read_text("utf-8")
    if "torch" in text:
        pytest.importorskip("torch")
    if "dask.array" in text:
        pytest.importorskip("dask.array")
    code = "\n".join(FENCE.findall(text))
    exec(compile(code, str(page), "exec"), {"__name__": page.stem})
    printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for promised in re.findall(r"print\(.*\)\s+# (MFA\(.*)$", code, re.M):
        assert promised in printed


def test_pages_have_code() -> None:
    assert {"tutorial.md", "install.md", "index.md"} <= {page.name for page in PAGES}


def _listed() -> set[str]:
    return set(re.findall(r"^ {3}([A-Za-z_][\w.]*)$", (DOCS / "api.rst").read_text("utf-8"), re.M))


def test_the_reference_names_everything_public(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(DOCS))
    sys.modules.pop("public_names", None)
    import public_names

    listed = _listed()
    assert set(public_names.public_names()) <= listed
    for name in listed:
        thing = operator.attrgetter(name)(mfakit)
        if (inspect.isfunction(thing) or inspect.isclass(thing)) and name in public_names.public_names():
            assert ">>>" in (thing.__doc__ or ""), f"{name} has no example"


def _docstrings(thing: Any) -> str:
    """What the reference shows of a public thing: its docstring, and those of a class's members."""
    members = (getattr(thing, name, None) for name in dir(thing) if inspect.isclass(thing) and name[0] != "_")
    return "\n".join(inspect.getdoc(part) or "" for part in (thing, *members))


def test_docstrings_refer_to_what_the_reference_has() -> None:
    """The build of the site, which takes minutes, would refuse them."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("torch")
    listed = _listed()
    unknown, seen = set(), 0
    for name in listed:
        text = _docstrings(operator.attrgetter(name)(mfakit))
        for target in re.findall(r":(?:func|class|meth|attr):`~?mfakit\.(?!_)([\w.]+)`", text):
            seen += 1
            if target not in listed and target.rpartition(".")[0] not in listed:
                unknown.add(target)
    assert unknown == set()
    assert seen > 20
