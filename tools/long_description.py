"""What package indexes show: README.md without the links and pictures that lead into the checkout.

A plugin of the build, named in pyproject.toml. The project has no public address that such links could be made absolute
with; in the checkout they are of use, so that they stay in README.md itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PICTURE = re.compile(r"^!\[[^\]]*\]\((?!https?://)[^)]*\)\n+", re.MULTILINE)
LINK = re.compile(r"\[([^\]]*)\]\((?!https?://)[^)]*\)")


def without_relative_links(text: str) -> str:
    """Markdown with the texts of relative links in their place, and without pictures that are no absolute links."""
    return LINK.sub(r"\1", PICTURE.sub("", text))


def dynamic_metadata(settings: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, Any]:
    """The field `readme` of the project, as scikit-build-core asks for it."""
    text = without_relative_links(Path("README.md").read_text("utf-8"))
    return {"readme": {"content-type": "text/markdown", "text": text}}
