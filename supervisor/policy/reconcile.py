"""What a new ``fleet.yaml`` changes in a running fleet: who comes, who goes, who restarts because of which key. Pure.

How a key is taken up, its field in ``spec`` says; other GPUs restart a datasite too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any, get_type_hints

from supervisor.spec import APPLIES, Applies, FleetConfig, WorkerSpec

GPU = "gpu"
"""The reason of a datasite that gets other GPUs without having asked for them."""

_NO_RESTART = (Applies.SUPERVISOR, Applies.LIVE, Applies.LATER)


@cache
def how_fields_apply(kind: type) -> Mapping[str, Applies]:
    """What the fields of a spec say of themselves, by dotted key. A group that says it for all its parts stands for
    them."""
    found: dict[str, Applies] = {}
    for each in fields(kind):
        if APPLIES in each.metadata:
            found[each.name] = each.metadata[APPLIES]
        else:
            parts = how_fields_apply(get_type_hints(kind)[each.name])
            found |= {f"{each.name}.{key}": how for key, how in parts.items()}
    return found


def applies(kind: type, key: str) -> Applies:
    """How the value under a dotted key is taken up. Raises KeyError for a key that ``kind`` does not have."""
    known = how_fields_apply(kind)
    group = key
    while group not in known and "." in group:
        group = group.rpartition(".")[0]
    return known[group]


def _fleet_keys(how: Applies) -> tuple[str, ...]:
    return tuple(key for key, said in how_fields_apply(FleetConfig).items() if said is how)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reload would do, by name in the order of the file.

    With ``restart`` go the changed keys that cannot be taken up live, with ``live`` those that can.

    ``fleet``: changed keys of the fleet as a whole. ``refused``: changed keys that a running fleet cannot take up;
    then nothing at all is done.
    """

    add: tuple[str, ...]
    remove: tuple[str, ...]
    restart: dict[str, tuple[str, ...]]
    live: dict[str, tuple[str, ...]]
    unchanged: tuple[str, ...]
    fleet: tuple[str, ...]
    refused: tuple[str, ...]

    @property
    def empty(self) -> bool:
        return not (self.add or self.remove or self.restart or self.live or self.fleet)

    def to_dict(self) -> dict[str, Any]:
        """The stable shape of ``fleet reload --json``."""
        return asdict(self)


def plan(old: FleetConfig, new: FleetConfig, moved: Collection[str] = ()) -> Plan:
    """What becomes of the fleet of ``old`` when ``new`` is taken up. ``moved``: datasites that get other GPUs."""
    before = {spec.name: spec for spec in old.workers}
    after = {spec.name: spec for spec in new.workers}
    changes = {name: changed_keys(before[name], spec) for name, spec in after.items() if name in before}
    because = {name: _because(after[name], keys, moved=name in moved) for name, keys in changes.items()}
    restart = {name: keys for name, keys in because.items() if keys}
    return Plan(
        add=tuple(name for name in after if name not in before),
        remove=tuple(name for name in before if name not in after),
        restart=restart,
        live={name: keys for name, keys in changes.items() if keys and name not in restart},
        unchanged=tuple(name for name, keys in changes.items() if not keys and name not in restart),
        fleet=tuple(key for key in _fleet_keys(Applies.SUPERVISOR) if getattr(old, key) != getattr(new, key)),
        refused=tuple(key for key in _fleet_keys(Applies.NEVER) if getattr(old, key) != getattr(new, key)),
    )


def _because(spec: WorkerSpec, keys: tuple[str, ...], *, moved: bool) -> tuple[str, ...]:
    """What restarts it; ``gpu`` where nothing that it asks for itself changed its GPUs."""
    own = tuple(key for key in keys if not is_live(spec, key))
    return (*own, GPU) if moved and not any(key.startswith(f"{GPU}.") for key in own) else own


def in_words(changes: Plan) -> str:
    """One line for people: who comes, who goes, who restarts and why."""
    parts = [f"{name} added" for name in changes.add]
    parts += [f"{name} removed" for name in changes.remove]
    parts += [f"{name} restarts ({', '.join(keys)})" for name, keys in changes.restart.items()]
    parts += [f"{name} applies {', '.join(keys)}" for name, keys in changes.live.items()]
    parts += [f"{key} applied" for key in changes.fleet]
    return "; ".join(parts) or "nothing changed"


def changed_keys(old: WorkerSpec, new: WorkerSpec) -> tuple[str, ...]:
    """The keys whose values differ, dotted, as in ``fleet.yaml``. No value is told: some are secret."""
    before, after = _flat(asdict(old)), _flat(asdict(new))
    return tuple(sorted({key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}))


def is_live(spec: WorkerSpec, key: str) -> bool:
    """Whether another value restarts nobody."""
    return applies(type(spec), key) in _NO_RESTART


def is_handed_over(spec: WorkerSpec, key: str) -> bool:
    """Whether the running worker has to be handed the new value."""
    return applies(type(spec), key) is Applies.LIVE


def fingerprint(spec: WorkerSpec) -> str:
    """Tells whether a running process still is what the configuration asks for. No secret can be read from it."""
    kept = sorted((key, value) for key, value in _flat(asdict(spec)).items() if not is_live(spec, key))
    return hashlib.sha256(repr(kept).encode()).hexdigest()


def _flat(values: dict[str, Any], under: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{under}{key}.")
        elif key == "environment":
            flat |= {f"{under}{key}.{name}": text for name, text in value}
        else:
            flat[f"{under}{key}"] = value
    return flat
