"""Where datasets are kept, as ``data.datasets`` needs it: one protocol, and the values it speaks of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from datasite_worker.data.files import Content


@dataclass(frozen=True, slots=True)
class Ids:
    """Under which ids a dataset and its assets are kept, hexadecimal. They are for life."""

    dataset: str
    assets: dict[str, str]


@dataclass(frozen=True, slots=True)
class Held:
    """A dataset that the store has. ``ours``: made here, not by somebody who logged in."""

    ids: Ids
    ours: bool


class DatasetStore(Protocol):
    """The engine's own, or what stands for it in a test."""

    def holds(self, name: str) -> Held | None:
        """The dataset that bears the name; None when there is none."""

    def put(self, name: str, description: str, ids: Ids, data: Content, mocks: Content) -> None:
        """Make the dataset so, whatever was there under these ids."""

    def remove(self, ids: Ids) -> None:
        """Dataset and data are gone afterwards, or were before."""

    def drop(self, assets: list[str]) -> None:
        """Remove data that a dataset no longer has."""

    def blobs(self, assets: list[str]) -> list[str]:
        """The files in which these assets are kept, by id; small ones have none."""

    def forget(self, blobs: list[str]) -> None:
        """Remove such files."""
