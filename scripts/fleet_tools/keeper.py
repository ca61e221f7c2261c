"""A run's fleets end with the run, whatever ends it: also SIGKILL, or a second Ctrl-C while it cleans up.

``kept`` starts this module as a process of its own. When the run is gone without having said that it is done, the
process ends what still lives in the run's folder.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet_tools.processes import end_all

_DONE = "done"


@contextmanager
def kept(folder: Path, *, remove: bool = False) -> Iterator[None]:
    """Processes that work in ``folder`` do not outlive this process. ``remove``: nor does the folder."""
    # The folder goes to standard input: a process that names it on its command line counts as one that works there.
    command = [sys.executable, "-P", "-m", "fleet_tools.keeper"]
    keeper = subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/", start_new_session=True, text=True)
    assert keeper.stdin is not None
    try:
        keeper.stdin.write(f"{folder.absolute()}\n{'remove' if remove else 'leave'}\n")
        keeper.stdin.flush()
        yield
        keeper.stdin.write(_DONE)
    finally:
        keeper.stdin.close()
        keeper.wait()


def main() -> None:
    folder, then, *rest = sys.stdin.read().splitlines()  # until the run closes it, or ends
    if rest == [_DONE] or len(Path(folder).parts) < 3:
        return
    end_all(Path(folder))
    if then == "remove":
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
