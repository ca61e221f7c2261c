"""Checks across keys: two datasites with one name or port, a missing dashboard, and the warnings. Pure.

Works on trees, not on finished models, so that an error in one datasite does not hide a clash between two others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from supervisor.config import values
from supervisor.config.problems import Flaw
from supervisor.config.tree import Mapping, Scalar, Sequence, Tree, join
from supervisor.spec import DashboardSpec, DatasiteSpec

T = TypeVar("T")

_HOST = DatasiteSpec("", 0).hostname
_DASHBOARD = DashboardSpec()
_read_port = values.whole(1, 65535)


def relations(root: Mapping, entries: list[Mapping]) -> list[Flaw]:
    """The errors across keys. ``entries``: the datasites with the defaults merged in."""
    return [*_names(entries), *_ports(root, entries), *_dashboards(root, entries), *_sessions(root, entries)]


def _value(tree: Mapping, key: str, reader: Callable[[Tree], T]) -> T | None:
    """The key's value; None when it is missing or wrong, which another module reports."""
    try:
        return reader(tree.items[key])
    except (KeyError, ValueError):
        return None


def _present(tree: Mapping, key: str) -> bool:
    item = tree.items.get(key)
    return item is not None and not (isinstance(item, Scalar) and item.absent)


def _names(entries: list[Mapping]) -> Iterator[Flaw]:
    seen: dict[str, tuple[str, Mapping]] = {}
    for entry in entries:
        name = _value(entry, "name", values.name)
        if name is None:
            continue
        first, other = seen.setdefault(name.replace("-", "_"), (name, entry))
        where = f"{other.key} (line {other.items['name'].mark.line})"
        if other is not entry:
            same = f"same name as {where}" if first == name else f"same name as {where}, since - and _ count as equal"
            yield Flaw(entry.items["name"].mark, join(entry.key, "name"), f"{same}; choose another")


def _ports(root: Mapping, entries: list[Mapping]) -> Iterator[Flaw]:
    """The same port on hosts that overlap, which the kernel would refuse."""
    taken: dict[int, list[tuple[str, str]]] = {}
    used = {port for entry in entries if (port := _value(entry, "port", _read_port))}
    if (dashboard := _dashboard_address(root)) is not None:
        taken[dashboard[1]] = [(dashboard[0], "the embedded dashboard")]
        used.add(dashboard[1])
    for entry in entries:
        port = _value(entry, "port", _read_port) or 0
        host = _value(entry, "hostname", values.host) if _present(entry, "hostname") else _HOST
        if not port or host is None:
            continue
        node = entry.items["port"]
        if clash := next((who for other, who in taken.get(port, ()) if _overlap(host, other)), None):
            free = next(number for number in range(port + 1, port + 2 + len(used)) if number not in used)
            step = f"{free} is free in this file" if free <= 65535 else "choose another"
            yield Flaw(node.mark, join(entry.key, "port"), f"same port as {clash}, on the same host; {step}")
        taken.setdefault(port, []).append((host, f"{entry.key} (line {node.mark.line})"))


def _dashboard_address(root: Mapping) -> tuple[str, int] | None:
    """Host and port of the embedded dashboard; None when there is no dashboard or they cannot be read."""
    if not _present(root, "dashboard"):
        return None
    tree = root.items["dashboard"]
    if not isinstance(tree, Mapping):
        return _DASHBOARD.hostname, _DASHBOARD.port
    host = _value(tree, "hostname", values.host) if _present(tree, "hostname") else _DASHBOARD.hostname
    port = _value(tree, "port", _read_port) if _present(tree, "port") else _DASHBOARD.port
    return (host, port) if host and port else None


def _overlap(one: str, other: str) -> bool:
    if values.is_wildcard(one) or values.is_wildcard(other):
        return True
    names = {"localhost", "127.0.0.1", "::1"}
    return one.lower() == other.lower() or {one.lower(), other.lower()} <= names


def _dashboards(root: Mapping, entries: Iterable[Mapping]) -> Iterator[Flaw]:
    if _present(root, "dashboard"):
        return
    for entry in entries:
        if not _present(entry, "dashboard_url"):
            message = (
                "no dashboard is configured; set dashboard_url here or under defaults, or write `dashboard: embedded`"
            )
            yield Flaw(entry.mark, join(entry.key, "dashboard_url"), message)


def _sessions(root: Mapping, entries: list[Mapping]) -> Iterator[Flaw]:
    """The trainings of the whole machine must be at least one for each datasite."""
    host = root.items.get("host")
    key = "max_concurrent_training_sessions"
    sessions = _value(host, key, values.whole(0, 1000)) if isinstance(host, Mapping) else None
    if isinstance(host, Mapping) and sessions and sessions < len(entries):
        message = f"expected at least {len(entries)}, one for each datasite, or 0 for no limit"
        yield Flaw(host.items[key].mark, join("host", key), message)


def warnings(
    root: Mapping, entries: list[Mapping], *, readable_by_all: bool, exists: Callable[[str], bool]
) -> list[Flaw]:
    """What is valid but unwise. ``readable_by_all``: every user may read the file. ``exists``: whether a file named in
    it exists."""
    found = [flaw for entry in entries for flaw in (*_exposed(entry), *_absent(entry, exists), *_elsewhere(entry))]
    if isinstance(dashboard := root.items.get("dashboard"), Mapping):
        found += _exposed(dashboard)
    return found + ([flaw for entry in entries for flaw in _open_password(entry)] if readable_by_all else [])


def _exposed(tree: Mapping) -> Iterator[Flaw]:
    node = tree.items.get("hostname")
    host = _value(tree, "hostname", values.host)
    if node is not None and host is not None and not values.is_loopback(host):
        yield Flaw(
            node.mark,
            node.key,
            "this serves plain HTTP to the network, and others can read the traffic; put a TLS proxy in front",
        )


def _absent(entry: Mapping, exists: Callable[[str], bool]) -> Iterator[Flaw]:
    listed = entry.items.get("datasets")
    for dataset in listed.items if isinstance(listed, Sequence) else ():
        name = _value(dataset, "path", values.data_file) if isinstance(dataset, Mapping) else None
        if isinstance(dataset, Mapping) and name is not None and not exists(name):
            node = dataset.items["path"]
            yield Flaw(node.mark, node.key, "file not found; the dataset is published as soon as the file exists")


def _elsewhere(entry: Mapping) -> Iterator[Flaw]:
    """Approvals for a dataset that the file does not list."""
    listed, approved = (entry.items.get(key) for key in ("datasets", "approved_code"))
    if not isinstance(listed, Sequence) or not isinstance(approved, Sequence):
        return
    names = {_value(one, "name", values.text) for one in listed.items if isinstance(one, Mapping)}
    for one in approved.items:
        name = _value(one, "dataset", values.text) if isinstance(one, Mapping) else None
        if isinstance(one, Mapping) and name is not None and name not in names:
            node = one.items["dataset"]
            yield Flaw(
                node.mark, node.key, "not listed under datasets; correct only if somebody uploads such a dataset"
            )


def _open_password(entry: Mapping) -> Iterator[Flaw]:
    admin = entry.items.get("admin")
    node = admin.items.get("password") if isinstance(admin, Mapping) else None
    if isinstance(node, Scalar) and not node.interpolated and not node.absent:
        message = "every user of this machine can read this password; use ${file:…}, or run chmod 600 on fleet.yaml"
        yield Flaw(node.mark, node.key, message)
