"""The door of ``fleet``. The forkserver's children import it as ``__mp_main__``, so it imports nothing by itself."""

from __future__ import annotations


def main() -> None:
    """Run the command line on ``sys.argv``; ends the process with its exit code."""
    from supervisor.faces.cli import run

    run()


if __name__ == "__main__":
    main()
