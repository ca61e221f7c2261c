"""Which datasites have been ready before: kept twice, and asked when a folder is empty."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_common import folders
from supervisor.effects.known import FILE, EmptyState, Known, refuse_empty
from supervisor.faces.faults import Exit, Fault
from supervisor.faces.up import refuse_empty_state
from supervisor.spec import DatasiteSpec, FleetConfig
from tests.unit.fakes import fleet


@pytest.fixture
def config(tmp_path: Path) -> FleetConfig:
    made = replace(
        fleet(DatasiteSpec("alpha", 8080), DatasiteSpec("beta", 8081)),
        state_dir=tmp_path / "state",
        log_dir=tmp_path / "logs",
    )
    folders.make(made.log_dir)
    prepare(made)
    return made


def prepare(config: FleetConfig) -> None:
    for folder in (config.state_dir, config.state.history.root, config.state.datasites):
        folders.make(folder)


def known(config: FleetConfig) -> set[str]:
    return {name for name in ("alpha", "beta", "gone") if name in Known(config)}


def test_who_was_ready_is_known_for_ever(config: FleetConfig) -> None:
    """Also where one of the two copies is lost or damaged."""
    Known(config).add("alpha")
    Known(config).add("alpha")
    assert {"alpha"} == known(config)
    for damage in (b"", b"[" * 30_000, b'{"datasites": 3}', b'{"datasites": {"x": 1}}', b"\xff"):
        for copy in (config.state.history.known, config.log_dir / FILE):
            whole = copy.read_bytes()
            copy.write_bytes(damage)
            assert {"alpha"} == known(config)
            copy.write_bytes(whole)


def test_what_is_removed_on_purpose_is_forgotten(config: FleetConfig) -> None:
    """By a reset, or because it is neither in fleet.yaml nor on the disk."""
    made = Known(config)
    for name in ("alpha", "beta", "gone"):
        folders.make(config.state.worker(name).root)
        made.add(name)
    assert {"alpha", "beta", "gone"} == known(config)
    made.forget(["beta"])
    shutil.rmtree(config.state.worker("alpha").root)
    shutil.rmtree(config.state.worker("gone").root)
    assert {"alpha"} == known(config)


def test_fleets_that_share_a_log_folder_do_not_disturb_each_other(config: FleetConfig, tmp_path: Path) -> None:
    """Each is known by its state folder."""
    other = replace(config, state_dir=tmp_path / "other")
    prepare(other)
    Known(config).add("alpha")
    Known(other).add("beta")
    assert ({"alpha"}, {"beta"}) == (known(config), known(other))


def test_an_empty_state_folder_is_refused_by_name(config: FleetConfig) -> None:
    """Of a fleet that has run there; with the ways out, and an exit code at which a service manager tries again."""
    refuse_empty(config)
    Known(config).add("alpha")
    refuse_empty(config)
    shutil.rmtree(config.state_dir)
    with pytest.raises(EmptyState, match="is missing or empty, but this fleet has had datasites there: alpha"):
        refuse_empty(config)
    with pytest.raises(Fault) as refused:
        refuse_empty_state(config)
    assert Exit.NOT_DONE == refused.value.exit_code
    assert all(
        way in refused.value.next_step for way in ("mount", "restore", "reset: true", str(config.log_dir / FILE))
    )
    assert not config.state_dir.exists()
    config.state_dir.mkdir()
    (config.state_dir / "lost+found").mkdir()
    with pytest.raises(EmptyState):
        refuse_empty(config)


def test_a_reset_or_another_list_of_datasites_begins_anew(config: FleetConfig) -> None:
    """The operator has said so."""
    Known(config).add("alpha")
    shutil.rmtree(config.state_dir)
    alpha, beta = config.datasites
    refuse_empty(replace(config, datasites=(replace(alpha, reset=True), beta)))
    refuse_empty(replace(config, datasites=(beta,)))


def test_a_copy_that_cannot_be_written_stops_nothing(config: FleetConfig, caplog: pytest.LogCaptureFixture) -> None:
    """It is said."""
    shutil.rmtree(config.log_dir)
    with caplog.at_level("WARNING", "fleet"):
        Known(config).add("alpha")
    assert {"alpha"} == known(config)
    assert "cannot be written" in caplog.text
