"""Validates a tree with a model of ``schema`` and reports each error at its place. Pure.

pydantic finds all errors of a mapping at once. Our own messages replace its messages, which would show values.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from supervisor.config.problems import Flaw, Mark
from supervisor.config.schema import FleetFile, Keys
from supervisor.config.tree import Mapping, Scalar, Tree, join
from supervisor.config.tree import Sequence as TreeSequence
from supervisor.config.values import Reported, Wrong

ModelT = TypeVar("ModelT", bound=Keys)
KeyPath = tuple[int | str, ...]

AS_WRITTEN = "environment"
"""The only mapping in which an empty value differs from a missing key."""

_PLAIN = {
    "list_type": "expected a list, each entry beginning with `- `",
    "dict_type": "expected a mapping, written as `key: value` lines",
    "model_type": "expected a mapping, written as `key: value` lines",
    "model_attributes_type": "expected a mapping, written as `key: value` lines",
}


def plain(tree: Tree, *, as_written: bool = False) -> Any:
    """Dicts and lists of scalars for pydantic, without the keys that have no value."""
    if isinstance(tree, Mapping):
        kept = {key: item for key, item in tree.items.items() if as_written or not _absent(item)}
        return {key: plain(item, as_written=key == AS_WRITTEN) for key, item in kept.items()}
    if isinstance(tree, TreeSequence):
        return [plain(item) for item in tree.items]
    return tree


def _absent(tree: Tree) -> bool:
    return isinstance(tree, Scalar) and tree.absent


def merged(base: Mapping, over: Mapping, *, as_written: bool = False) -> Mapping:
    """``over`` on top of ``base``, key by key. Values keep their positions; an empty value drops the default."""
    items, marks = dict(base.items), base.key_marks | over.key_marks
    for key, item in over.items.items():
        below = base.items.get(key)
        if isinstance(item, Mapping) and isinstance(below, Mapping):
            items[key] = merged(below, item, as_written=key == AS_WRITTEN)
        elif below is not None and isinstance(item, Scalar) and item.absent and not (as_written and item.blank):
            del items[key]
        else:
            items[key] = item
    return Mapping(over.key, over.mark, items, marks)


def validated(model: type[ModelT], tree: Tree, flaws: list[Flaw]) -> ModelT | None:
    """``tree`` as ``model``. When it is not valid: None, and ``flaws`` gets the reasons."""
    if isinstance(tree, Scalar) and tree.broken:
        return None
    try:
        return model.model_validate(plain(tree))
    except ValidationError as error:
        flaws.extend(flaw for each in error.errors(include_url=False) if (flaw := _flaw(model, tree, each)))
    return None


def _flaw(model: type[Keys], tree: Tree, error: ErrorDetails) -> Flaw | None:
    """``error`` with our message and its position; None when it is already reported."""
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, Reported):
        return None
    if isinstance(cause, Wrong) and cause.node is not None:
        return Flaw(cause.node.mark, cause.node.key, str(cause))
    place = (*error["loc"], cause.key) if isinstance(cause, Wrong) and cause.key else error["loc"]
    mark, key = _found(tree, place, at_key=error["type"] == "extra_forbidden" or place[-1:] == ("[key]",))
    return Flaw(mark, key, str(cause) if isinstance(cause, Wrong) else _message(model, error))


def _found(tree: Tree, place: KeyPath, *, at_key: bool) -> tuple[Mark, str]:
    """The position of ``place``, and its full key. Skips steps that are not keys (pydantic adds some)."""
    mark = tree.mark
    for step in place:
        if isinstance(tree, Mapping) and step in tree.items:
            mark, tree = tree.key_marks[str(step)], tree.items[str(step)]
        elif isinstance(tree, TreeSequence) and isinstance(step, int):
            tree = tree.items[step]
            mark = tree.mark
        elif isinstance(tree, Mapping) and step == place[-1] and step != "[key]":
            return tree.mark, join(tree.key, str(step))
    return (mark if at_key else tree.mark), tree.key


def _message(model: type[Keys], error: ErrorDetails) -> str:
    owner = _model_at(model, error["loc"][:-1])
    key = str(error["loc"][-1]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        return _unknown_key(owner, key)
    if error["type"] == "missing":
        return f"this key is required. {owner.model_fields[key].description}"
    if error["type"] == "too_long":
        return f"expected at most {error['ctx']['max_length']} entries, not {error['ctx']['actual_length']}"
    return _PLAIN.get(error["type"], error["msg"])


def _unknown_key(owner: type[Keys], key: str) -> str:
    elsewhere = [place for place in _places().get(key, ()) if place]
    if elsewhere:
        return f"this key is not allowed here; {key} belongs {' or '.join(elsewhere)}"
    near = difflib.get_close_matches(key.lower().replace("-", "_"), owner.model_fields, n=1)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    return f"unknown key; expected one of {', '.join(owner.model_fields)}"


@cache
def _places() -> dict[str, tuple[str, ...]]:
    """Every known key, and where it belongs."""
    places: dict[str, tuple[str, ...]] = {}
    for where, model in _mappings(FleetFile, "at the top level"):
        for key in model.model_fields:
            places[key] = (*places.get(key, ()), where)
    return places


def _mappings(model: type[Keys], where: str, under: str = "") -> Iterator[tuple[str, type[Keys]]]:
    yield where, model
    for key, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is None or key == "defaults":
            continue
        if key == "datasites":
            yield from _mappings(inner, "in a datasite")
        else:
            yield from _mappings(inner, f"under {under}{key}", f"{under}{key}.")


def _model_at(model: type[Keys], place: Sequence[int | str]) -> type[Keys]:
    """The model of the mapping at ``place``."""
    for step in place:
        field = model.model_fields.get(str(step))
        model = (_model_in(field.annotation) if field else None) or model
    return model


def _model_in(annotation: Any) -> type[Keys] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation if issubclass(annotation, Keys) else None
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
