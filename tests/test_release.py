"""What a release says about itself agrees: versions, supported Pythons, and the oldest dependencies."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import mfakit

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")


def supported() -> list[str]:
    """The Pythons among the classifiers."""
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^version: (.*)$", text, re.M).group(1) == mfakit.__version__  # type: ignore[union-attr]
    assert "preferred-citation:" in text


def test_the_same_pythons_are_promised_tested_and_built() -> None:
    assert re.search(r'requires-python = ">=(3\.\d+)"', PYPROJECT).group(1) == supported()[0]  # type: ignore[union-attr]
    workflow = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    matrix = re.search(r"python: \[(.*)\]", workflow)
    assert matrix is not None
    assert re.findall(r"3\.\d+", matrix.group(1)) == supported()
    built = re.search(r"^build = \[(.*)\]", PYPROJECT, re.M)
    assert built is not None
    assert re.findall(r"cp3(\d+)", built.group(1)) == [version.partition(".")[2] for version in supported()]


def test_what_the_wheels_are_tested_with_is_there() -> None:
    command = re.search(r'^test-command = "(.*)"$', PYPROJECT, re.M)
    assert command is not None
    paths = [word for word in command.group(1).split() if word.startswith("tests/")]
    assert paths
    assert all((ROOT / path).exists() for path in paths)


def test_the_oldest_dependencies_are_those_of_the_project() -> None:
    script = ROOT / "tools" / "oldest.py"
    printed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.split()
    spec = importlib.util.spec_from_file_location("oldest", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert printed == module.oldest(PYPROJECT)
    assert module.oldest('dependencies = [\n  "a>=1.2", "b-c>=3",\n]') == ["a==1.2", "b-c==3"]
    assert any(line.startswith("numpy==") for line in printed)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in printed)
