"""What the tools' command lines share: progress on standard error, SIGTERM, numbers. Standard output is for results."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType
from typing import NoReturn


def progress(line: str) -> None:
    """Show one line that is overwritten on a terminal; elsewhere print plain lines."""
    shown = sys.stderr.isatty()
    print(f"\r\033[K{line}" if shown else line, end="" if shown else "\n", file=sys.stderr, flush=True)


def clear() -> None:
    """Remove the progress line."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def end_in_order() -> None:
    """From now on SIGTERM ends this process as Ctrl-C does: and runs every ``finally``."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def count(word: str) -> int:
    """For argparse: a whole number above 0."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number above 0")
    return int(word)
