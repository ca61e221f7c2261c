"""The door: ``scripts/chaos`` runs this package."""

from __future__ import annotations

import sys

from fleet_tools.chaos.cli import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
