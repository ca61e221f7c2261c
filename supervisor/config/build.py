"""From a path to a ``FleetConfig``: reads the file, runs the other modules over it and makes the spec."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Callable
from collections.abc import Mapping as Environ
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from fleet_common.contract import Approval, TrainingBounds
from supervisor.config import schema, values
from supervisor.config.interpolation import Interpolator
from supervisor.config.problems import ConfigError, Flaw, Mark, Problem, problems_of
from supervisor.config.relations import relations, warnings
from supervisor.config.tree import Mapping, Scalar, Sequence, Tree, parse
from supervisor.config.validation import merged, validated
from supervisor.spec import (
    Access,
    Admin,
    Capabilities,
    DashboardSpec,
    Dataset,
    DatasiteSpec,
    FleetConfig,
    GpuRequest,
    Hook,
    HostLimits,
    Mock,
    ProbePolicy,
    ProbeTiming,
    Resources,
    RestartPolicy,
    StartupPolicy,
)

_FILE_BYTES = 1024 * 1024


def check(path: Path, environ: Environ[str, str], fqdn: Callable[[], str]) -> tuple[FleetConfig, tuple[Problem, ...]]:
    """The fleet and its warnings. Raises ConfigError with every error."""
    tree, flaws = parse(_text(path))
    if tree is None or (isinstance(tree, Scalar) and tree.broken):
        raise ConfigError(problems_of(path, flaws))
    interpolator = Interpolator(environ, path.absolute().parent)
    root = interpolator.filled(tree)
    if not isinstance(root, Mapping):
        message = "expected a mapping at the top level: `version: 1`, `datasites:` and so on"
        raise ConfigError(problems_of(path, [*flaws, Flaw(root.mark, "", message)]))
    flaws += interpolator.flaws
    entries = _entries(root, flaws)
    top = validated(schema.FleetKeys, _without(root, "defaults", "datasites"), flaws)
    datasites = [validated(schema.DatasiteKeys, entry, flaws) for entry in entries]
    flaws += relations(root, entries)
    if flaws or top is None:
        raise ConfigError(problems_of(path, flaws))
    config = _fleet(path.absolute(), top, [keys for keys in datasites if keys is not None], cache(fqdn))
    unwise = warnings(root, entries, readable_by_all=_grants(path, stat.S_IROTH), exists=_exists_beside(path))
    if _grants(path, stat.S_IWGRP | stat.S_IWOTH):
        unwise.append(
            Flaw(Mark(), "", f"other users can change this file and the commands in it; run chmod g-w,o-w {path.name}")
        )
    return config, problems_of(path, unwise)


def _text(path: Path) -> str:
    """The file's text. Raises ConfigError when the file cannot be read as text."""
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_BYTES + 1)
        if len(raw) > _FILE_BYTES:
            raise _unreadable(path, "the file is larger than 1 MiB; check that it is the right file")
        return raw.removeprefix(codecs.BOM_UTF8).decode()
    except FileNotFoundError:
        raise _unreadable(path, "file not found; create one with `fleet init`, or name another with -f") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, _reason(error), _undecodable(error)) from None


def _unreadable(path: Path, message: str, mark: Mark | None = None) -> ConfigError:
    return ConfigError(problems_of(path, [Flaw(mark or Mark(), "", message)]))


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "the file is not UTF-8 text; save it as UTF-8"
    return f"cannot read the file: {error.strerror if isinstance(error, OSError) else 'not a valid path'}"


def _undecodable(error: OSError | ValueError) -> Mark | None:
    if not isinstance(error, UnicodeDecodeError):
        return None
    before = error.object[: error.start]
    return Mark(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))


def _grants(path: Path, bits: int) -> bool:
    try:
        return bool(path.stat().st_mode & bits)
    except OSError:
        return False


def _exists_beside(path: Path) -> Callable[[str], bool]:
    return lambda name: os.path.exists(path.absolute().parent / name)  # noqa: PTH110 - Path.exists() raises for EACCES


def _without(root: Mapping, *keys: str) -> Mapping:
    return replace(root, items={key: item for key, item in root.items.items() if key not in keys})


def _entries(root: Mapping, flaws: list[Flaw]) -> list[Mapping]:
    """The datasites, each with the defaults merged in. Also checks the defaults themselves."""
    defaults, found = root.items.get("defaults"), root.items.get("datasites")
    if defaults is not None and not _is_absent(defaults):
        validated(schema.DefaultKeys, defaults, flaws)
    base = defaults if isinstance(defaults, Mapping) else Mapping("defaults", root.mark, {}, {})
    shared = replace(base, items={key: item for key, item in base.items.items() if key in _SHARED})
    return [merged(shared, entry) for entry in _datasites(root, found, flaws)]


_SHARED = schema.SharedKeys.model_fields


def _is_absent(tree: Tree) -> bool:
    return isinstance(tree, Scalar) and tree.absent


def _datasites(root: Mapping, found: Tree | None, flaws: list[Flaw]) -> list[Mapping]:
    expected = "expected a list of datasites, each beginning with `- name: …`"
    if found is None or _is_absent(found) or (isinstance(found, Sequence) and not found.items):
        mark = found.mark if found else root.mark
        flaws.append(Flaw(mark, "datasites", "expected at least one datasite, such as `- {name: line_a, port: 8080}`"))
    elif not isinstance(found, Sequence):
        if not (isinstance(found, Scalar) and found.broken):
            flaws.append(Flaw(found.mark, "datasites", expected))
    elif len(found.items) > schema.MOST_DATASITES:
        flaws.append(Flaw(found.mark, "datasites", f"expected at most {schema.MOST_DATASITES} datasites"))
    else:
        return [entry for item in found.items if (entry := _entry(item, flaws)) is not None]
    return []


def _entry(item: Tree, flaws: list[Flaw]) -> Mapping | None:
    if isinstance(item, Mapping):
        return item
    if not (isinstance(item, Scalar) and item.broken):
        flaws.append(Flaw(item.mark, item.key, "expected a datasite, with `name: …` and `port: …`"))
    return None


def _fleet(
    path: Path, top: schema.FleetKeys, datasites: list[schema.DatasiteKeys], fqdn: Callable[[], str]
) -> FleetConfig:
    dashboard = _dashboard(top)
    return FleetConfig(
        name=top.name,
        path=path,
        state_dir=path.parent / top.state_dir,
        log_dir=path.parent / top.log_dir,
        datasites=tuple(_datasite(keys, path.parent, dashboard.url if dashboard else "", fqdn) for keys in datasites),
        dashboard=dashboard,
        shutdown_grace=top.shutdown_grace,
        startup=StartupPolicy(**dict(top.startup)),
        host=HostLimits(**dict(top.host)),
        on_event=tuple(_hook(keys) for keys in top.on_event),
    )


def _dashboard(top: schema.FleetKeys) -> DashboardSpec | None:
    if isinstance(top.dashboard, schema.DashboardKeys):
        keys = top.dashboard
        return DashboardSpec(keys.hostname, keys.port, keys.late_after, keys.offline_after)
    return DashboardSpec() if top.dashboard else None


def _datasite(keys: schema.DatasiteKeys, base: Path, embedded_url: str, fqdn: Callable[[], str]) -> DatasiteSpec:
    bounds = _bounds(keys.training_bounds, TrainingBounds())
    derived = fqdn if values.is_wildcard(keys.hostname) else lambda: keys.hostname
    return DatasiteSpec(
        name=keys.name,
        port=keys.port,
        hostname=keys.hostname,
        advertise=keys.advertise or derived(),
        dashboard_url=keys.dashboard_url or embedded_url,
        heartbeat_url=keys.heartbeat_url or "",
        heartbeat_interval=keys.heartbeat_interval,
        priority=keys.priority,
        dev_mode=keys.dev_mode,
        reset=keys.reset,
        verbose=keys.verbose,
        association_request_auto_approval=keys.association_request_auto_approval,
        admin=Admin(**dict(keys.admin)),
        restart=RestartPolicy(**dict(keys.restart)),
        probes=_probes(keys.probes),
        gpu=_gpu(keys.gpu),
        resources=Resources(**dict(keys.resources)),
        access=Access(**dict(keys.access)),
        capabilities=_capabilities(keys),
        region=keys.region,
        location=keys.location,
        approved_code=tuple(_approval(one) for one in keys.approved_code),
        datasets=tuple(_dataset(one, base, bounds) for one in keys.datasets),
        training_bounds=bounds,
        environment=tuple(keys.environment.items()),
    )


def _approval(keys: schema.ApprovalKeys) -> Approval:
    assets = [keys.asset] if isinstance(keys.asset, str) else keys.asset
    config = {key: tuple(allowed) if isinstance(allowed, list) else (allowed,) for key, allowed in keys.config.items()}
    return Approval(keys.hash, keys.dataset, tuple(assets), keys.by, config, keys.runs, keys.until)


def _dataset(keys: schema.DatasetKeys, base: Path, bounds: TrainingBounds) -> Dataset:
    own = _bounds(keys.training_bounds, bounds) if keys.training_bounds else None
    return Dataset(keys.name, base / keys.path, _mock(keys.mock, base), keys.description, own)


def _bounds(keys: schema.BoundsKeys, base: TrainingBounds) -> TrainingBounds:
    """``base`` with what the file sets."""
    told = {key: _bound(getattr(keys, key)) for key in keys.model_fields_set}
    return replace(base, **told)


def _bound(value: Any) -> Any:
    if isinstance(value, schema.RangeKeys):
        return value.min, value.max
    return tuple(value) if isinstance(value, list) else value


def _mock(keys: str | schema.MockKeys, base: Path) -> Mock:
    if isinstance(keys, str):
        return Mock(keys)
    return Mock("file", path=base / keys.path) if keys.path else Mock(rows=keys.rows)


def _probes(keys: schema.ProbeKeys) -> ProbePolicy:
    return ProbePolicy(*(ProbeTiming(**dict(one)) for one in (keys.startup, keys.readiness, keys.liveness)))


def _hook(keys: schema.HookKeys) -> Hook:
    environment = tuple(keys.environment.items())
    return Hook(tuple(keys.command), keys.webhook, tuple(keys.events), keys.timeout, environment)


def _gpu(keys: str | list[str] | schema.GpuKeys) -> GpuRequest:
    if isinstance(keys, schema.GpuKeys):
        count = len(keys.devices) or keys.count
        return GpuRequest("some", tuple(keys.devices), count, keys.memory, keys.exclusive)
    if keys in ("auto", "none"):
        return GpuRequest(mode=str(keys))
    devices = (keys,) if isinstance(keys, str) else tuple(keys)
    return GpuRequest("some", devices, len(devices))


def _capabilities(keys: schema.DatasiteKeys) -> Capabilities:
    given = keys.capabilities
    return Capabilities(
        max_concurrent_training=given.max_concurrent_training or keys.resources.max_concurrent_training_sessions,
        supported_models=tuple(given.supported_models),
        data_types=tuple(given.data_types),
        security_level=given.security_level,
    )
