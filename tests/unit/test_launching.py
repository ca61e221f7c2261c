"""``policy.launching``: what a worker is told when it is launched, and while it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fleet_common.contract import DatasetOrder, LaunchOrder, TrainingBounds
from supervisor.policy import launching
from supervisor.spec import Capabilities, Dataset, DatasiteSpec, Mock
from tests.unit.fakes import fleet

ALPHA = DatasiteSpec(
    "alpha",
    8080,
    heartbeat_interval=7.0,
    region="Michigan",
    location="Hall 3",
    capabilities=Capabilities(supported_models=("torch",)),
    datasets=(
        Dataset("bearings", Path("/data/bearings.csv"), Mock(rows=5), "vibration"),
        Dataset("motors", Path("/data/motors.csv"), Mock("file", path=Path("/data/mock.csv"))),
    ),
)


def test_a_running_worker_is_told_what_the_next_one_would_be_launched_with() -> None:
    """Else a reload would come to something else than a restart."""
    config = fleet(ALPHA, DatasiteSpec("beta", 8081))
    order = launching.launch_order(config, ALPHA, 4, 2)
    assert isinstance(order, LaunchOrder)
    told = launching.live_settings(config, ALPHA, 4)
    assert (order.settings, 4) == (told, order.generation)
    assert ["torch"] == told.capabilities["supported_models"]


def test_a_dataset_is_told_with_its_mock() -> None:
    """The rule and the number of rows, or the file that holds the mock."""
    bearings, motors = launching.live_settings(fleet(ALPHA), ALPHA, 1).datasets
    assert DatasetOrder("bearings", "/data/bearings.csv", "vibration", "synthetic", 5, "") == bearings
    assert DatasetOrder("motors", "/data/motors.csv", "", "file", 100, "/data/mock.csv") == motors


def test_a_datasite_is_told_the_bounds_of_each_dataset() -> None:
    """A dataset without bounds of its own has the datasite's, as has one that a user uploads."""
    strict, own = TrainingBounds(min_samples=100), TrainingBounds(noise=0.2)
    bearings, motors = ALPHA.datasets
    spec = replace(ALPHA, training_bounds=strict, datasets=(bearings, replace(motors, training_bounds=own)))
    assert {"": strict, "motors": own} == launching.live_settings(fleet(spec), spec, 1).training_bounds


def test_each_worker_has_a_log_of_its_own() -> None:
    """In the log folder of the fleet, by name."""
    config = replace(fleet(ALPHA), log_dir=Path("/var/log/fleet"))
    assert Path("/var/log/fleet/alpha.log") == launching.worker_log(config, "alpha")
