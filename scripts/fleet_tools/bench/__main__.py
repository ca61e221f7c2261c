"""The door: ``scripts/bench`` runs this package."""

from __future__ import annotations

import sys

from fleet_tools.bench.cli import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
