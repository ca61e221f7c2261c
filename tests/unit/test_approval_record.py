"""The record of fleet.yaml's approvals: what covers what, what is spent, and what the file survives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from datasite_worker.approvals import Asked, Damaged, Record, not_allowed, not_covered, shown, spent
from fleet_common.contract import LARGEST_STATUS, Approval, LiveSettings
from fleet_common.untrusted import Unfit, decoded

ONE = Approval("sha256:1", "tab")
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("approval", "reads", "why"),
    [
        (ONE, (("tab", "x"),), ""),
        (ONE, (), ""),
        (ONE, (("tab", "x"), ("secret", "x")), "it reads secret/x, and fleet.yaml approves its code for the dataset tab"),
        (Approval("sha256:1", "tab", ("x",)), (("tab", "y"),), "it reads tab/y, and fleet.yaml approves its code for tab/x"),
        (Approval("sha256:1", "tab", by="bob@x.org"), (("tab", "x"),), "fleet.yaml approves its code for bob@x.org"),
        (Approval("sha256:1", "tab", by="Ann@x.org"), (("tab", "x"),), ""),
        (Approval("sha256:2", "tab"), (("tab", "x"),), "fleet.yaml approves other code"),
    ],
)  # fmt: skip
def test_an_approval_covers_its_code_data_and_user(approval: Approval, reads: Any, why: str) -> None:
    """And says what it does not cover."""
    assert why == not_covered(approval, Asked("sha256:1", reads, "ann@x.org"))


def test_an_approval_is_spent_by_time_or_runs() -> None:
    """The end is the first moment without it."""
    assert "" == spent(Approval("h", "d"), 10**6, NOW)
    until = Approval("h", "d", until="2027-01-15T08:00:00+00:00")
    assert ["", "the approval ended at 2027-01-15T08:00:00+00:00"] == [spent(until, 0, NOW - 0.1), spent(until, 0, NOW)]
    assert "" == spent(Approval("h", "d", runs=2), 1, NOW)
    assert "the approval was for 2 runs, and all of them were used" == spent(Approval("h", "d", runs=2), 2, NOW)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"epochs": 1, "optimizer": "adam", "more": 3}, ""),
        ({"epochs": 3, "optimizer": "adam"}, "the approval allows epochs only as 1 or 2"),
        ({"epochs": True, "optimizer": "adam"}, "the approval allows epochs only as 1 or 2"),
        ({"epochs": 1}, "the approval allows optimizer only as 'adam'"),
        (None, "the approval fixes the configuration, and the function has none"),
    ],
)
def test_an_approval_may_fix_the_configuration(config: object, why: str) -> None:
    """Keys that it does not name are free."""
    assert why == not_allowed(Approval("h", "d", config={"epochs": (1, 2), "optimizer": ("adam",)}), config)


def test_runs_of_many_processes_are_counted_once_each(tmp_path: Path) -> None:
    """Of twenty at the same moment, each with a record of its own, as many run as are approved."""
    limited = Approval("sha256:1", "tab", runs=7)
    Record(tmp_path).allow([limited])
    Record(tmp_path).grant("code", [limited])
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: Record(tmp_path).refusal("code", None, NOW), range(20)))
    assert 7 == answers.count("")


def test_an_approval_that_fleet_yaml_no_longer_lists_still_limits(tmp_path: Path) -> None:
    """Its code stays approved, within the limits that it had; code that it did not approve has none."""
    limited, record = Approval("sha256:1", "tab", runs=1), Record(tmp_path)
    record.allow([limited, Approval("sha256:2", "tab")])
    record.grant("code", [limited])
    record.allow([])
    assert ["", "the approval was for one run, and all of them were used"] == [
        record.refusal("code", None, NOW) for _ in range(2)
    ]
    assert "" == record.refusal("by hand", None, NOW)


@pytest.mark.parametrize("text", ["", "no", "[]", '{"approvals": {}, "granted": {"code": ["gone"]}, "runs": {}}'])
def test_a_damaged_record_lets_nothing_run(tmp_path: Path, text: str) -> None:
    """It says what to do; a missing one is an empty one."""
    assert "" == Record(tmp_path).refusal("code", None, NOW)
    (tmp_path / "approvals.json").write_text(text)
    with pytest.raises(Damaged, match="restore it from a backup, or remove it"):
        Record(tmp_path).refusal("code", None, NOW)


def test_what_is_read_is_shown() -> None:
    """Each asset with its dataset."""
    assert "reads tab/x, tab/y" == shown((("tab", "x"), ("tab", "y")))
    assert "reads no dataset" == shown(())


def test_approvals_reach_a_running_datasite_whole() -> None:
    """As JSON and back; a bare hash of an earlier release approves nothing."""
    sent = Approval("h", "d", ("x",), "a@x.org", {"epochs": (1, 2.5, "a", True)}, 3, "2027-01-15T08:00:00+00:00")
    settings = LiveSettings(1, 30.0, {}, approved_code=(sent,))
    assert settings == decoded(settings.to_json(), LiveSettings, LARGEST_STATUS)
    old = settings.to_json().replace(b'"approved_code": [', b'"approved_code": ["sha256:1", ')
    assert isinstance(decoded(old, LiveSettings, LARGEST_STATUS), Unfit)
