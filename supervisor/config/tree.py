"""YAML text to a tree that knows where each value stands, under which key, and how it was written. No meaning here.

PyYAML only composes nodes: nothing is constructed, so no tag can run code, and ``port: 08080`` or ``name: no`` can
still be told apart from what YAML 1.1 makes of them. Nothing of a value may enter a message: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import yaml

from supervisor.config.problems import Flaw, Mark

# The one written in C is ten times as quick; PyYAML can be built without it.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_DEPTH = 32
_NODES = 50_000
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Kind(StrEnum):
    """What YAML 1.1 takes a scalar for; the value is the tag's last word."""

    TEXT = "str"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    NULL = "null"
    TIME = "timestamp"
    OTHER = "other"  # `=`, `<<` as a value: text to people


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value, ``text`` as written. ``quoted``: not plain. ``broken``: already reported, say no more of it."""

    key: str
    mark: Mark
    text: str = field(repr=False)
    kind: Kind = Kind.TEXT
    quoted: bool = False
    interpolated: bool = False
    broken: bool = False
    blank: bool = False  # nothing but `${env:NAME:-}`, and it came out empty: as if the key were not there

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
    """The full name of what stands under ``name`` in ``key``."""
    return f"{key}.{name}" if key else name


def parse(text: str) -> tuple[Tree | None, list[Flaw]]:
    """The tree of ``text``, or None when it is not YAML or empty, and what is wrong with it."""
    if stray := _UNPRINTABLE.search(text):
        return None, [Flaw(_mark_at(text, stray.start()), "", _UNPRINTABLE_MESSAGE)]
    try:
        if deep := _too_deep(text):
            return None, [Flaw(deep, "", f"nested more than {_DEPTH} levels deep; fleet.yaml needs four")]
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        return None, [_syntax_flaw(text, error)]
    except yaml.YAMLError:
        return None, [Flaw(Mark(1, 1), "", "not a YAML text")]
    if node is None:
        return None, [Flaw(Mark(), "", "the file is empty; `fleet init` writes one to start from")]
    grower = _Grower()
    return grower.grow(node, ""), grower.flaws


_UNPRINTABLE_MESSAGE = "a control character, which YAML does not allow; delete it"


def _mark_at(text: str, index: int) -> Mark:
    return Mark(text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1)


def _too_deep(text: str) -> Mark | None:
    """Where nesting goes too deep; asked before composing, which recurses."""
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
    said = " ".join(part for part in (error.context, error.problem) if part)
    return Flaw(position, "", f"YAML syntax: {said}{_syntax_hint(text, position)}")


def _syntax_hint(text: str, position: Mark) -> str:
    lines = text.splitlines()
    line = lines[position.line - 1] if position.line <= len(lines) else ""
    if line[position.column - 1 : position.column] == "\t":
        return "; indent with spaces, not tabs"
    if "${" in line:
        return '; inside { } put "${…}" in quotes'
    return "; a text with : # @ % * & ! or quotes in it goes in quotes"


class _Grower:
    """Nodes to tree: merge keys followed, duplicate keys found, aliases counted so that no bomb goes off."""

    def __init__(self) -> None:
        self.flaws: list[Flaw] = []
        self._left = _NODES
        self._above: list[yaml.Node] = []

    def grow(self, node: yaml.Node, key: str) -> Tree:
        mark = _mark(node.start_mark)
        self._left -= 1
        if self._left < 0:
            return self._broken(mark, "", f"more than {_NODES} values once aliases are followed; use fewer aliases")
        if any(node is above for above in self._above):
            return self._broken(mark, key, "contains itself through an alias")
        self._above.append(node)
        try:
            return self._grown(node, key, mark)
        finally:
            self._above.pop()

    def _grown(self, node: yaml.Node, key: str, mark: Mark) -> Tree:
        kind = _kind(node)
        if kind is None:
            return self._broken(mark, key, "tags (words that begin with !) are not used in fleet.yaml; take it away")
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
            self.flaws.append(Flaw(at, grown.key, "a key has to be a plain word"))
        elif name.value in grown.items:
            first = grown.key_marks[name.value].line
            message = f"given twice, first in line {first} and again in line {at.line}; keep one"
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
                    self._broken(_mark(node.start_mark), key, "`<<` takes an alias of a mapping: `<<: *name`")

    def _broken(self, mark: Mark, key: str, message: str) -> Scalar:
        self.flaws.append(Flaw(mark, key, message))
        return Scalar(key, mark, "", broken=True)


_QUOTES = ("'", '"', "|", ">")
_PREFIX = "tag:yaml.org,2002:"
_MERGE = _PREFIX + "merge"


def _kind(node: yaml.Node) -> Kind | None:
    """What the node is; None for a tag that has no place here."""
    word = node.tag.removeprefix(_PREFIX)
    if isinstance(node, yaml.MappingNode):
        return Kind.OTHER if word == "map" else None
    if isinstance(node, yaml.SequenceNode):
        return Kind.OTHER if word == "seq" else None
    if word in ("merge", "value"):
        return Kind.OTHER
    return Kind(word) if word in set(Kind) - {Kind.OTHER} else None
