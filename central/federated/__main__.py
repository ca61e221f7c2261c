"""``python -m central.federated``: reads a plan from standard input, trains, and exits with an exit code of ``fleet``.

0: all rounds are done. 1: they are not; finished rounds are kept. 2: the model file, a setting or the output folder is
wrong. 130: interrupted (SIGINT, SIGTERM).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from central.federated.display import Plain
    from central.federated.lines import DatasiteLine
    from central.federated.model_file import ModelFile
    from central.federated.plan import TrainingPlan
    from central.federated.threads import Threads
    from central.federated.training import FederatedTraining

OK, NOT_DONE, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
_LAST_WORDS = 15.0
"""Seconds to cancel what was asked for. A datasite ends a job within ten."""


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    logging.getLogger("syft").setLevel(
        logging.CRITICAL
    )  # each error also comes as an exception, so it would be shown twice
    try:
        return _prepared()
    except KeyboardInterrupt:
        return _complain("interrupted before the first round", INTERRUPTED)


def _prepared() -> int:
    from central.federated import display, model_file, plan
    from central.federated.checkpoint import BadCheckpoint
    from central.federated.training import FederatedTraining

    try:
        parsed = plan.parse(sys.stdin.buffer.read())
        loaded = model_file.load(Path(parsed.model).absolute())
        training = FederatedTraining(parsed, loaded, display.Plain(parsed.rounds).warn)
    except (plan.PlanRejected, model_file.Mistake, BadCheckpoint, ValueError) as error:
        return _complain(str(error), WRONG_USE)
    names = tuple(datasite.name for datasite in parsed.lines)
    with display.shown(parsed.rounds, training.kept.number, names, as_json=parsed.as_json, color=parsed.color) as shown:
        return _train(parsed, loaded, training, shown)


def _train(plan: TrainingPlan, loaded: ModelFile, training: FederatedTraining, shown: Plain) -> int:
    from central.federated import preparation
    from central.federated.federation import QuorumMissed
    from central.federated.lines import DatasiteLine
    from central.federated.model_file import Mistake
    from central.federated.threads import Threads

    datasites = [
        DatasiteLine(datasite, training.model, loaded.loss, plan.data, tell=shown.warn) for datasite in plan.lines
    ]
    threads = Threads()
    try:
        prepared = preparation.prepare(datasites, training.config.told(1, ""), threads, plan.deadline)
        prepared.require(training.rules.quorum, len(datasites))
    except Mistake as error:
        return _complain(str(error), WRONG_USE)
    except KeyboardInterrupt:
        return _stopped(training, "interrupted", INTERRUPTED)
    except preparation.NobodyAnswers as error:
        return _stopped(training, str(error), NOT_DONE)
    try:
        training.agree(prepared.columns)
        training.run(datasites, threads, shown, prepared.away)
    except KeyboardInterrupt:
        return _stopped(training, "interrupted", INTERRUPTED)
    except (QuorumMissed, Mistake, OSError) as error:
        return _stopped(training, str(error), NOT_DONE)
    finally:
        _leave_nothing_running(datasites, threads)
    shown.end(training.kept, Path(plan.output))
    return OK


def _leave_nothing_running(datasites: Sequence[DatasiteLine], threads: Threads) -> None:
    """A second interrupt does not wait for it."""
    try:
        threads.finish([partial(datasite.cancel, for_good=True) for datasite in datasites], _LAST_WORDS)
    except KeyboardInterrupt:
        return


def _stopped(training: FederatedTraining, why: str, code: int) -> int:
    done = training.kept.number
    if done == 0:
        return _complain(f"{why}\n  no round is finished", code)
    kept = "1 finished round is kept" if done == 1 else f"{done} finished rounds are kept"
    return _complain(f"{why}\n  {kept}; --resume continues after the last", code)


def _complain(text: str, code: int) -> int:
    from central.federated.display import clean

    print("\n".join(map(clean, f"Error: {text}".splitlines())), file=sys.stderr, flush=True)
    return code


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _leave(code: int) -> NoReturn:
    """Exit at once, without waiting for threads that wait for a datasite, and without a traceback for a closed pipe."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            code = code or NOT_DONE
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
