"""From fleet.yaml to the embedded dashboard, and from a line's region to what the centre is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from datasite_worker.centre.central_link import Profile, heartbeat_body, registration_body
from fleet_common.contract import DashboardOrder
from supervisor.config import ConfigError, load
from supervisor.policy.launching import launch_order
from supervisor.spec import FleetConfig

SITE = Profile("alpha", "host", 8080, "cpu", "http://central:5000", "http://central:5000", 30.0, {})


def read(folder: Path, dashboard: str) -> FleetConfig:
    path = folder / "fleet.yaml"
    path.write_text(f"version: 1\ndashboard: {dashboard}\ndatasites: [{{name: a, port: 8080}}]\n")
    return load(path, {})


@pytest.mark.parametrize(
    ("written", "thresholds"),
    [
        ("embedded", (45.0, 90.0)),
        ("{late_after: 10s, offline_after: 1m}", (10.0, 60.0)),
        ("{mode: embedded, offline_after: 45}", (45.0, 45.0)),
    ],
)
def test_the_embedded_dashboard_is_told_when_a_factory_is_late(
    tmp_path: Path, written: str, thresholds: tuple[float, float]
) -> None:
    """As fleet.yaml says, or as the dashboard by itself would have it."""
    config = read(tmp_path, written)
    assert config.dashboard is not None
    order = launch_order(config, config.dashboard, 1, 2)
    assert isinstance(order, DashboardOrder)
    folder = tmp_path / ".fleet" / "dashboard"
    assert (str(folder), str(folder / "dashboard.db")) == (order.state_dir, order.database)
    assert thresholds == (order.late_after, order.offline_after)


def test_the_embedded_dashboard_is_told_its_folder(tmp_path: Path) -> None:
    """Its database and the key of its probes lie there."""
    config = read(tmp_path, "embedded")
    assert config.dashboard is not None
    order = launch_order(config, config.dashboard, 1, 2)
    assert isinstance(order, DashboardOrder)
    assert (config.state_dir / "dashboard", Path(order.database).parent) == (
        Path(order.state_dir),
        Path(order.state_dir),
    )


@pytest.mark.parametrize("written", ["{late_after: 2m}", "{late_after: 30s, offline_after: 20s}"])
def test_offline_comes_not_before_late(tmp_path: Path, written: str) -> None:
    """The error names the key."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, written)
    (problem,) = caught.value.problems
    assert problem.key.endswith("offline_after")
    assert "at least late_after" in str(problem)


def test_region_and_place_are_told_where_they_are_known() -> None:
    """In registration and beat alike; a central that has never heard of them sees nothing new otherwise."""
    placed = replace(SITE, region="Michigan", location="Hall 3")
    for body in (registration_body(placed), heartbeat_body(placed, "operational", 1.0, {})):
        assert ("Michigan", "Hall 3") == (body["region"], body["location"])
    for body in (registration_body(SITE), heartbeat_body(SITE, "operational", 1.0, {})):
        assert not {"region", "location"} & set(body)
