"""YAML text to a tree of values with their position, their key and how they are written. Checks no meaning.

PyYAML only composes nodes and constructs nothing. So no tag can run code, and ``port: 08080`` or ``name: no`` are seen
as written, not as YAML 1.1 reads them. A message never shows a value: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import yaml

from supervisor.config.problems import Flaw, Mark

# The loader in C is ten times as fast, but PyYAML can be built without it.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_DEPTH = 32
_NODES = 50_000
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Kind(StrEnum):
    """The type that YAML 1.1 gives a scalar. The value is the last word of the tag."""

    TEXT = "str"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    NULL = "null"
    TIME = "timestamp"
    OTHER = "other"  # `=` or `<<` as a value, which people mean as text


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value, ``text`` as written. ``quoted``: not plain. ``broken``: already reported, do not report again."""

    key: str
    mark: Mark
    text: str = field(repr=False)
    kind: Kind = Kind.TEXT
    quoted: bool = False
    interpolated: bool = False
    broken: bool = False
    blank: bool = False  # only `${env:NAME:-}`, and it is empty: the key counts as missing

    @property
    def absent(self) -> bool:
        return self.kind is Kind.NULL or self.blank


@dataclass(frozen=True, slots=True)
class Sequence:
    key: str
    mark: Mark
    items: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    key: str
    mark: Mark
    items: dict[str, Tree]
    key_marks: dict[str, Mark]


Tree = Scalar | Sequence | Mapping


def join(key: str, name: str) -> str:
    """The full key of ``name`` in ``key``."""
    return f"{key}.{name}" if key else name


def parse(text: str) -> tuple[Tree | None, list[Flaw]]:
    """The tree of ``text`` (None when it is empty or not YAML), and its errors."""
    if stray := _UNPRINTABLE.search(text):
        return None, [Flaw(_mark_at(text, stray.start()), "", _UNPRINTABLE_MESSAGE)]
    try:
        if deep := _too_deep(text):
            return None, [Flaw(deep, "", f"nested more than {_DEPTH} levels deep; fleet.yaml needs only four")]
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        return None, [_syntax_flaw(text, error)]
    except yaml.YAMLError:
        return None, [Flaw(Mark(1, 1), "", "the file is not YAML")]
    if node is None:
        return None, [Flaw(Mark(), "", "the file is empty; create one with `fleet init`")]
    grower = _Grower()
    return grower.grow(node, ""), grower.flaws


_UNPRINTABLE_MESSAGE = "YAML does not allow this control character; delete it"


def _mark_at(text: str, index: int) -> Mark:
    return Mark(text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1)


def _too_deep(text: str) -> Mark | None:
    """Where nesting goes too deep. Checked before composing, which recurses."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEPTH:
            return _mark(event.start_mark)
    return None


def _syntax_flaw(text: str, error: yaml.MarkedYAMLError) -> Flaw:
    mark = error.problem_mark or error.context_mark
    position = _mark(mark) if mark else Mark(1, 1)
    reason = " ".join(part for part in (error.context, error.problem) if part)
    return Flaw(position, "", f"YAML syntax error: {reason}{_syntax_hint(text, position)}")


def _syntax_hint(text: str, position: Mark) -> str:
    lines = text.splitlines()
    line = lines[position.line - 1] if position.line <= len(lines) else ""
    if line[position.column - 1 : position.column] == "\t":
        return "; indent with spaces, not tabs"
    if "${" in line:
        return '; inside { }, put "${…}" in quotes'
    return "; put text that contains : # @ % * & ! or quotes in quotes"


class _Grower:
    """Makes the tree from nodes: follows merge keys, finds duplicate keys, and limits aliases against YAML bombs."""

    def __init__(self) -> None:
        self.flaws: list[Flaw] = []
        self._left = _NODES
        self._above: list[yaml.Node] = []

    def grow(self, node: yaml.Node, key: str) -> Tree:
        mark = _mark(node.start_mark)
        self._left -= 1
        if self._left < 0:
            return self._broken(mark, "", f"more than {_NODES} values after expanding aliases; use fewer aliases")
        if any(node is above for above in self._above):
            return self._broken(mark, key, "this alias contains itself; remove it")
        self._above.append(node)
        try:
            return self._grown(node, key, mark)
        finally:
            self._above.pop()

    def _grown(self, node: yaml.Node, key: str, mark: Mark) -> Tree:
        kind = _kind(node)
        if kind is None:
            return self._broken(mark, key, "fleet.yaml has no tags (words that begin with !); remove the tag")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key, mark)
        if isinstance(node, yaml.SequenceNode):
            return Sequence(key, mark, tuple(self.grow(item, f"{key}[{i}]") for i, item in enumerate(node.value)))
        return Scalar(key, mark, str(node.value), kind, quoted=getattr(node, "style", "") in _QUOTES)

    def _mapping(self, node: yaml.MappingNode, key: str, mark: Mark) -> Mapping:
        grown = Mapping(key, mark, {}, {})
        merged = [value for name, value in node.value if name.tag == _MERGE]
        for name, value in node.value:
            if name.tag != _MERGE:
                self._add(grown, name, value)
        for source in self._merge_sources(merged, key):
            for name, tree in source.items.items():
                if name not in grown.items:
                    grown.items[name], grown.key_marks[name] = tree, source.key_marks[name]
        return grown

    def _add(self, grown: Mapping, name: yaml.Node, value: yaml.Node) -> None:
        at = _mark(name.start_mark)
        if not isinstance(name, yaml.ScalarNode) or (name.tag.endswith(":null")):
            self.flaws.append(Flaw(at, grown.key, "expected a plain word as the key"))
        elif name.value in grown.items:
            first = grown.key_marks[name.value].line
            message = f"duplicate key, first on line {first} and again on line {at.line}; keep one"
            self.flaws.append(Flaw(at, join(grown.key, name.value), message))
        else:
            grown.items[name.value] = self.grow(value, join(grown.key, name.value))
            grown.key_marks[name.value] = at

    def _merge_sources(self, values: list[yaml.Node], key: str) -> Iterator[Mapping]:
        for value in values:
            for node in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                tree = self.grow(node, key)
                if isinstance(tree, Mapping):
                    yield tree
                elif not (isinstance(tree, Scalar) and tree.broken):
                    self._broken(_mark(node.start_mark), key, "`<<` needs the alias of a mapping: `<<: *name`")

    def _broken(self, mark: Mark, key: str, message: str) -> Scalar:
        self.flaws.append(Flaw(mark, key, message))
        return Scalar(key, mark, "", broken=True)


_QUOTES = ("'", '"', "|", ">")
_PREFIX = "tag:yaml.org,2002:"
_MERGE = _PREFIX + "merge"


def _kind(node: yaml.Node) -> Kind | None:
    """The kind of the node; None for a tag that is not allowed."""
    word = node.tag.removeprefix(_PREFIX)
    if isinstance(node, yaml.MappingNode):
        return Kind.OTHER if word == "map" else None
    if isinstance(node, yaml.SequenceNode):
        return Kind.OTHER if word == "seq" else None
    if word in ("merge", "value"):
        return Kind.OTHER
    return Kind(word) if word in set(Kind) - {Kind.OTHER} else None
