"""PySyft's installed source, read and never imported: other tests of this process may have replaced what is asked for."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

DATA = "data"
PROPERTY = "property"


@dataclass(frozen=True)
class Found:
    """A definition, and the module that it stands in."""

    module: str
    node: ast.AST


def signature(target: str) -> str | None:
    """The parameters of what has that dotted name, ``DATA`` for a variable, ``CLASS`` … ; None where there is none."""
    found = definition(target)
    return None if found is None else _signature(found.node)


def definition(target: str) -> Found | None:
    """Where that dotted name is defined, through imports and base classes."""
    module = _module_of(target)
    if module is None:
        return None
    found = _in_module(module, target[len(module) + 1 :].split(".", maxsplit=1)[0])
    for name in target[len(module) + 1 :].split(".")[1:]:
        if found is None:
            return None
        found = _in_class(found, name)
    return found


def _module_of(target: str) -> str | None:
    parts = target.split(".")
    names = (".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
    return next((name for name in names if _file(name) is not None), None)


@cache
def _file(module: str) -> Path | None:
    spec = find_spec(module.split(".", maxsplit=1)[0])  # of a top-level package: imports nothing
    if spec is None or spec.origin is None:
        return None
    base = Path(spec.origin).parent.joinpath(*module.split(".")[1:])
    choices = (base / "__init__.py", base.with_suffix(".py"))
    return next((path for path in choices if path.is_file()), None)


@cache
def _tree(module: str) -> ast.Module:
    file = _file(module)
    assert file is not None
    return ast.parse(file.read_text())


def _in_module(module: str, name: str) -> Found | None:
    tree = _tree(module)
    for node in tree.body:
        if _defines(node, name):
            return Found(module, node)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (one := _imported(node, name)):
            source = _absolute(module, node)
            return _in_module(source, one) if _file(source) is not None else None
    return None


def _in_class(found: Found, name: str) -> Found | None:
    if not isinstance(found.node, ast.ClassDef):
        return None
    for node in found.node.body:
        if _defines(node, name):
            return Found(found.module, node)
    for base in found.node.bases:
        if isinstance(base, ast.Name) and (parent := _in_module(found.module, base.id)) is not None:
            inherited = _in_class(parent, name)
            if inherited is not None:
                return inherited
    return None


def _defines(node: ast.stmt, name: str) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name == name
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.target, ast.Name) and node.target.id == name
    if isinstance(node, ast.Assign):
        return any(isinstance(one, ast.Name) and one.id == name for one in node.targets)
    return False


def _imported(node: ast.ImportFrom, name: str) -> str:
    return next((one.name for one in node.names if (one.asname or one.name) == name), "")


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    file = _file(module)
    package = module.split(".") if file is not None and file.name == "__init__.py" else module.split(".")[:-1]
    kept = package[: len(package) - (node.level - 1)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _signature(node: ast.AST) -> str:
    if isinstance(node, ast.ClassDef):
        return "class"
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return DATA
    if any(isinstance(one, ast.Name) and one.id == "property" for one in node.decorator_list):
        return PROPERTY
    for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg):
        if one is not None:
            one.annotation = None
    return f"({ast.unparse(node.args)})"
