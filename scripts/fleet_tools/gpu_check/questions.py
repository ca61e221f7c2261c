"""What the check runs inside datasites, as PySyft functions: each brings all it needs along, and answers in JSON.

Only ``train`` is run here as well, on the CPU, for its parameters.
"""

from __future__ import annotations


def look_around():  # type: ignore[no-untyped-def]  # noqa: ANN201 - PySyft ships its source
    """What CUDA reads in this process, and what torch sees by it. ``clean``: CUDA was not touched before that."""
    import ctypes
    import json
    import os

    import torch

    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    clean = not (torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork())
    read = {name: (getenv(name.encode()) or b"").decode() for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")}
    uuids = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
    return json.dumps({"pid": os.getpid(), "read": read, "uuids": uuids, "clean": clean})


def train(device):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - PySyft ships its source
    """A small network fitted to the same numbers everywhere. ``taken``: bytes of GPU memory it took at most."""
    import json

    import torch

    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    inputs = torch.randn(512, 16)
    targets = inputs.sin().sum(dim=1, keepdim=True)
    model, inputs, targets = model.to(device), inputs.to(device), targets.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
    parameters = [float(value) for one in model.parameters() for value in one.detach().cpu().flatten()]
    taken = torch.cuda.max_memory_allocated() if device != "cpu" else 0
    return json.dumps({"parameters": parameters, "loss": float(loss.detach()), "taken": int(taken)})


def take_memory(within, beyond):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - PySyft ships its source
    """What becomes of two allocations, one after the other."""
    import json

    import torch

    outcomes = {}
    for name, count in (("within", within), ("beyond", beyond)):
        try:
            held = torch.empty(count, dtype=torch.uint8, device="cuda:0")
            del held
            torch.cuda.empty_cache()
            outcomes[name] = "given"
        except torch.cuda.OutOfMemoryError:
            outcomes[name] = "OutOfMemoryError"
    return json.dumps(outcomes)


def keep_memory(count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - PySyft ships its source
    """Take so much and keep it for as long as this process lives."""
    import json

    import torch

    torch.kept_by_gpu_check = torch.empty(count, dtype=torch.uint8, device="cuda:0")  # type: ignore[attr-defined]
    torch.cuda.synchronize()
    return json.dumps({"kept": count})


def hold_memory(count, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - PySyft ships its source
    """Take so much and keep it, for five minutes at most; the pid is written to ``place`` when it is taken."""
    import os
    import pathlib
    import time

    import torch

    held = torch.empty(count, dtype=torch.uint8, device="cuda:0")
    torch.cuda.synchronize()
    part = pathlib.Path(place + ".part")
    part.write_text(str(os.getpid()))
    part.replace(place)
    time.sleep(300)
    return str(held.numel())
