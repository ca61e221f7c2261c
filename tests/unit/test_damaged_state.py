"""A state folder with damaged files: each command names them, does its work, and ends nobody but the fleet's own. All of
it happens in a PID namespace of its own, where the whole world is the test's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleet_common.layout import HistoryFolder
from supervisor import daemon
from supervisor.effects.assigner import Assigner
from supervisor.effects.recorder import read_ledger
from supervisor.effects.run_files import RunFile, boot_id
from supervisor.facts import OperatorAsked, ProcessAdopted
from supervisor.policy.reconcile import fingerprint
from supervisor.record import Wanted
from supervisor.spec import DatasiteSpec
from tests.unit.fakes import fleet, play

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
ALONE = ("unshare", "-pf", "--mount-proc", "--kill-child")

WORLD = """
import json, logging, os, subprocess, sys
from pathlib import Path
from fleet_common.layout import StateFolder
from supervisor import daemon
from supervisor.effects.run_files import RunFile, RunFiles, boot_id
from supervisor.effects.recorder import read_ledger
from supervisor.spec import DatasiteSpec, FleetConfig

folder = Path(sys.argv[1])
config = FleetConfig("test", folder / "fleet.yaml", folder / ".fleet", folder / "logs", (DatasiteSpec("alpha", 1),))
state = StateFolder(config.state_dir)
logging.basicConfig(level="INFO", stream=sys.stderr)
bystanders = [subprocess.Popen(["sleep", "600"]), subprocess.Popen(["sleep", "600"], start_new_session=True)]
GOOD = {"name": "alpha", "generation": 2, "pid": 4000, "created": 5, "boot": boot_id(), "fingerprint": "f", "port": 1,
        "gpus": ["GPU-0"]}
NASTY = [None, True, False, 0, 1, -1, 1.5, "12", "x", "../../x", [], {}, [None], 10**20, bystanders[0].pid]
RAW = [b"", b"[" * 30000, b"\\xff", b"{", b"null", b"[]"]
worlds = [json.dumps({**GOOD, key: value}).encode() for key in GOOD for value in NASTY]
worlds += [json.dumps({k: v for k, v in GOOD.items() if k != key}).encode() for key in GOOD]
for raw in worlds + RAW:
    for does in (lambda: daemon._keep_or_end(config, RunFiles(state.run), ()),
                 lambda: daemon._gpus_of_survivors(config),
                 lambda: daemon.stop_orphans(config)):
        daemon._prepare_folders(config)
        (state.run / "alpha.json").write_bytes(raw)
        does()
        assert [None, None] == [one.poll() for one in bystanders], raw
print("survived", (state.run / "alpha.json.damaged").exists())
"""


def test_after_a_lost_ledger_only_what_runs_goes_on(tmp_path: Path) -> None:
    """What ran is adopted; what is down waits for `fleet start`, and says why."""
    config = fleet(DatasiteSpec("alpha", 1), DatasiteSpec("beta", 2))
    (tmp_path / "ledger.json").write_bytes(b"\0" * 100)
    past = read_ledger(HistoryFolder(tmp_path), ["alpha", "beta"])
    runs = [RunFile("alpha", 2, os.getpid(), 5, boot_id(), fingerprint(config.worker("alpha")), 1)]
    said = list(daemon._first_messages(config, runs, past, Assigner(tmp_path / "gpus.json")))
    assert [("alpha", ProcessAdopted)] == [
        (one.name, type(one)) for one in said if isinstance(one, ProcessAdopted | OperatorAsked)
    ]
    beta = daemon._restored(config, past)["beta"]
    assert (Wanted.DOWN, True) == (beta.wanted, "ledger.json was lost" in beta.reason)
    world = play(config, [lambda w: []] * 3, daemon._restored(config, past), said)
    assert [] == world.done


def test_no_field_of_a_run_file_ends_a_stranger(tmp_path: Path) -> None:
    """Each field with each wrong value, at a start and at `fleet down`: what does not fit is set aside."""
    done = subprocess.run(
        [*ALONE, "sh", "-c", '"$0" -c "$1" "$2"; true', sys.executable, WORLD, str(tmp_path)],
        check=False, capture_output=True, text=True, timeout=100, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if "unshare:" in done.stderr:
        pytest.skip(f"no namespace can be made here: {done.stderr.strip()}")
    assert "survived True\n" == done.stdout, done.stderr[-3000:]
    assert "alpha.json cannot be used: pid is not a whole number" in done.stderr
