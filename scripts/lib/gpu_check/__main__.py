"""The door: makes the folder above importable, then runs the command line."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run ``scripts/gpu-check`` on ``sys.argv``; ends the process with its exit code."""
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from gpu_check.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
