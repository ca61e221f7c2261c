"""Turns a torch module into self-contained source that builds it again at a datasite.

A datasite does not have the orchestrator's packages. So the source imports only torch, numpy and the standard library,
and contains the classes, functions and constants of the orchestrator's own modules that it uses. They are copied as
written, so that the same model gives the same source, and the same hash, everywhere.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import symtable
import sys
import textwrap
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

import torch

from central.client.errors import NotSelfContained

_THERE = ("torch", "numpy")
"""The packages that a datasite has, besides the standard library."""

_PUBLIC = ("torch", "torch.nn", "torch.nn.functional", "torch.nn.init", "numpy", "typing", "collections.abc")
"""Public modules to search for names that do not say which module they belong to."""


def maker(model: torch.nn.Module, init: Mapping[str, Any] | None = None) -> str:
    """The source of a function ``make_model()`` that creates such a model, with new parameters.

    ``init`` holds the arguments that the model was created with. Raises NotSelfContained, which names what is missing.
    """
    gathering = _Gathering()
    expression = gathering.expression(model, init)
    body = [*gathering.imports.values(), *gathering.definitions.values(), f"return {expression}"]
    text = "def make_model():\n" + textwrap.indent("\n".join(body), "    ") + "\n"
    _check(text, model)
    return text


def made_by(text: str) -> torch.nn.Module:
    """The model that this source creates. Keeps the state of torch's random generator."""
    namespace: dict[str, Any] = {}
    exec(text, namespace)  # noqa: S102 - the source of the caller's own class
    with torch.random.fork_rng(devices=[]):
        model: torch.nn.Module = namespace["make_model"]()
    return model


def _check(text: str, model: torch.nn.Module) -> None:
    try:
        copy = made_by(text)
    except Exception as error:
        raise NotSelfContained(
            f"{type(model).__name__} cannot be created from its source alone ({type(error).__name__}: {error}); "
            "pass the arguments of its class as init={...}, or use a class whose __init__ needs none"
        ) from error
    if _shape(copy) != _shape(model):
        raise NotSelfContained(
            f"{type(model).__name__} created from its source differs from this model; "
            "pass the arguments of its class as init={...}"
        )


def _shape(model: torch.nn.Module) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Equal for two models that differ only in the values of their parameters."""
    return _layers(model), {name: tuple(value.shape) for name, value in model.state_dict().items()}


def _layers(model: torch.nn.Module) -> str:
    """Torch's own description of the layers, without the name of the class."""
    return repr(model).partition("(")[2]


class _Gathering:
    """The imports and definitions that a model needs, in an order that works."""

    def __init__(self) -> None:
        self.imports: dict[str, str] = {}
        self.definitions: dict[str, str] = {}
        self._meant: dict[str, Any] = {}

    def expression(self, module: torch.nn.Module, init: Mapping[str, Any] | None = None) -> str:
        """The expression that creates ``module``."""
        kind = type(module)
        if not _comes_with(kind.__module__, "torch"):
            self._need(kind.__name__, kind)
            return f"{kind.__name__}({_arguments(init or {})})"
        self.imports["torch"] = "import torch"
        if kind is torch.nn.Sequential:
            return self._sequence(module)
        return f"torch.nn.{kind.__name__}({_arguments(init) if init else module.extra_repr()})"

    def _sequence(self, module: torch.nn.Module) -> str:
        children = dict(module.named_children())
        parts = {name: self.expression(child) for name, child in children.items()}
        if list(parts) == [str(position) for position in range(len(parts))]:
            return f"torch.nn.Sequential({', '.join(parts.values())})"
        self.imports["collections"] = "import collections"
        pairs = ", ".join(f"({name!r}, {part})" for name, part in parts.items())
        return f"torch.nn.Sequential(collections.OrderedDict([{pairs}]))"

    def _need(self, name: str, thing: Any) -> None:
        """Make ``name`` refer to ``thing`` in the source."""
        if name in self._meant:
            if self._meant[name] is not thing:
                raise NotSelfContained(f"{name!r} is defined differently in two of the model's modules; rename one")
            return
        self._meant[name] = thing
        if imported := _import(name, thing):
            self.imports[name] = imported
        elif isinstance(thing, type | FunctionType):
            self._define(name, thing)
        elif _is_plain(thing):
            self.definitions[name] = f"{name} = {thing!r}"
        else:
            raise NotSelfContained(_cannot_travel(name, thing))

    def _define(self, name: str, thing: type | FunctionType) -> None:
        """Add the source of a class or function, after the definitions that it needs."""
        if _is_installed(thing.__module__):
            root = thing.__module__.partition(".")[0]
            raise NotSelfContained(f"the model needs {thing.__name__} of {root}, which a datasite does not have")
        if thing.__name__ != name:
            raise NotSelfContained(f"the model uses {thing.__name__} as {name}; use the name {thing.__name__}")
        source = _source(thing)
        there = vars(sys.modules[thing.__module__])
        for needed in sorted(_free_names(source) - {name}):
            if needed in there:
                self._need(needed, there[needed])
            elif not hasattr(builtins, needed):
                raise NotSelfContained(
                    f"{name} uses {needed!r}, which {thing.__module__} does not define at the top level; "
                    "define or import it there"
                )
        self.definitions[name] = source


def _source(thing: type | FunctionType) -> str:
    try:
        return textwrap.dedent(inspect.getsource(thing)).rstrip()
    except (OSError, TypeError) as error:
        raise NotSelfContained(
            f"the source of {thing.__name__} is not available; define it in a file or a notebook cell"
        ) from error


def _free_names(source: str) -> set[str]:
    """The names that ``source`` uses but does not define."""

    def walk(table: symtable.SymbolTable) -> Iterator[str]:
        top = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_global() or (top and symbol.is_referenced()):
                yield symbol.get_name()
        for child in table.get_children():
            yield from walk(child)

    return set(walk(symtable.symtable(source, "<model>", "exec")))


def _import(name: str, thing: Any) -> str:
    """The import that makes ``name`` refer to ``thing`` at a datasite; "" if there is none."""
    if isinstance(thing, ModuleType):
        if not _is_there(thing.__name__):
            return ""
        return f"import {name}" if name == thing.__name__ else f"import {thing.__name__} as {name}"
    own = getattr(thing, "__name__", None)
    if not isinstance(own, str):
        return ""
    for home in (getattr(thing, "__module__", None), *_PUBLIC):
        if isinstance(home, str) and _is_there(home) and getattr(import_module(home), own, None) is thing:
            return f"from {home} import {own}" + ("" if own == name else f" as {name}")
    return ""


def _is_there(module: str) -> bool:
    root = module.partition(".")[0]
    return root in _THERE or (root in sys.stdlib_module_names and root != "__main__")


def _comes_with(module: str, package: str) -> bool:
    return module.partition(".")[0] == package


def _is_installed(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def _is_plain(value: Any) -> bool:
    """Whether ``repr`` of it is a literal with the same value."""
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False


def _arguments(init: Mapping[str, Any]) -> str:
    for name, value in init.items():
        if not _is_plain(value) or not re.fullmatch(r"[^\W\d]\w*", name):
            raise NotSelfContained(f"init: {name} must be a number, a string, or a list or dict of these")
    return ", ".join(f"{name}={value!r}" for name, value in init.items())


def _cannot_travel(name: str, thing: Any) -> str:
    if isinstance(thing, ModuleType):
        return f"the model needs the module {thing.__name__}, which a datasite does not have; use only torch"
    return f"the model uses {name} ({type(thing).__name__}); only classes, functions and plain constants can be sent"
