"""When a local file is published, updated, left alone and taken back: rounds over real files, with a store of our own."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datasite_worker.data import disks, files
from datasite_worker.data.datasets import OUTDATED, RETRY, SETTLED, Datasets
from datasite_worker.data.files import Content
from datasite_worker.data.store import Held, Ids
from fleet_common.contract import DatasetOrder, DatasetSaid

pytestmark = pytest.mark.process  # it loads PySyft

NOW = 1_800_000_000.0
LONG_AGO = NOW - 3600


@dataclass
class FakeStore:
    """What PySyft's stores would hold."""

    datasets: dict[str, tuple[Ids, str, Content, Content]] = field(default_factory=dict)
    puts: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    strangers: dict[str, Held] = field(default_factory=dict)
    fails: Exception | None = None

    def holds(self, name: str) -> Held | None:
        if name in self.strangers:
            return self.strangers[name]
        return Held(self.datasets[name][0], ours=True) if name in self.datasets else None

    def put(self, name: str, description: str, ids: Ids, data: Content, mocks: Content) -> None:
        if self.fails:
            raise self.fails
        self.puts.append(name)
        self.datasets[name] = (ids, description, data, mocks)

    def remove(self, ids: Ids) -> None:
        self.datasets = {name: one for name, one in self.datasets.items() if one[0].dataset != ids.dataset}

    def drop(self, assets: list[str]) -> None:
        self.gone += assets

    def blobs(self, assets: list[str]) -> list[str]:
        return [f"blob-{len(self.puts)}-{asset}" for asset in assets] if self.puts else []

    def forget(self, blobs: list[str]) -> None:
        self.forgotten += blobs


@dataclass
class Line:
    """A datasite's state folder and a data file beside it; ``round`` is one look at it."""

    folder: Path
    store: FakeStore = field(default_factory=FakeStore)
    said: list[list[DatasetSaid]] = field(default_factory=list)
    now: float = NOW

    def __post_init__(self) -> None:
        self.file = self.folder / "a.csv"
        self.order = DatasetOrder("bearings", str(self.file), "Vibration")
        self.start()

    def start(self) -> None:
        """As a new process does."""
        self.datasets = Datasets(self.folder, (self.order,), self.said.append)

    def want(self, *orders: DatasetOrder) -> None:
        self.datasets.want(orders)

    def write(self, text: str, at: float = LONG_AGO, path: Path | None = None) -> None:
        (path or self.file).write_text(text)
        os.utime(path or self.file, (at, at))

    def round(self, later: float = 5.0) -> None:
        self.now += later
        self.datasets.round(self.store, self.now)

    def rows(self) -> list[float]:
        return [float(value) for value in self.store.datasets["bearings"][2]["bearings"]["torque"]]

    def problem(self) -> str:
        return str(self.said[-1][0]["problem"])


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def test_a_file_is_published_with_a_mock(line: Line) -> None:
    """In the first round, under the names of fleet.yaml; the status holds no path, no value and no count."""
    line.write("torque\n77123.25\n2\n")
    line.round()
    _, description, _, mock = line.store.datasets["bearings"]
    assert ("Vibration", [77123.25, 2.0], 100) == (description, line.rows(), len(mock["bearings"]))
    ((told,),) = line.said
    assert {"name", "published_at", "problem"} == set(told)
    assert ("bearings", "", True) == (told["name"], told["problem"], bool(told["published_at"]))
    assert str(line.folder) not in json.dumps(told)


def test_what_does_not_change_is_published_once(line: Line) -> None:
    """Not in the next rounds, and not by the process after a crash."""
    line.write("torque\n1\n")
    line.round()
    line.round()
    ids = line.store.datasets["bearings"][0]
    line.start()
    assert line.said[-1] == line.datasets.known()
    line.round()
    assert (["bearings"], ids, 1) == (line.store.puts, line.store.datasets["bearings"][0], len(line.said))


def test_a_touch_publishes_nothing(line: Line) -> None:
    """What is in the file decides, not when it was written."""
    line.write("torque\n1\n")
    line.round()
    line.write("torque\n1\n", LONG_AGO + 60)
    line.round()
    line.file.rename(line.folder / "b.csv")
    line.write("torque\n1\n")
    line.round()
    assert ["bearings"] == line.store.puts


def test_a_changed_file_is_published_under_the_same_ids(line: Line) -> None:
    """Approved code names its inputs by these ids."""
    line.write("torque\n1\n")
    line.round()
    before = line.store.datasets["bearings"][0]
    line.write("torque\n1\n2\n", LONG_AGO + 60)
    line.round()
    assert ([1.0, 2.0], before) == (line.rows(), line.store.datasets["bearings"][0])
    assert str(line.said[0][0]["published_at"]) < str(line.said[1][0]["published_at"])


def test_a_file_that_is_being_written_is_waited_for(line: Line) -> None:
    """As long as it changed moments ago, and was otherwise a round before."""
    for size in range(1, 4):
        line.write("torque\n" + "1\n" * size, line.now + 5.0)
        line.round()
    assert [] == line.store.puts
    line.round(SETTLED)
    assert [1.0] * 3 == line.rows()


def test_a_file_from_the_future_is_taken_once_it_stays_the_same(line: Line) -> None:
    """Another machine's clock may be wrong."""
    line.write("torque\n1\n", NOW + 86400)
    line.round()
    assert [] == line.store.puts
    line.round()
    assert ["bearings"] == line.store.puts


def test_a_file_that_changes_while_it_is_read_is_read_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of it is thrown away."""
    from datasite_worker.data import files

    line.write("torque\n1\n")
    read = files.read

    def and_written(path: Path) -> bytes:
        raw = read(path)
        line.write("torque\n1\n2\n", LONG_AGO + 1)
        return raw

    with monkeypatch.context() as patched:
        patched.setattr(files, "read", and_written)
        line.round()
    assert [] == line.store.puts
    line.round()
    assert [1.0, 2.0] == line.rows()


def test_a_missing_file_is_told_and_published_once_it_is_there(line: Line) -> None:
    """The line serves meanwhile."""
    line.round()
    line.round()
    assert ["the file does not exist"] == [one[0]["problem"] for one in line.said]
    line.write("torque\n1\n")
    line.round()
    assert (["bearings"], "") == (line.store.puts, line.problem())


def test_what_was_published_stays_when_the_file_breaks_or_goes(line: Line) -> None:
    """Until something better can be published."""
    line.write("torque\n1\n")
    line.round()
    at = line.said[-1][0]["published_at"]
    for text, why in (("a,b\n1,2,3\n4,5,6,7\n", "not a readable CSV file"), (None, "the file does")):
        line.file.unlink() if text is None else line.write(text)
        line.round()
        assert line.problem().startswith(why)
        assert (at, [1.0]) == (line.said[-1][0]["published_at"], line.rows())
    line.write("torque\n5\n")
    line.round()
    assert ([5.0], "") == (line.rows(), line.problem())


def test_a_broken_file_is_not_read_again_and_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only when it changed, or another kind of mock is asked for."""
    from datasite_worker.data import files

    reads: list[Path] = []
    read = files.read

    def noted(path: Path) -> bytes:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(files, "read", noted)
    line.write("a,b\n1,2,3\n4,5,6,7\n")
    for _ in range(3):
        line.round(RETRY)
    assert 1 == len(reads)
    line.write("torque\n1\n", LONG_AGO + 1)
    line.round()
    assert (2, "") == (len(reads), line.problem())


def test_what_is_not_the_files_fault_is_tried_again_after_a_while(line: Line) -> None:
    """A full disk, a locked database; its words may hold data and are not told."""
    line.write("torque\n1\n")
    line.store.fails = RuntimeError("77123.25 is too large")
    line.round()
    assert "could not be published (RuntimeError); trying again" == line.problem()
    line.store.fails = None
    line.round()
    assert [] == line.store.puts
    line.round(RETRY)
    assert (["bearings"], "") == (line.store.puts, line.problem())


def test_a_crash_in_the_middle_keeps_the_ids(line: Line) -> None:
    """The ledger has them before PySyft's stores do."""
    line.write("torque\n1\n")
    line.store.fails = KeyboardInterrupt()  # type: ignore[assignment]  # nothing catches it, as nothing catches SIGKILL
    with pytest.raises(KeyboardInterrupt):
        line.round()
    (promised,) = json.loads((line.folder / "datasets.json").read_text())["datasets"].values()
    line.store.fails = None
    line.start()
    line.round()
    ids = line.store.datasets["bearings"][0]
    assert promised["ids"] == {"dataset": ids.dataset, "assets": ids.assets}


def test_a_lost_ledger_loses_no_id(line: Line) -> None:
    """They are found on the site; a broken ledger is as one that is lost."""
    line.write("torque\n1\n")
    line.round()
    before = line.store.datasets["bearings"][0]
    (line.folder / "datasets.json").write_text("{")
    line.start()
    line.round()
    assert (before, 2) == (line.store.datasets["bearings"][0], len(line.store.puts))


def test_a_dataset_that_somebody_uploaded_is_left_alone(line: Line) -> None:
    """Even under the same name; once it is gone, ours is published."""
    line.write("torque\n1\n")
    line.store.strangers["bearings"] = Held(Ids("theirs", {}), ours=False)
    line.round()
    assert [] == line.store.puts
    assert "a user has uploaded" in line.problem()
    line.store.strangers.clear()
    line.round(RETRY)
    assert (["bearings"], "") == (line.store.puts, line.problem())


def test_what_is_no_longer_listed_is_taken_back(line: Line) -> None:
    """Live; also what an earlier process published. The same name is another dataset afterwards."""
    line.write("torque\n1\n")
    line.round()
    before = line.store.datasets["bearings"][0]
    line.start()
    line.want()
    line.round()
    assert ({}, []) == (line.store.datasets, line.said[-1])
    line.want(line.order)
    line.round()
    assert before.dataset != line.store.datasets["bearings"][0].dataset


def test_another_description_or_mock_is_published_anew(line: Line) -> None:
    """Under the same ids, from the same file."""
    line.write("torque\n1\n")
    line.round()
    before = line.store.datasets["bearings"][0]
    line.want(DatasetOrder("bearings", str(line.file), "Torque", mock="empty"))
    line.round()
    ids, description, _, mock = line.store.datasets["bearings"]
    assert (before, "Torque", 0) == (ids, description, len(mock["bearings"]))


def test_an_owners_own_mock_is_watched_too(line: Line) -> None:
    """And never the data itself, nor another table."""
    mock = line.folder / "mock.csv"
    line.want(DatasetOrder("bearings", str(line.file), mock="file", mock_path=str(mock)))
    line.write("torque\n1\n")
    told = []
    for number, text in enumerate(("torque\n1\n", "speed\n1\n", "torque\n5\n6\n")):
        line.write(text, LONG_AGO + number, mock)
        line.round()
        told.append(line.problem())
    expected = [
        "its mock: the file is the data itself, which everybody would see",
        "the mock does not have the same columns as the data",
        "",
    ]
    assert expected == told
    assert 2 == len(line.store.datasets["bearings"][3]["bearings"])
    mock.unlink()
    line.round()
    assert "its mock: the file does not exist" == line.problem()


def test_arrays_come_and_go_with_the_file(line: Line) -> None:
    """Those that stay keep their ids."""
    file = line.folder / "wear.npz"
    line.want(DatasetOrder("bearings", str(file)))
    np.savez(file, x=np.zeros(3), y=np.ones(3))
    os.utime(file, (LONG_AGO, LONG_AGO))
    line.round()
    before = line.store.datasets["bearings"][0]
    np.savez(file, x=np.zeros(4), z=np.ones(3))
    os.utime(file, (LONG_AGO, LONG_AGO))
    line.round()
    after = line.store.datasets["bearings"][0]
    assert ({"x", "z"}, before.assets["x"]) == (set(after.assets), after.assets["x"])
    assert [before.assets["y"]] == line.store.gone


def test_the_last_version_is_kept_for_code_that_began_with_it(line: Line) -> None:
    """Then it is removed, and what is in use never is."""
    line.write("torque\n1\n")
    line.round()
    (asset,) = line.store.datasets["bearings"][0].assets.values()
    line.write("torque\n2\n", LONG_AGO + 1)
    line.round()
    line.round()
    assert [] == line.store.forgotten
    line.round(OUTDATED)
    assert [f"blob-1-{asset}"] == line.store.forgotten


def test_one_bad_dataset_keeps_no_other_back(line: Line) -> None:
    """Each is its own."""
    good = line.folder / "good.parquet"
    pd.DataFrame({"torque": [1.0]}).to_parquet(good)
    os.utime(good, (LONG_AGO, LONG_AGO))
    line.want(line.order, DatasetOrder("good", str(good)))
    line.round()
    assert ["good"] == line.store.puts
    assert ["the file does not exist", ""] == [one["problem"] for one in line.said[-1]]


@pytest.mark.parametrize("what", ["look", "read"])
def test_a_disk_that_does_not_answer_is_told_and_keeps_no_other_back(
    line: Line, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Not asked again while it hangs; what was published stays; published anew when it answers."""
    answers, asked, real = threading.Event(), [], getattr(files, what)

    def hang(path: Path) -> Any:
        if path == line.file:
            asked.append(path)
            answers.wait(20)
        return real(path)

    line.write("torque\n1.0\n")
    line.round()
    good = line.folder / "good.csv"
    line.write("torque\n1.0\n", path=good)
    line.write("torque\n2.0\n", at=LONG_AGO + 60)
    line.want(line.order, DatasetOrder("good", str(good)))
    with monkeypatch.context() as patched:
        patched.setattr(files, what, hang)
        patched.setattr(disks, what.upper(), 0.05)
        for _ in range(3):
            line.round(RETRY)
    assert ["its disk does not answer", ""] == [one["problem"] for one in line.said[-1]]
    assert (1, ["bearings", "good"], [1.0]) == (len(asked), line.store.puts, line.rows())
    answers.set()
    eventually_published(line)
    assert [2.0] == line.rows()


def eventually_published(line: Line) -> None:
    for _ in range(1000):
        line.round(RETRY)
        if line.said[-1][0]["problem"] == "":
            return
    raise AssertionError(line.said[-1])
