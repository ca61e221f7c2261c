"""What a new ``fleet.yaml`` changes in a running fleet: who comes, who goes, who restarts because of which key. Pure.

Keys in ``LIVE`` are taken up without a restart; every other key of a worker restarts it, and so do other GPUs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from supervisor.spec import FleetConfig, WorkerSpec

TOLD = frozenset({"heartbeat_interval", "capabilities", "region", "location", "approved_code", "datasets", "resources"})
"""Live keys that the running worker is handed."""
LIVE = (TOLD - {"resources"}) | {
    "priority",
    "reset",  # counts at `fleet up` only
    "admin.password",  # one that is kept is never replaced
    "resources.max_memory_usage_gb",
    "resources.max_cpu_usage_percent",
    "resources.max_concurrent_training_sessions",
    "resources.disk_space_threshold_gb",
    "resources.network_bandwidth_limit_mbps",
}
"""Keys that need no restart, beside all those under ``LIVE_GROUPS``."""
LIVE_GROUPS = ("restart", "probes", "capabilities")
GPU = "gpu"
"""The reason of a line that gets other GPUs without having asked for them."""

_FIXED = ("state_dir", "log_dir")
_FLEET_LIVE = ("name", "shutdown_grace", "startup", "host", "on_event")


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
    """What becomes of the fleet of ``old`` when ``new`` is taken up. ``moved``: lines that get other GPUs."""
    before = {spec.name: spec for spec in old.workers}
    after = {spec.name: spec for spec in new.workers}
    changes = {name: changed_keys(before[name], spec) for name, spec in after.items() if name in before}
    because = {name: _because(keys, moved=name in moved) for name, keys in changes.items()}
    restart = {name: keys for name, keys in because.items() if keys}
    return Plan(
        add=tuple(name for name in after if name not in before),
        remove=tuple(name for name in before if name not in after),
        restart=restart,
        live={name: keys for name, keys in changes.items() if keys and name not in restart},
        unchanged=tuple(name for name, keys in changes.items() if not keys and name not in restart),
        fleet=tuple(key for key in _FLEET_LIVE if getattr(old, key) != getattr(new, key)),
        refused=tuple(key for key in _FIXED if getattr(old, key) != getattr(new, key)),
    )


def _because(keys: tuple[str, ...], *, moved: bool) -> tuple[str, ...]:
    """What restarts it; ``gpu`` where nothing that it asks for itself changed its GPUs."""
    own = tuple(key for key in keys if not is_live(key))
    return (*own, GPU) if moved and not any(key.startswith(f"{GPU}.") for key in own) else own


def in_words(made: Plan) -> str:
    """One line for people: who comes, who goes, who restarts because of what."""
    parts = [f"{name} added" for name in made.add]
    parts += [f"{name} removed" for name in made.remove]
    parts += [f"{name} restarts ({', '.join(keys)})" for name, keys in made.restart.items()]
    parts += [f"{name} takes up {', '.join(keys)}" for name, keys in made.live.items()]
    parts += [f"{key} taken up" for key in made.fleet]
    return "; ".join(parts) or "nothing changed"


def changed_keys(old: WorkerSpec, new: WorkerSpec) -> tuple[str, ...]:
    """The keys whose values differ, dotted, as in ``fleet.yaml``. No value is told: some are secret."""
    before, after = _flat(asdict(old)), _flat(asdict(new))
    return tuple(sorted({key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}))


def is_live(key: str) -> bool:
    return key in LIVE or key.split(".", maxsplit=1)[0] in LIVE_GROUPS


def is_told(key: str) -> bool:
    """Whether the running worker has to be handed the new value."""
    return key.split(".", maxsplit=1)[0] in TOLD


def fingerprint(spec: WorkerSpec) -> str:
    """Tells whether a running process still is what the configuration asks for. No secret can be read from it."""
    kept = sorted((key, value) for key, value in _flat(asdict(spec)).items() if not is_live(key))
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
