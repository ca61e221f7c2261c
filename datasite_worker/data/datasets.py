"""Keeps a datasite's datasets in step with its local files: publishes them, updates them when a file changes, and
removes those that are no longer listed. Knows files, digests and a ledger; the engine's store is a ``DatasetStore``.

A published dataset stays until a good new version exists: a missing, broken or half-written file changes nothing. Each
round runs in its own short thread, because a file may be large; a disk that hangs costs only its own dataset.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from datasite_worker.data import disks, files, mocks
from datasite_worker.data.disks import Disks
from datasite_worker.data.files import Blocked, Content, Look, Unusable
from datasite_worker.data.store import DatasetStore, Ids
from fleet_common import state_files
from fleet_common.contract import DatasetOrder, DatasetSaid
from fleet_common.layout import WorkerFolder
from fleet_common.moments import now_iso

logger = logging.getLogger(__name__)

T = TypeVar("T")

SETTLED = 5.0
"""A file is read only after it has not changed for so many seconds: its writer may still be at work."""
RETRY = 60.0
"""Seconds until another try after an error that the file did not cause."""
OUTDATED = 600.0
"""Seconds until the previous version of the data is removed: code that began with it may still read it."""

Looks = tuple[Look, ...]
"""The data file's, then the mock file's if there is one."""


@dataclass(frozen=True, slots=True)
class Published:
    """What the ledger knows of a dataset. ``digest``: of all that went into it; empty while it is being made."""

    ids: Ids
    digest: str = ""
    looks: Looks = ()
    published_at: str | None = None


@dataclass(slots=True)
class Ledger:
    """Records in the state folder what was published. Written before PySyft's stores change, so that no id is lost."""

    path: Path
    datasets: dict[str, Published] = field(default_factory=dict)
    outdated: dict[str, float] = field(default_factory=dict)  # blobs, and since when (wall clock)

    @classmethod
    def kept(cls, path: Path) -> Ledger:
        """The ledger at ``path``; a new one where it is missing or broken: then everything is published again."""
        kept = state_files.taken(path, _Kept, "publishing all datasets again")
        return cls(path, kept.datasets, kept.outdated) if kept else cls(path)

    def write(self) -> None:
        told = {"datasets": {name: asdict(one) for name, one in self.datasets.items()}, "outdated": self.outdated}
        state_files.write(self.path, told)


@dataclass(frozen=True, slots=True)
class _Kept:
    """The ledger's file."""

    datasets: dict[str, Published]
    outdated: dict[str, float]


class Datasets:
    """``told`` is called with the datasets' part of the status document whenever it changed."""

    def __init__(
        self, state_dir: Path, wanted: tuple[DatasetOrder, ...], told: Callable[[list[DatasetSaid]], None]
    ) -> None:
        self._wanted = wanted
        self._told = told
        self._path = WorkerFolder(state_dir).datasets
        self._ledger: Ledger | None = None
        self._problems: dict[str, str] = {}
        self._seen: dict[str, Looks] = {}
        self._given_up: dict[str, tuple[Any, float]] = {}
        self._said = self.known()
        self._trouble = ""
        self._disks = Disks()
        self._thread: threading.Thread | None = None

    def known(self) -> list[DatasetSaid]:
        """The datasets' part of the status document before the first round: what the previous process published."""
        return self._told_of(self._wanted, Ledger.kept(self._path)) if self._wanted else []

    def want(self, wanted: tuple[DatasetOrder, ...]) -> None:
        """Other datasets from the next round on."""
        self._wanted = wanted

    def look(self, store: DatasetStore) -> None:
        """Begin a round, unless the last one still runs or there is nothing to do. Never blocks."""
        if self._thread is not None and self._thread.is_alive():
            return
        if self._wanted or self._path.exists():
            self._thread = threading.Thread(target=self._guarded, args=(store,), name="datasets", daemon=True)
            self._thread.start()

    def _guarded(self, store: DatasetStore) -> None:
        trouble, before = "", self._said
        try:
            self.round(store, time.time())
        except Exception as error:  # noqa: BLE001 - the next round tries again; the error's text may contain data
            trouble = _named(error)
        if trouble and trouble != self._trouble:
            logger.warning("datasets: %s; trying again", trouble)
        self._trouble = trouble
        if self._said is not before:
            files.give_back()

    def round(self, store: DatasetStore, now: float) -> None:
        """Look at every file once, and make the store as they are. ``now``: the wall clock, as files have it."""
        ledger = self._ledger = self._ledger or Ledger.kept(self._path)
        wanted = self._wanted
        for name in ledger.datasets.keys() - {one.name for one in wanted}:
            self._remove(store, ledger, name)
        for order in wanted:
            self._attempt(store, ledger, order, now)
        self._forget_outdated(store, ledger, now)
        self._say(wanted, ledger)

    def _attempt(self, store: DatasetStore, ledger: Ledger, order: DatasetOrder, now: float) -> None:
        try:
            self._keep(store, ledger, order, now)
        except Blocked as blocked:
            self._problem(order, str(blocked), now + RETRY)
        except Unusable as unusable:
            self._problem(order, str(unusable), math.inf)
        except Exception as error:  # noqa: BLE001 - from PySyft's stores; the error's text may contain data
            self._problem(order, f"could not be published ({_named(error)}); trying again", now + RETRY)

    def _keep(self, store: DatasetStore, ledger: Ledger, order: DatasetOrder, now: float) -> None:
        """Publish the dataset if it differs from its file."""
        before = self._seen.pop(order.name, None)
        looks = self._seen[order.name] = self._disks.ask(order.name, lambda: _looks(order), disks.LOOK)
        known = ledger.datasets.get(order.name)
        if known is not None and known.digest and (known.looks, known.digest[:16]) == (looks, _rule(order)):
            self._solved(order)
            return
        told, again = self._given_up.get(order.name, (None, 0.0))
        if (told == (looks, order) and now < again) or not _settled(looks, before, now):
            return
        data, mock, after = self._disks.ask(order.name, lambda: (*_contents(order), _looks(order)), disks.READ)
        if after == looks:  # otherwise it changed while it was read: the next round reads it again
            self._take_on(store, ledger, order, looks, data, mock, now)

    def _take_on(
        self,
        store: DatasetStore,
        ledger: Ledger,
        order: DatasetOrder,
        looks: Looks,
        data: bytes,
        mock: bytes,
        now: float,
    ) -> None:
        known = ledger.datasets.get(order.name)
        digest = "".join((_rule(order), *(hashlib.sha256(raw).hexdigest() for raw in (data, mock))))
        if known is None or known.digest != digest:
            self._publish(store, ledger, order, data, mock, now)
            logger.info("dataset %s: %s", order.name, "published" if known is None else "updated")
            ledger.datasets[order.name] = replace(ledger.datasets[order.name], published_at=now_iso())
        ledger.datasets[order.name] = replace(ledger.datasets[order.name], digest=digest, looks=looks)
        ledger.write()
        self._solved(order)

    def _publish(
        self, store: DatasetStore, ledger: Ledger, order: DatasetOrder, data: bytes, mock: bytes, now: float
    ) -> None:
        content = files.parsed(data, _kind(order.path), order.name)
        shown = _mock(order, content, data, mock)
        known = ledger.datasets.get(order.name) or _adopted(store, order.name) or Published(Ids(uuid.uuid4().hex, {}))
        gone = [asset for name, asset in known.ids.assets.items() if name not in content]
        ids = Ids(known.ids.dataset, {name: known.ids.assets.get(name) or uuid.uuid4().hex for name in content})
        ledger.outdated |= dict.fromkeys(store.blobs(list(ids.assets.values())), now)
        # The ledger keeps the ids of removed assets until they are gone, and no digest, so that a crash repeats this.
        ledger.datasets[order.name] = replace(known, ids=replace(ids, assets=known.ids.assets | ids.assets), digest="")
        ledger.write()
        store.put(order.name, order.description, ids, content, shown)
        store.drop(gone)
        ledger.datasets[order.name] = replace(known, ids=ids, digest="")

    def _remove(self, store: DatasetStore, ledger: Ledger, name: str) -> None:
        store.remove(ledger.datasets[name].ids)
        del ledger.datasets[name]
        ledger.write()
        for kept in (self._problems, self._seen, self._given_up):
            kept.pop(name, None)
        logger.info("dataset %s: removed, because fleet.yaml no longer lists it", name)

    def _forget_outdated(self, store: DatasetStore, ledger: Ledger, now: float) -> None:
        due = [blob for blob, since in ledger.outdated.items() if not since <= now < since + OUTDATED]
        if not due:
            return
        used = {blob for one in ledger.datasets.values() for blob in store.blobs(list(one.ids.assets.values()))}
        store.forget([blob for blob in due if blob not in used])
        ledger.outdated = {blob: since for blob, since in ledger.outdated.items() if blob not in due}
        ledger.write()

    def _problem(self, order: DatasetOrder, why: str, again: float) -> None:
        if order.name in self._seen:
            self._given_up[order.name] = ((self._seen[order.name], order), again)
        if self._problems.get(order.name) != why:
            self._problems[order.name] = why
            logger.warning("dataset %s: %s (%s)", order.name, why, order.path)

    def _solved(self, order: DatasetOrder) -> None:
        self._given_up.pop(order.name, None)
        if self._problems.pop(order.name, None):
            logger.info("dataset %s: the problem is solved", order.name)

    def _say(self, wanted: tuple[DatasetOrder, ...], ledger: Ledger) -> None:
        said = self._told_of(wanted, ledger)
        if said != self._said:
            self._said = said
            self._told(said)

    def _told_of(self, wanted: tuple[DatasetOrder, ...], ledger: Ledger) -> list[DatasetSaid]:
        """Everybody may read it: no path, no value, no count."""
        at = {name: one.published_at for name, one in ledger.datasets.items()}
        return [
            {"name": one.name, "published_at": at.get(one.name), "problem": self._problems.get(one.name, "")}
            for one in wanted
        ]


def _adopted(store: DatasetStore, name: str) -> Published | None:
    """A dataset that was made here but is missing from a lost ledger: it keeps its ids. Raises Blocked when a user
    uploaded it."""
    held = store.holds(name)
    if held is not None and not held.ours:
        raise Blocked("a user has uploaded a dataset of this name; rename one of the two")
    return Published(held.ids) if held is not None else None


def _named(error: Exception) -> str:
    """Only the kind of error, because its text may contain values of the data. An OSError's text cannot."""
    return f"{type(error).__name__}: {error.strerror}" if isinstance(error, OSError) else type(error).__name__


def _kind(path: str) -> str:
    return Path(path).suffix.lower()


def _looks(order: DatasetOrder) -> Looks:
    data = files.look(Path(order.path))
    return (data, _of_mock(lambda: files.look(Path(order.mock_path)))) if order.mock_path else (data,)


def _contents(order: DatasetOrder) -> tuple[bytes, bytes]:
    data = files.read(Path(order.path))
    return data, _of_mock(lambda: files.read(Path(order.mock_path))) if order.mock_path else b""


def _of_mock(does: Callable[[], T]) -> T:
    try:
        return does()
    except Unusable as unusable:
        raise Unusable(f"its mock: {unusable}") from unusable


def _rule(order: DatasetOrder) -> str:
    """A digest of the settings: it changes when the same file would be published differently."""
    told = (1, order.mock, order.mock_rows, order.description, _kind(order.path))
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _settled(looks: Looks, before: Looks | None, now: float) -> bool:
    """Whether the files have not changed for a while, by the clock or since the last round."""
    return looks == before or all(now - changed / 1e9 >= SETTLED for changed, *_ in looks)


def _mock(order: DatasetOrder, content: Content, data: bytes, mock: bytes) -> Content:
    if order.mock == "file":
        if data == mock:
            raise Unusable("its mock: the file is the data itself, which everybody would see")
        return mocks.own(content, _of_mock(lambda: files.parsed(mock, _kind(order.mock_path), order.name)))
    return mocks.synthetic(content, order.name, 0 if order.mock == "empty" else order.mock_rows)
