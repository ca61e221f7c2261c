"""The command line of ``scripts/bench``: which benches, how often, and where the result goes."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

from fleet_tools.bench import world
from fleet_tools.bench.benches import BENCHES
from fleet_tools.bench.figures import NoPlace, Section, Setting, document, filled, markdown
from fleet_tools.bench.plan import Plan
from fleet_tools.console import clear, count, end_in_order, progress
from fleet_tools.room import room
from fleet_tools.waiting import Trouble


class Exit(IntEnum):
    """How a run ends."""

    OK = 0
    MISSED = 1
    WRONG_USE = 2
    UNMEASURED = 3
    INTERRUPTED = 130


_CODES = """\
exit codes: 0 every target met; 1 a target missed; 2 wrong usage;
3 something could not be measured, or was left behind; 130 interrupted (Ctrl-C), everything ended.

scripts/bench all --write docs/performance.md   fills in the document (use an idle machine)
scripts/bench adoption --rounds 100
scripts/bench idle --datasites 16"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "scripts/bench",
        description="Measure fleet and a rival in the same run. Prints Markdown.",
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("benches", nargs="*", metavar="BENCH", help=f"all, or any of: {', '.join(BENCHES)}")
    made.add_argument("--list", action="store_true", help="list what each bench measures, and exit")
    made.add_argument("--rounds", type=count, metavar="N", help="number of rounds, instead of each bench's default")
    made.add_argument(
        "--datasites", "--lines", type=count, metavar="N", help="number of datasites, instead of each bench's default"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="also write every single value to this file")
    made.add_argument("--write", type=Path, metavar="FILE", help="fill in this document between its markers")
    return made


def chosen(words: Sequence[str]) -> list[str]:
    """The benches that ``words`` name, each once. Raises ValueError for a word that names none."""
    for word in words:
        if word not in {*BENCHES, "all"}:
            raise ValueError(f"no bench named {word!r}; known: all, {', '.join(BENCHES)}")
    return list(BENCHES) if "all" in words else list(dict.fromkeys(words))


def run(words: list[str]) -> Exit:
    """The whole program. Wrong usage ends it by argparse, with 2."""
    asking = parser()
    options = asking.parse_args(words)
    if options.list:
        print(
            "\n".join(
                f"{name:10} {bench.about} ({bench.lines} datasites, {bench.rounds} rounds)"
                for name, bench in BENCHES.items()
            )
        )
        return Exit.OK
    try:
        names = chosen(options.benches)
        _check_places(names, options.write)
    except (ValueError, OSError, NoPlace) as error:
        asking.error(str(error))
    if not names:
        asking.error("name a bench, or all; --list shows them")
    end_in_order()
    return _measure_all(names, options, world.setting(shlex.join(["scripts/bench", *words])))


def _check_places(names: list[str], path: Path | None) -> None:
    """Before minutes are spent: the document can be read and has room for every bench."""
    text = path.read_text(encoding="utf-8") if path else ""
    for name in names if path else []:
        filled(text, name, "")


def _measure_all(names: list[str], options: argparse.Namespace, setting: Setting) -> Exit:
    sections: list[Section] = []
    remains: list[str] = []
    unmeasured: list[str] = []
    try:
        for name in names:
            try:
                sections.append(_measure(name, options, remains))
            except Trouble as why:
                unmeasured.append(f"bench {name}: not measured: {why}")
                continue
            clear()
            print(markdown(sections[-1], setting), end="\n\n", flush=True)
            _keep(sections, options, setting)
    except KeyboardInterrupt:
        clear()
        print("interrupted; all started processes have ended", file=sys.stderr)
        return Exit.INTERRUPTED
    return _verdict(sections, unmeasured, remains)


def _measure(name: str, options: argparse.Namespace, remains: list[str]) -> Section:
    bench = BENCHES[name]
    plan = Plan(
        lines=options.datasites or bench.lines,
        rounds=options.rounds or bench.rounds,
        room=lambda part: room(f"bench-{part}", remains),
        say=lambda what: progress(f"bench {name}: {what}"),
    )
    return bench.measure(plan)


def _keep(sections: list[Section], options: argparse.Namespace, setting: Setting) -> None:
    """What is measured is kept at once: the next bench may be interrupted."""
    if options.json:
        _replace(options.json, json.dumps(document(sections, setting), indent=2) + "\n")
    if options.write:
        text = options.write.read_text(encoding="utf-8")
        _replace(options.write, filled(text, sections[-1].name, markdown(sections[-1], setting)))


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _verdict(sections: list[Section], unmeasured: list[str], remains: list[str]) -> Exit:
    for line in (*unmeasured, *(f"left behind, now ended: {what}" for what in remains)):
        print(line, file=sys.stderr)
    missed = [f"{one.name}: {figure.what}" for one in sections for figure in one.figures if figure.holds is False]
    for line in missed:
        print(f"target missed: {line}", file=sys.stderr)
    if unmeasured or remains:
        return Exit.UNMEASURED
    return Exit.MISSED if missed else Exit.OK
