"""What holds for every test process: which tier it runs, whose turn it is, and how signals reach what tests start.

docs/testing.md has the tiers, and what a test owes to those beside it.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.turns import Turns

TURNS = pytest.StashKey[Turns]()
FOLDER = pytest.StashKey[Path]()
DEAREST = (
    "real/test_jobs.py",
    "real/test_supervision.py",
    "real/test_limits.py",
    "real/test_alone.py",
    "real/test_training.py",
    "real/test_federation.py",
    "real/test_trouble_at_start.py",
    "real/test_host_limits.py",
    "real/test_client_owner.py",
    "real/test_datasets.py",
    "real/test_gpus.py",
    "real/test_client.py",
    "real/test_gpu_check.py",
    "unit/test_preload.py",
    "unit/test_worker_gpu.py",
    "unit/test_dashboard_hostile.py",
    "unit/test_config.py",
    "unit/test_federated_training.py",
)
"""Files by what they take, as `--durations` tells; docs/testing.md has the figures."""

# A shell that is not interactive starts background jobs (`scripts/test &`, CI runners) with SIGINT ignored, an ignored
# signal stays ignored across exec, and Python then never installs its own handler: the children of such a pytest would
# sit out the Ctrl-C that a test sends them. A signal that is *caught* is reset to its default at exec; so catch it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:

    def _stay(_number: int, _frame: FrameType | None) -> None:
        """What starts us in the background does not want us interrupted."""

    signal.signal(signal.SIGINT, _stay)

# A login with a group of its own has umask 002: a test's folders could be written by a group, and fleet refuses such.
os.umask(0o022)


def _stop_in_order(self_pid: int) -> None:
    """SIGTERM, which `timeout` sends, ends a test process as Ctrl-C does: with fixtures torn down, and a summary. In a
    child that a test forks it does what it always does."""

    def stop(number: int, _frame: FrameType | None) -> None:
        if os.getpid() == self_pid:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, stop)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tier, and nothing else")


def pytest_configure(config: pytest.Config) -> None:
    _stop_in_order(os.getpid())
    told = getattr(config, "workerinput", {}).get("turns")
    if not told:
        told = config.stash[FOLDER] = Path(tempfile.mkdtemp(prefix="fleet-turns-"))
    config.stash[TURNS] = Turns(Path(told))


def pytest_unconfigure(config: pytest.Config) -> None:
    if FOLDER in config.stash:
        shutil.rmtree(config.stash[FOLDER], ignore_errors=True)


# --- tiers ---


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One tier stays, the dearest files first: of several at a time none is then left over for the end."""
    items.sort(key=_place)
    slow = config.getoption("--slow")
    others = [item for item in items if slow != ("slow" in item.keywords)]
    if others:
        items[:] = [item for item in items if slow == ("slow" in item.keywords)]
        config.hook.pytest_deselected(items=others)


def _place(item: pytest.Item) -> int:
    file = f"{item.path.parent.name}/{item.path.name}"
    return DEAREST.index(file) if file in DEAREST else len(DEAREST)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where tests that are marked ``process`` do not run, a file that has no others is not even imported: PySyft alone
    takes seconds."""
    if config.option.markexpr != "not process" or collection_path.suffix != ".py":
        return None
    return bool(_ALL_PROCESS.search(collection_path.read_text())) or None


_ALL_PROCESS = re.compile(r"^pytestmark = \[?pytest[.]mark[.]process\b", re.MULTILINE)


# --- what tests take ---


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """With ``--durations``: the seconds of each file too."""
    if config.getoption("durations") is None:
        return
    spent: defaultdict[str, float] = defaultdict(float)
    for report in itertools.chain(*terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            spent[report.location[0]] += report.duration
    terminalreporter.section("seconds by file")
    for file, seconds in sorted(spent.items(), key=lambda one: -one[1]):
        terminalreporter.line(f"{seconds:8.1f}s {file}")


# --- several at a time ---


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist's workers take turns with each other, and with nobody else."""
    node.workerinput["turns"] = str(node.config.stash[FOLDER])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests stay together and in order: many share a fleet."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test that is marked ``alone`` waits until the others' tests have ended, and they wait for it."""
    turns = item.config.stash[TURNS]
    with turns.alone() if "alone" in item.keywords else turns.beside():
        return (yield)
