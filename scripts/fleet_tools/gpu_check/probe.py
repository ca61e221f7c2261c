"""What torch sees of the GPUs, in a process of its own; prints it as JSON. Arguments: the UUIDs to look at one by one.

Each look is a child that is forked before CUDA is touched, as datasites are.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch


def main() -> None:
    looks = {"": None, **{uuid: uuid for uuid in sys.argv[1:]}}
    seen = {name: _looked(visible) for name, visible in looks.items()}
    print(json.dumps({"torch": str(torch.__version__), "cuda": torch.version.cuda, "seen": seen}))


def _looked(visible: str | None) -> dict[str, Any]:
    """``visible`` None: all there is."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        with os.fdopen(theirs, "w") as answer:
            json.dump(_look(visible), answer)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return dict(json.loads(text)) if text else {"devices": [], "error": "the process that asked torch was killed"}


def _look(visible: str | None) -> dict[str, Any]:
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    try:
        torch.cuda.init()
        return {"devices": [_device(index) for index in range(torch.cuda.device_count())], "error": ""}
    except Exception as error:  # noqa: BLE001 - whatever CUDA says is the answer
        return {"devices": [], "error": " ".join(str(error).split())}


def _device(index: int) -> dict[str, Any]:
    about = torch.cuda.get_device_properties(index)
    return {"uuid": str(about.uuid), "name": about.name, "memory": int(about.total_memory)}


if __name__ == "__main__":
    main()
