"""Federated averaging, as pure functions of updates: no clock, no network, no randomness.

FedAvg and FedProx (McMahan et al. 2017, Li et al. 2020) use the same average. FedProx differs in how datasites train.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from central.federated.participants import Parameters, Update


class NothingToAverage(ValueError):
    """No update has samples."""


def average(updates: Sequence[Update]) -> dict[str, torch.Tensor]:
    """The mean of the datasites' parameters, weighted by samples, for each tensor in its own type.

    Floating point tensors, including BatchNorm's running statistics, are added in float64 in the order of ``updates``
    and cast back, so the same updates in the same order give the same bits. Integers are counts
    (``num_batches_tracked``) and booleans are flags; their elementwise maximum is used, because a mean is not a count.
    """
    total = sum(update.samples for update in updates)
    if total <= 0:
        raise NothingToAverage("no datasite trained on any sample")
    shares = [update.samples / total for update in updates]
    return {name: _merge([update.parameters[name] for update in updates], shares) for name in updates[0].parameters}


def _merge(tensors: Sequence[torch.Tensor], shares: Sequence[float]) -> torch.Tensor:
    first = tensors[0]
    if first.is_floating_point() or first.is_complex():
        return _mean(tensors, shares).to(first.dtype)
    return torch.stack(list(tensors)).amax(dim=0)


def _mean(tensors: Sequence[torch.Tensor], shares: Sequence[float]) -> torch.Tensor:
    wide = torch.complex128 if tensors[0].is_complex() else torch.float64
    total = torch.zeros(tensors[0].shape, dtype=wide)
    for tensor, share in zip(tensors, shares, strict=True):
        total += tensor.to(device="cpu", dtype=wide) * share
    return total


def problem_with(update: Update, reference: Parameters) -> str:
    """Why ``update`` cannot be averaged with updates of ``reference``'s form; "" if it can."""
    if update.samples <= 0:
        return f"it trained on {update.samples} samples"
    if missing := sorted(reference.keys() - update.parameters.keys()):
        return f"{missing[0]} is missing" + _and_more(missing)
    if unknown := sorted(update.parameters.keys() - reference.keys()):
        return f"{unknown[0]} is not part of the model" + _and_more(unknown)
    problems = (_problem(name, update.parameters[name], expected) for name, expected in reference.items())
    return next(filter(None, problems), "")


def _problem(name: str, tensor: torch.Tensor, expected: torch.Tensor) -> str:
    if tensor.shape != expected.shape:
        return f"{name} has shape {tuple(tensor.shape)} instead of {tuple(expected.shape)}"
    if tensor.dtype != expected.dtype:
        return f"{name} is {_short(tensor.dtype)} instead of {_short(expected.dtype)}"
    if not bool(torch.isfinite(tensor).all()):
        return f"{name} has values that are not finite (NaN or infinity)"
    return ""


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _and_more(names: Sequence[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
