"""The rival: PySyft datasites kept running the plain way. A program of its own:
``python -m fleet_tools.bench.plain FOLDER PORT…``.

One spawned process per datasite calls ``sy.orchestra.launch``; the parent waits on their sentinels and restarts them at
once. In its favour, a process ends as soon as the server that PySyft started for it, and nothing is polled.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import sys
from multiprocessing.context import SpawnProcess


def serve(folder: str, port: int) -> None:
    """One datasite; ends when its server does."""
    os.environ["SYFT_TEMP_ROOT"] = f"{folder}/syft-{port}"
    import syft as sy

    sy.orchestra.launch(
        name=f"line-{port}", port=port, host="127.0.0.1", dev_mode=False, n_consumers=1, create_producer=True
    )
    # One that ended while it was still being launched is no longer among them, and waiting for nobody never ends.
    if children := multiprocessing.active_children():
        multiprocessing.connection.wait([child.sentinel for child in children])
    os._exit(1)


def start(folder: str, port: int) -> SpawnProcess:
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, port))
    process.start()
    return process


def main() -> None:
    """Keep every datasite running until killed."""
    folder, *ports = sys.argv[1:]
    running = {port: start(folder, port) for port in map(int, ports)}
    while True:
        ended = multiprocessing.connection.wait([process.sentinel for process in running.values()])
        for port, process in running.items():
            if process.sentinel in ended:
                process.join()
                running[port] = start(folder, port)


if __name__ == "__main__":
    main()
