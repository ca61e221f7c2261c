"""Fills in ``${env:NAME}``, ``${env:NAME:-default}``, ``${file:path}`` and ``${credential:NAME}`` in any text. ``$${``
stands for a literal ``${``. Credentials come from systemd (systemd.exec(5), LoadCredential).

Reads secret files, nothing else. Their contents go into the tree and never into a message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Environ
from dataclasses import dataclass, field, replace
from pathlib import Path

from supervisor.config.problems import Flaw
from supervisor.config.tree import Kind, Mapping, Scalar, Sequence, Tree

_TOKEN = re.compile(r"\$\$\{|\$\{(?P<body>[^{}]*)\}|\$\{")
_ENV = re.compile(r"env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?", re.DOTALL)
_FILE = re.compile(r"file:(?P<path>[^\0]+)", re.DOTALL)
_CREDENTIAL = re.compile(r"credential:(?P<name>[A-Za-z0-9_.-]+)")
_BLANK = re.compile(r"\$\{env:[A-Za-z_][A-Za-z0-9_]*:-\}")
_FORMS = "expected ${env:NAME}, ${env:NAME:-default}, ${file:path} or ${credential:NAME}; for a literal ${ write $${"
_FILE_BYTES = 65536


class _Missing(Exception):
    """A reference that cannot be filled in. The message holds no value."""


@dataclass(slots=True)
class Interpolator:
    """Relative secret files are looked up in ``base``. ``flaws`` collects the errors of all trees."""

    environ: Environ[str, str] = field(repr=False)
    base: Path
    flaws: list[Flaw] = field(default_factory=list)

    def filled(self, tree: Tree) -> Tree:
        """``tree`` with every reference replaced by its value."""
        if isinstance(tree, Mapping):
            return replace(tree, items={name: self.filled(item) for name, item in tree.items.items()})
        if isinstance(tree, Sequence):
            return replace(tree, items=tuple(self.filled(item) for item in tree.items))
        return self._scalar(tree) if tree.kind is Kind.TEXT and "${" in tree.text else tree

    def _scalar(self, scalar: Scalar) -> Scalar:
        before = len(self.flaws)
        text = _TOKEN.sub(lambda token: self._token(token, scalar), scalar.text)
        interpolated = any(token[0] != "$${" for token in _TOKEN.finditer(scalar.text))
        blank = not text and _BLANK.fullmatch(scalar.text) is not None
        broken = len(self.flaws) > before
        return replace(scalar, text=text, interpolated=interpolated, blank=blank, broken=broken)

    def _token(self, token: re.Match[str], scalar: Scalar) -> str:
        if token[0] == "$${":
            return "${"
        try:
            return self._value(token["body"] or "")
        except _Missing as missing:
            self.flaws.append(Flaw(scalar.mark, scalar.key, str(missing)))
            return ""

    def _value(self, body: str) -> str:
        if named := _ENV.fullmatch(body):
            return self._variable(named["name"], named["default"])
        if named := _FILE.fullmatch(body):
            return self._file(named["path"])
        if named := _CREDENTIAL.fullmatch(body):
            return self._credential(named["name"])
        # The message does not show the body: it may be part of a password that contains `${`.
        raise _Missing(_FORMS)

    def _variable(self, name: str, default: str | None) -> str:
        value = self.environ.get(name)
        if default is not None:
            return value or default.removeprefix(":-")
        if value is None:
            message = f"the environment variable {name} is not set; export it, or write a default: ${{env:{name}:-…}}"
            raise _Missing(message)
        return value

    def _credential(self, name: str) -> str:
        folder = self.environ.get("CREDENTIALS_DIRECTORY")
        if folder is None:
            raise _Missing(f"credentials need systemd: add LoadCredential={name}:… to the unit, or use ${{file:…}}")
        return self._file(f"{folder}/{name}")

    def _file(self, name: str) -> str:
        path = self.base / name
        try:
            with path.open("rb") as file:
                raw = file.read(_FILE_BYTES + 1)
            if len(raw) > _FILE_BYTES:
                raise _Missing(f"the file {path} is larger than {_FILE_BYTES // 1024} KiB; correct the path")
            return re.sub(r"\r?\n\Z", "", raw.decode())
        except OSError as error:
            message = f"cannot read the file {path}: {error.strerror}; create it, or correct the path"
            raise _Missing(message) from None
        except UnicodeDecodeError:
            raise _Missing(f"the file {path} is not UTF-8 text; save it as UTF-8") from None
