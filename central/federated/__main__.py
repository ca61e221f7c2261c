"""``python -m central.federated`` with a plan on standard input: trains, and ends with an exit code of ``fleet``.

0: all rounds were done. 1: they were not; what was done is kept. 2: the model file, a setting or the output folder is
wrong. 130: interrupted (SIGINT, SIGTERM).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from central.federated.display import Plain
    from central.federated.model_file import ModelFile
    from central.federated.plan import TrainingPlan
    from central.federated.training import FederatedTraining

OK, NOT_DONE, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    logging.getLogger("syft").setLevel(logging.CRITICAL)  # what goes wrong comes as an exception too, and is told once
    try:
        return _prepared()
    except KeyboardInterrupt:
        return _complain("interrupted before the first round", INTERRUPTED)


def _prepared() -> int:
    from central.federated import display, model_file, plan
    from central.federated.checkpoint import BadCheckpoint
    from central.federated.training import FederatedTraining

    try:
        asked = plan.parse(sys.stdin.buffer.read())
        made = model_file.load(Path(asked.model).absolute())
        training = FederatedTraining(asked, made, display.Plain(asked.rounds).warn)
    except (plan.PlanRejected, model_file.Mistake, BadCheckpoint, ValueError) as error:
        return _complain(str(error), WRONG_USE)
    names = tuple(line.name for line in asked.lines)
    with display.shown(asked.rounds, training.kept.number, names, as_json=asked.as_json, color=asked.color) as shown:
        return _train(asked, made, training, shown)


def _train(asked: TrainingPlan, made: ModelFile, training: FederatedTraining, shown: Plain) -> int:
    from central.federated.federation import QuorumMissed
    from central.federated.lines import DatasiteLine
    from central.federated.model_file import Mistake
    from central.federated.threads import Threads

    lines = [DatasiteLine(line, training.model, made.loss, asked.data) for line in asked.lines]
    try:
        training.run(lines, Threads(), shown)
    except KeyboardInterrupt:
        return _stopped(training, "interrupted", INTERRUPTED)
    except (QuorumMissed, Mistake, OSError) as error:
        return _stopped(training, str(error), NOT_DONE)
    shown.end(training.kept, Path(asked.output))
    return OK


def _stopped(training: FederatedTraining, why: str, code: int) -> int:
    done = training.kept.number
    kept = f"rounds up to {done} are kept; --resume goes on with them" if done else "no round was done"
    return _complain(f"{why}\n  {kept}", code)


def _complain(text: str, code: int) -> int:
    from central.federated.display import clean

    print("\n".join(map(clean, f"Error: {text}".splitlines())), file=sys.stderr, flush=True)
    return code


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _leave(code: int) -> NoReturn:
    """At once: threads that still wait for a line keep nobody, and a closed pipe is no reason for a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            code = code or NOT_DONE
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
