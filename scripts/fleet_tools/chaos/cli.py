"""The command line of ``scripts/chaos``: its options, the run from folder to folder, and the table at the end."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fleet_tools.chaos import checks, journal
from fleet_tools.chaos.board import Board
from fleet_tools.chaos.clients import Clients, Site
from fleet_tools.chaos.disk import Disk
from fleet_tools.chaos.faults import FAULTS
from fleet_tools.chaos.field import Field
from fleet_tools.chaos.plan import plan
from fleet_tools.chaos.plant import Plant
from fleet_tools.chaos.siege import Lost, Outcome, Siege
from fleet_tools.chaos.verdict import Check
from fleet_tools.console import count, end_in_order
from fleet_tools.keeper import kept
from fleet_tools.ports import free_ports
from fleet_tools.waiting import Trouble

_STATE_MB, _LOGS_MB = 512, 64
_SHOWN = 8


class Exit(IntEnum):
    """How a run ends."""

    CLEAN = 0
    FAILED = 1
    WRONG_USE = 2
    INTERRUPTED = 130


_CODES = """\
exit codes: 0 every check holds; 1 a check failed; 2 wrong usage; 130 interrupted (Ctrl-C), everything ended.

scripts/chaos --faults 200                      the documented run
scripts/chaos --faults 200 --seed 4711          the same faults in the same order again
scripts/chaos --kinds worker-kill,worker-stop --faults 10 --datasites 1
scripts/chaos --list"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "scripts/chaos",
        description="Break a real fleet on purpose, while clients write to it, and check that nothing is lost.",
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--faults", type=count, default=40, metavar="N", help="number of faults (default 40)")
    made.add_argument("--seed", type=count, metavar="S", help="draw the faults from this seed (default: a new one)")
    made.add_argument(
        "--datasites", "--lines", type=count, default=3, metavar="N", help="number of datasites (default 3)"
    )
    made.add_argument("--kinds", type=_kinds, metavar="A,B", help="only these kinds of faults; see --list")
    made.add_argument("--overlap", action="store_true", help="up to three faults at the same time")
    made.add_argument("--list", action="store_true", help="list the kinds of faults, and exit")
    made.add_argument("--keep", action="store_true", help="also keep the folder of a clean run")
    made.add_argument("--json", type=Path, metavar="FILE", help="write a summary to this file")
    made.add_argument("--record", type=Path, metavar="DIR", help="copy the journal of a clean run to this folder")
    made.add_argument("--record-datasite", "--record-line", metavar="NAME", help="copy only the facts of this datasite")
    return made


def _kinds(word: str) -> list[str]:
    kinds = list(dict.fromkeys(word.split(",")))
    for kind in kinds:
        if kind not in FAULTS:
            raise argparse.ArgumentTypeError(f"no fault named {kind!r}; known: {', '.join(FAULTS)}")
    return kinds


@dataclass
class Report:
    """What the run came to."""

    seed: int
    command: str
    began: float
    outcomes: list[Outcome]
    checks: list[Check]
    folder: str = ""
    interrupted: bool = False

    @property
    def clean(self) -> bool:
        return not self.interrupted and all(check.holds for check in self.checks)

    def document(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "command": self.command,
            "clean": self.clean,
            "seconds": round(time.monotonic() - self.began, 1),
            "faults": [asdict(one) for one in self.outcomes],
            "checks": [{**asdict(check), "holds": check.holds} for check in self.checks],
            "folder": self.folder,
        }


def run(words: list[str]) -> Exit:
    """The whole program. Wrong usage ends it by argparse, with 2."""
    options = parser().parse_args(words)
    if options.list:
        print("\n".join(f"{name:28} {fault.about}" for name, fault in FAULTS.items()))
        return Exit.CLEAN
    seed = options.seed or random.SystemRandom().randrange(1, 10**6)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"seed {seed}: {_command(options, seed)}")
    end_in_order()
    report = Report(seed, _command(options, seed), time.monotonic(), [], [])
    try:
        _besiege(options, report, console)
    except KeyboardInterrupt:
        report.interrupted = True
    return _ended(options, report, console)


def _command(options: argparse.Namespace, seed: int) -> str:
    kinds = f" --kinds {','.join(options.kinds)}" if options.kinds else ""
    overlap = " --overlap" if options.overlap else ""
    return f"scripts/chaos --faults {options.faults} --seed {seed} --datasites {options.datasites}{kinds}{overlap}"


# --- the run ------------------------------------------------------------------------------------------------------


def _besiege(options: argparse.Namespace, report: Report, console: Console) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fleet-chaos-")).resolve()
    report.folder = str(folder)
    with kept(folder), _field(folder, options, report) as field, _shown(console, options.faults) as tell:
        siege = Siege(field, tell)
        report.outcomes = siege.outcomes
        try:
            _strike(siege, options, report)
        except (Trouble, Lost) as error:
            report.checks.append(Check("the fleet recovers from every fault", (str(error),)))
            report.checks += checks.of_promises(siege)
            return
        console.print("all faults are over; reading everything back")
        report.checks += checks.while_up(field, siege)
        report.checks += checks.after_down(field)
        if options.record is not None and report.clean:
            console.print(f"journal kept: {_recorded(options, field, report.seed)}")
    if report.clean and not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
        report.folder = ""


def _strike(siege: Siege, options: argparse.Namespace, report: Report) -> None:
    field = siege.field
    field.plant.up()
    field.clients.start()
    weights = {kind: FAULTS[kind].weight for kind in options.kinds or FAULTS}
    siege.run(plan(report.seed, options.faults, options.datasites, weights))
    field.clients.stop()


@contextmanager
def _field(folder: Path, options: argparse.Namespace, report: Report) -> Iterator[Field]:
    """All that a run needs; afterwards nothing of it runs, and the disks are gone."""
    (board_port,) = free_ports(1)
    state, logs = Disk(folder / "state", _STATE_MB), Disk(folder / "logs", _LOGS_MB)
    board = Board(board_port)
    (folder / "fleet").mkdir()
    plant = Plant(folder / "fleet", state.path, logs.path, options.datasites, board.url)
    sites = [Site(line, plant.state_folder.worker(line.name).admin) for line in plant.lines]
    clients = Clients(folder / "clients", sites, report.seed)
    try:
        yield Field(plant, board, state, logs, clients, options.overlap)
    finally:
        keep = options.keep or not report.clean
        for disk in (state, logs):
            disk.free()
        clients.stop()
        plant.end()
        board.close()
        for disk in (state, logs):
            disk.close(folder / f"{disk.path.name}-kept" if keep else None)


def _recorded(options: argparse.Namespace, field: Field, seed: int) -> Path:
    options.record.mkdir(parents=True, exist_ok=True)
    target: Path = options.record / f"{'-'.join(options.kinds or ['all'])}-{seed}.jsonl"
    places = {str(field.plant.state_folder.root): "/srv/state", str(field.plant.logs): "/srv/logs"}
    places[str(field.plant.folder.parent)] = "/srv"
    journal.keep(field.plant.state_folder.history.journal, target, options.record_datasite, places)
    return target


# --- what is shown ------------------------------------------------------------------------------------------------


@contextmanager
def _shown(console: Console, total: int) -> Iterator[Callable[[Outcome], None]]:
    """A progress bar on a terminal, else plain lines."""
    if not console.is_terminal:
        yield lambda outcome: console.print(outcome.text(), markup=False)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("faults", total=total)

        def tell(outcome: Outcome) -> None:
            progress.update(task, advance=1, description=outcome.strike.kind)
            if outcome.broken:
                progress.console.print(outcome.text(), markup=False)

        yield tell


def _ended(options: argparse.Namespace, report: Report, console: Console) -> Exit:
    _print_table(report.checks, console)
    _print_skipped(report.outcomes, console)
    if options.json is not None:
        options.json.write_text(json.dumps(report.document(), indent=1) + "\n")
    if report.folder:
        console.print(f"folder kept: {report.folder}")
    if report.interrupted:
        console.print("interrupted")
        return Exit.INTERRUPTED
    took = time.monotonic() - report.began
    word = "clean" if report.clean else "NOT clean"
    console.print(f"{word}: {len(report.outcomes)} faults in {took / 60:.1f} min, seed {report.seed}")
    if not report.clean:
        console.print(f"to repeat it: {report.command}")
    return Exit.CLEAN if report.clean else Exit.FAILED


def _print_table(rows: Sequence[Check], console: Console) -> None:
    """A row for each check; below it what is wrong, each on one line."""
    for check in rows:
        style = "green" if check.holds else "bold red"
        console.print(f"{check.what:42} ", end="", markup=False)
        console.print("holds " if check.holds else "FAILED", style=style, end="")
        console.print(f"  {check.detail}".rstrip(), markup=False)
        for problem in [*check.problems[:_SHOWN], *(["…"] if len(check.problems) > _SHOWN else [])]:
            console.print(f"    {problem}", markup=False)


def _print_skipped(outcomes: Sequence[Outcome], console: Console) -> None:
    reasons: dict[tuple[str, str], int] = {}
    for one in outcomes:
        if one.skipped:
            reasons[one.strike.kind, one.skipped] = reasons.get((one.strike.kind, one.skipped), 0) + 1
    for (kind, why), times in reasons.items():
        console.print(f"skipped {times} x {kind}: {why}", markup=False)
