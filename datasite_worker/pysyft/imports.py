"""Loads PySyft without the packages that it uses in notebooks, in Kubernetes and in clouds only.

PySyft imports them all at its own import: more than a thousand modules, a third of its time and 70 MB, of which a
datasite uses nothing. While PySyft is imported, stand-ins take their places. Afterwards they are gone, so user code
that imports one of these packages gets the real one. PySyft keeps the stand-ins; what it would do with one says so.

Call ``load`` before anything imports PySyft. Where PySyft is loaded already, as in a notebook, nothing changes.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

NOTEBOOK = frozenset({"IPython", "ipywidgets", "itables"})
"""They draw. Outside a notebook they draw nothing, and so do their stand-ins."""
CLUSTER = frozenset({"azure", "boto3", "botocore", "docker", "kr8s"})
"""They reach clouds and container engines, which a datasite never does."""


def load() -> None:
    """Import PySyft, unless it is loaded already."""
    if "syft" in sys.modules:
        return
    finder = _Finder((NOTEBOOK | CLUSTER) - {name.partition(".")[0] for name in sys.modules})
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module("syft")
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
            del sys.modules[name]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - importlib's signature
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in self._names:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


class _StandIn(ModuleType):
    """A module whose every name is a class: an exception that nobody raises, or something that cannot be used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _nowhere if name == "get_ipython" else self._class(name)
        setattr(self, name, made)
        return made

    def _class(self, name: str) -> type:
        if name.endswith(("Error", "Exception")):
            return type(name, (Exception,), {"__module__": self.__name__})
        begin = _drawn if self.__name__.partition(".")[0] in NOTEBOOK else _refused
        return type(name, (), {"__module__": self.__name__, "__init__": begin})


def _nowhere() -> None:
    """IPython's answer outside a notebook."""


def _drawn(_self: object, *_args: object, **_kwargs: object) -> None:
    """Nothing is shown."""


def _refused(self: object, *_args: object, **_kwargs: object) -> None:
    name = f"{type(self).__module__}.{type(self).__qualname__}"
    raise NotImplementedError(f"a datasite does not load {name}: it uses no cloud, cluster or container engine")
