"""Fails the build where a public name is missing from the API reference, and takes docstrings as the text
they are."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

ROOMS = ("", "attacks", "classifiers", "datasets", "experiments", "plots", "theory", "torch")
# Names that the reference leaves out: rooms, which are its sections, the version, and constants of a figure's style.
LEFT_OUT = re.compile(r"^(__version__|[A-Z][A-Z_]*)$")
# Code and roles, in which everything stays as it is.
MARKED = re.compile(r"(``.*?``|:[\w:]+:`[^`]*`|`[^`]*`_*)")
TAKEN = {"KINDS", "CNN", "TRADES", "RBFSVM", "MFA", "EXPERIMENTS"}


def public_names() -> list[str]:
    """Every name in ``__all__`` of the package and its public rooms, dotted below mfakit."""
    found = []
    for room in ROOMS:
        module = import_module(f"mfakit.{room}".rstrip("."))
        for name in module.__all__:
            thing = f"{room}.{name}".lstrip(".")
            if room or name not in (*ROOMS, "fit"):
                found += [thing] if name in TAKEN or not LEFT_OUT.match(name) else []
    return found


def _check(app: Any) -> None:
    page = (Path(app.srcdir) / "api.rst").read_text("utf-8")
    listed = set(re.findall(r"^ {3}([A-Za-z_][\w.]*)$", page, re.M))
    missing = sorted(set(public_names()) - listed)
    if missing:
        raise RuntimeError(f"docs/api.rst lacks the public names {', '.join(missing)}; list them there")


def _plain(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Escape what reST would take for markup: absolute values |T|, and attributes such as classes_."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...", "..")):
            parts = MARKED.split(line)
            parts[::2] = [re.sub(r"\||(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def _skip(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out scikit-learn's own methods of all estimators, whose docstrings refer to its pages."""
    return True if re.fullmatch(r"set_\w+_request|get_metadata_routing|set_output", name) else None


def _by_short_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Resolve the short names that docstrings use within their own room, where only one documented object has it."""
    from sphinx.util.nodes import make_refnode

    if node.get("refdomain") != "py":
        return None
    domain, ending = env.get_domain("py"), "." + node["reftarget"]
    found = [name for name, thing in domain.objects.items() if name.endswith(ending) and not thing.aliased]
    if len(found) != 1:
        return None
    place = domain.objects[found[0]]
    return make_refnode(app.builder, node["refdoc"], place.docname, place.node_id, contnode, found[0])


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("builder-inited", _check)
    app.connect("autodoc-process-docstring", _plain, priority=900)  # after numpydoc
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _by_short_name)
    return {"parallel_read_safe": True}
