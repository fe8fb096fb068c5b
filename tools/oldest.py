"""Print the oldest supported version of every dependency, as constraints for pip: what pyproject.toml's `>=` say."""

from __future__ import annotations

import re
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def oldest(text: str) -> list[str]:
    """``name==version`` of each of the project's own dependencies."""
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.M | re.S)
    if block is None:
        raise SystemExit(f"{PYPROJECT} has no list of dependencies")
    return [f"{name}=={version}" for name, version in re.findall(r'"([\w.-]+)>=([\w.]+)"', block.group(1))]


if __name__ == "__main__":
    print("\n".join(oldest(PYPROJECT.read_text("utf-8"))))
