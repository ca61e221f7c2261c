"""What fleet.yaml approves in advance, and how often it ran: the decisions, and the record in the state folder.

Knows no PySyft. The serving process and every job use the record, so each change is made under a lock.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from fleet_common import folders, state_files
from fleet_common.contract import Approval
from fleet_common.layout import WorkerFolder
from fleet_common.untrusted import Unfit

Reads = tuple[tuple[str, str], ...]
"""The assets that code reads: dataset and asset."""


class Damaged(Exception):
    """The record cannot be read. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for: which function may read what, for whom."""

    hash: str
    reads: Reads
    by: str


def shown(reads: Reads) -> str:
    """For logs and people."""
    return "reads " + (", ".join(f"{dataset}/{asset}" for dataset, asset in reads) or "no dataset")


def not_covered(approval: Approval, asked: Asked) -> str:
    """Why the approval does not cover the request; empty if it does."""
    if approval.hash != asked.hash:
        return "fleet.yaml approves other code"
    others = tuple(one for one in asked.reads if not _may_read(approval, one))
    if others:
        return f"it {shown(others)}, and fleet.yaml approves its code for {_data(approval)}"
    if approval.by and approval.by.lower() != asked.by.lower():
        return f"fleet.yaml approves its code for {approval.by}"
    return ""


def _may_read(approval: Approval, one: tuple[str, str]) -> bool:
    dataset, asset = one
    return dataset == approval.dataset and (not approval.assets or asset in approval.assets)


def _data(approval: Approval) -> str:
    assets = ", ".join(f"{approval.dataset}/{asset}" for asset in approval.assets)
    return assets or f"the dataset {approval.dataset}"


def spent(approval: Approval, runs: int, now: float) -> str:
    """Why the approval approves nothing any more; empty while it does. ``now``: the wall clock."""
    if approval.until and now >= datetime.fromisoformat(approval.until).timestamp():
        return f"the approval ended at {approval.until}"
    if approval.runs and runs >= approval.runs:
        return f"the approval was for {_times(approval.runs)}, and all of them were used"
    return ""


def _times(runs: int) -> str:
    return "one run" if runs == 1 else f"{runs} runs"


def not_allowed(approval: Approval, config: object) -> str:
    """Why code may not run with that configuration; empty if it may."""
    if not approval.config:
        return ""
    if not isinstance(config, Mapping):
        return "the approval fixes the configuration, and the function has none"
    for key, allowed in approval.config.items():
        if key not in config or not any(_same(config[key], one) for one in allowed):
            return f"the approval allows {key} only as {' or '.join(map(repr, allowed))}"
    return ""


def _same(value: object, allowed: object) -> bool:
    """True is no number here, although Python counts it as 1."""
    return isinstance(value, bool) == isinstance(allowed, bool) and bool(value == allowed)


@dataclass(slots=True)
class _Kept:
    """``granted``: for each code that fleet.yaml approved, the keys of the approvals that covered it."""

    approvals: dict[str, Approval] = field(default_factory=dict)
    granted: dict[str, list[str]] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)


class Record:
    """The record of one datasite. Every method may raise Damaged, and OSError when the disk fails."""

    def __init__(self, state: Path) -> None:
        self._path, self._lock = WorkerFolder(state).approvals, WorkerFolder(state).approvals_lock

    @property
    def exists(self) -> bool:
        return self._path.exists()

    def allow(self, approvals: Iterable[Approval]) -> None:
        """The approvals of fleet.yaml, now. One that is gone still limits the code that it has approved."""
        with self._changed() as kept:
            used = {key for keys in kept.granted.values() for key in keys}
            left = {key: one for key, one in kept.approvals.items() if key in used}
            kept.approvals = left | {one.key: one for one in approvals}

    def spent(self, approval: Approval, now: float) -> str:
        """Why the approval approves nothing any more; empty while it does."""
        with self._locked():
            return spent(approval, self._read().runs.get(approval.key, 0), now)

    def grant(self, code: str, approvals: Iterable[Approval]) -> None:
        """These have approved the code with that id: it runs within their limits from now on."""
        with self._changed() as kept:
            kept.granted[code] = [one.key for one in approvals]

    def is_granted(self, code: str) -> bool:
        with self._locked():
            return code in self._read().granted

    def refusal(self, code: str, config: object, now: float) -> str:
        """Why the code may not run; empty if it may, and then this run is counted.

        Counted before it runs: a run that a crash cuts off was one. Code that fleet.yaml did not approve has no limits.
        """
        with self._changed() as kept:
            why = ""
            for key in kept.granted.get(code, ()):
                approval = kept.approvals[key]
                why = spent(approval, kept.runs.get(key, 0), now) or not_allowed(approval, config)
                if not why:
                    if approval.runs:
                        kept.runs[key] = kept.runs.get(key, 0) + 1
                    return ""
            return why

    # --- inside ---

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = folders.open_file(self._lock, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def _changed(self) -> Iterator[_Kept]:
        """What is kept; written, durably, if it was changed inside."""
        with self._locked():
            kept = self._read()
            before = asdict(kept)
            yield kept
            if (after := asdict(kept)) != before:
                folders.write_text(self._path, json.dumps(after))

    def _read(self) -> _Kept:
        kept = state_files.read(self._path, _Kept)
        if kept is None:
            return _Kept()
        if isinstance(kept, Unfit) or any(key not in kept.approvals for keys in kept.granted.values() for key in keys):
            raise Damaged(
                f"the record of approvals, {self._path}, is damaged; restore it from a backup, or remove it: runs are "
                "then counted from 0"
            )
        return kept
