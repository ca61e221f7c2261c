"""The door of ``fleet``. The forkserver's children import it as ``__mp_main__``, so it imports nothing by itself."""

from __future__ import annotations


def main() -> None:
    """Run the command line on ``sys.argv``; ends the process with its exit code."""
    _open_what_is_closed()
    _import_typer_alone()
    from supervisor.faces.cli import run

    run()


def _open_what_is_closed() -> None:
    """Standard input, output and error of a process that was started without: the first file that it opened would
    take their place, and everything that is printed would go there."""
    import os
    import sys

    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115 - for life


def _import_typer_alone() -> None:
    """typer loads rich and its Markdown for help pages that ours are not: a third of the time that `fleet status`
    takes. Where rich cannot be imported it does without; afterwards it can be again."""
    import sys

    if "rich" in sys.modules or "typer" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        import typer  # noqa: F401 - for its side effect, being loaded
    finally:
        del sys.modules["rich"]


if __name__ == "__main__":
    main()
