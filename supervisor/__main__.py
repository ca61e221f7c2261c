"""The door of ``fleet``. The forkserver's children import it as ``__mp_main__``, so it imports nothing by itself."""

from __future__ import annotations


def main() -> None:
    """Run the command line on ``sys.argv``; ends the process with its exit code."""
    _import_typer_alone()
    from supervisor.faces.cli import run

    run()


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
