"""The site's sources: code on its pages runs, and its reference names everything public."""

from __future__ import annotations

import inspect
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
    code = "\n".join(FENCE.findall(text))
    exec(compile(code, str(page), "exec"), {"__name__": page.stem})
    printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for promised in re.findall(r"print\(.*\)\s+# (MFA\(.*)$", code, re.M):
        assert promised in printed


def test_pages_have_code() -> None:
    assert {"tutorial.md", "install.md", "index.md"} <= {page.name for page in PAGES}


def test_the_reference_names_everything_public(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(DOCS))
    sys.modules.pop("public_names", None)
    import public_names

    listed = set(re.findall(r"^ {3}([A-Za-z_][\w.]*)$", (DOCS / "api.rst").read_text("utf-8"), re.M))
    assert set(public_names.public_names()) <= listed
    for name in listed:
        thing: Any = mfakit
        for part in name.split("."):
            thing = getattr(thing, part)
        if (inspect.isfunction(thing) or inspect.isclass(thing)) and name in public_names.public_names():
            assert ">>>" in (thing.__doc__ or ""), f"{name} has no example"
