"""The table of changes to PySyft: true of the installed PySyft, complete, and printed in the docs as it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasite_worker.pysyft import changes
from datasite_worker.pysyft.changes import CHANGES, Change, Kind
from tests.unit.pysyft_source import definition, signature

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "datasite_worker" / "pysyft"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROWS = frozenset({"job_pid", "resolved", "result", "server_uid", "status", "updated_at"})
"""Columns of PySyft's tables of jobs and of the queue: data, not behaviour."""
ASSET = frozenset({"syft_created_at"})
"""A field of an asset."""
REQUEST = frozenset({"created_by", "endpoints", "lib_endpoints", "mock_execution_permission", "role", "verify_key"})
"""Fields of what a caller asked for, and of the list of methods that he is given."""
LOG = frozenset({"stderr", "stdout"})
"""Fields of a job's log."""
OURS = frozenset(
    {
        *("access", "cached_deseralized_message", "kill_jobs"),  # fields of our own subclasses, and a new one
        *("closed", "flushed", "guarded", "reaches", "unguarded", "watched", "whole"),  # marks on functions of ours
        "arguments",  # of this thread's last call
        *("kind", "message", "safe_error_message"),  # what a failed function's caller is told, and how it gets there
        "shutdown",  # what PySyft's handle lets its maker set
        *(
            "daemon",
            "depth",
            "field",
            "handlers",
            "propagate",
            "rules",
            "should_exit",
        ),  # of other libraries, and our own
    }
)
"""What is set on objects of PySyft's and others' without changing what PySyft does."""


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change.kind}-{change.target}")
def test_each_target_exists_with_its_signature(change: Change) -> None:
    """A patched PySyft, in which it has gone or takes other parameters, does not go unnoticed."""
    assert change.signature == signature(change.target)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change.kind}-{change.target}")
def test_each_change_says_where_it_is_made_and_what_guards_it(change: Change) -> None:
    """By a module that there is, and by tests that there are."""
    for place in change.by.split(", "):
        assert any(path.is_file() for path in _files(place)), place
    assert [] == [path for path in change.guard.split(", ") if not (REPOSITORY / path).is_file()]


def _files(place: str) -> list[Path]:
    """``jobs.runner`` and ``decoding.install`` are a module, and a function of one."""
    whole = PACKAGE.joinpath(*place.split("."))
    return [whole.with_suffix(".py"), whole.parent.with_suffix(".py")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_else_of_pysyfts_is_assigned_to(path: Path) -> None:
    """A change that is not in the table would be guarded by nothing."""
    listed = {one.target for one in CHANGES}
    assert [] == [target for target in _assigned(ast.parse(path.read_text())) if target not in listed]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_else_of_a_server_is_wrapped(path: Path) -> None:
    """What is set on an object is a change that the table lists, or plain data."""
    known = {one.target.rpartition(".")[2] for one in CHANGES if one.kind is not Kind.BORROWED}
    assert [] == [
        name
        for name in _set_on_objects(ast.parse(path.read_text()))
        if name not in known | ROWS | REQUEST | ASSET | LOG | OURS
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_else_of_pysyfts_is_overridden(path: Path) -> None:
    """A method of a subclass that PySyft's class has too replaces PySyft's."""
    listed = {one.target.rpartition(".")[2] for one in CHANGES if one.kind is Kind.OVERRIDDEN}
    assert [] == [name for name in _overridden(ast.parse(path.read_text())) if name not in listed]


def test_the_page_is_current() -> None:
    """docs/pysyft.md is made from the table."""
    assert changes.page() == (REPOSITORY / "docs" / "pysyft.md").read_text()


def test_what_the_checks_find() -> None:
    """An assignment by any name, in whatever form; and no assignment to what is not PySyft's."""
    tree = ast.parse(
        "import syft as sy\n"
        "from syft.a import B as C, d\n"
        "from ours import e\n"
        "_REGISTRY = C.__registry__\n"
        "def close():\n"
        "    C.f = d.g = 1\n"
        "    e.h = sy.i\n"
        "    _REGISTRY['x'][1] = 2\n"
        "    setattr(C, 'j', 3)\n"
        "    del d.k[1]\n"
        "    (d.l, m), n = o\n"
        "    p.q.r += 1\n"
    )
    found = ["syft.a.B.__registry__", "syft.a.B.f", "syft.a.B.j", "syft.a.d.g", "syft.a.d.k", "syft.a.d.l"]
    assert found == sorted(_assigned(tree))
    assert ["h", "r"] == list(_set_on_objects(tree))


# --- reading our own source ---


def _names(tree: ast.Module) -> dict[str, str]:
    """What stands for something of PySyft's in a module: its dotted name there."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {one.asname or one.name: one.name for one in node.names if one.name.split(".")[0] == "syft"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "syft":
            names |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            dotted = _dotted(node.value, names)
            names |= {node.targets[0].id: dotted} if dotted else {}
    return names


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """PySyft's dotted name of an expression; empty when it is not PySyft's."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Subscript):
        return _dotted(node.value, names)
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value, names)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _assigned(tree: ast.Module) -> Iterator[str]:
    names = _names(tree)
    for target in _targets(tree):
        dotted = _dotted(target, names) if isinstance(target, ast.Attribute | ast.Subscript) else ""
        if dotted:
            yield dotted


def _set_on_objects(tree: ast.Module) -> Iterator[str]:
    names = _names(tree)
    for target in _targets(tree):
        if isinstance(target, ast.Attribute) and not _dotted(target, names) and not _is_self(target.value):
            yield target.attr


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _targets(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.Delete):
            for target in node.targets:
                yield from _parts(target)
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            yield from _parts(node.target)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr":
            named = node.args[1]
            yield ast.Attribute(
                node.args[0], str(named.value) if isinstance(named, ast.Constant) else ast.unparse(named)
            )


def _parts(target: ast.expr) -> Iterator[ast.expr]:
    if isinstance(target, ast.Tuple | ast.List):
        for one in target.elts:
            yield from _parts(one)
    else:
        yield target


def _overridden(tree: ast.Module) -> Iterator[str]:
    names = _names(tree) | {"server.SettledDatasite": "syft.server.datasite.Datasite"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                dotted = _dotted(base, names) or names.get(ast.unparse(base), "")
                for one in node.body:
                    if isinstance(one, ast.FunctionDef) and dotted and definition(f"{dotted}.{one.name}") is not None:
                        yield one.name
