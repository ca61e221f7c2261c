"""The store of datasets that ``data.datasets`` needs: one protocol, and its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from datasite_worker.data.files import Content


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids of a dataset and its assets, in hexadecimal. They never change."""

    dataset: str
    assets: dict[str, str]


@dataclass(frozen=True, slots=True)
class Held:
    """A dataset that the store has. ``ours``: published from a file, not uploaded by a user."""

    ids: Ids
    ours: bool


class DatasetStore(Protocol):
    """The engine's own, or what stands for it in a test."""

    def holds(self, name: str) -> Held | None:
        """The dataset with that name; None if there is none."""

    def put(self, name: str, description: str, ids: Ids, data: Content, mocks: Content) -> None:
        """Create or replace the dataset with these ids."""

    def remove(self, ids: Ids) -> None:
        """Remove dataset and data. It is no error if they do not exist."""

    def drop(self, assets: list[str]) -> None:
        """Remove data that a dataset no longer has."""

    def blobs(self, assets: list[str]) -> list[str]:
        """The ids of the files that store these assets; small assets have none."""

    def forget(self, blobs: list[str]) -> None:
        """Remove these files."""
