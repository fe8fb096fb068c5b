"""The plan of the rooms: files import each other without circles, and packages form a tree.

Read from the source: imports inside functions count, and those by ``import_module`` with a literal, but not those for
type checkers alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import mfakit

ROOT = Path(mfakit.__file__).parent
# What may not be reached from what.
BELOW = {
    "backends": ("mixture", "bayes", "fit", "attacks", "classifiers", "theory", "experiments"),
    "mixture": ("bayes", "fit", "attacks", "classifiers", "theory", "experiments"),
    "bayes": ("fit", "attacks", "classifiers", "theory", "experiments"),
    "classifiers": ("attacks", "theory", "experiments"),
    "attacks": ("theory", "experiments", "plots", "commands"),
    "theory": ("experiments", "plots", "commands"),
}


def _name(path: Path) -> str:
    parts = ("mfakit", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _runs(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below this one, without what stands under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _runs(child)


def _imports(name: str, source: str, is_package: bool, modules: Mapping[str, Path]) -> set[str]:
    """The modules of mfakit that the source of module `name` imports."""
    package = name if is_package else name.rpartition(".")[0]
    found = set()
    for node in _runs(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in modules or alias.name == "_native" else base)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return (found & set(modules)) - {name}


def _circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Sets of nodes that reach each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            circle = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(circle) > 1:
                circles.append(sorted(circle))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return circles


def _graph() -> dict[str, set[str]]:
    modules = {_name(path): path for path in ROOT.rglob("*.py")}
    return {
        name: _imports(name, path.read_text("utf-8"), path.name == "__init__.py", modules)
        for name, path in modules.items()
    }


def _room(module: str) -> str:
    """The file or folder at the top of the package that a module stands in."""
    return ".".join(module.split(".")[:2])


def test_no_files_import_each_other_in_a_circle() -> None:
    assert _circles(_graph()) == []


def test_rooms_form_a_tree() -> None:
    rooms: dict[str, set[str]] = {}
    for name, imported in _graph().items():
        rooms.setdefault(_room(name), set()).update(_room(other) for other in imported)
    assert _circles({room: others - {room} for room, others in rooms.items()}) == []


def test_lower_rooms_know_no_higher_ones() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, imported in _graph().items()
        for other in imported
        if _room(other).removeprefix("mfakit.") in BELOW.get(_room(name).removeprefix("mfakit."), ())
    ]
    assert wrong == []


def test_circles_are_found_and_type_checking_is_not() -> None:
    modules = {f"mfakit.{name}": Path() for name in ("a", "b", "c.d")}
    lines = [
        "if TYPE_CHECKING:",
        "    from .b import B",
        "def f():",
        "    from .c import d",
        "    import_module('mfakit.a')",
    ]
    source = "\n".join(lines)
    assert _imports("mfakit.x", source, False, modules) == {"mfakit.c.d", "mfakit.a"}
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]


def test_what_only_type_checkers_have_is_imported_for_them_alone() -> None:
    """typing_extensions is no dependency: Python 3.10 lacks Unpack, and type checkers bring it."""
    wrong = [
        path.name
        for path in ROOT.rglob("*.py")
        for node in _runs(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom) and "typing_extensions" in ast.unparse(node)
    ]
    assert wrong == []
