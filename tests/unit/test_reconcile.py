"""What a new fleet.yaml changes: who comes, who goes, who restarts because of which key, and who never notices."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.policy.reconcile import (
    Plan,
    applies,
    changed_keys,
    fingerprint,
    how_fields_apply,
    in_words,
    is_handed_over,
    is_live,
    plan,
)
from supervisor.spec import (
    APPLIES,
    Access,
    Admin,
    Applies,
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
    RestartMode,
    RestartPolicy,
    StartupPolicy,
)
from tests.unit.fakes import fleet

ALPHA = DatasiteSpec("alpha", 8080)
BETA = DatasiteSpec("beta", 8081)
GAMMA = DatasiteSpec("gamma", 8082)

RESTARTS = {
    "port",
    "hostname",
    "advertise",
    "dashboard_url",
    "heartbeat_url",
    "dev_mode",
    "verbose",
    "association_request_auto_approval",
    "admin.email",
    "admin.name",
    "gpu.mode",
    "gpu.devices",
    "gpu.count",
    "gpu.memory_bytes",
    "gpu.exclusive",
    "resources.threads",
    "access.allow_guests",
    "access.allow_registration",
    "access.max_upload_gb",
    "environment.TZ",
}
"""Every key of a datasite that a running one cannot take up."""

OTHERWISE: dict[type, Any] = {bool: lambda old: not old, int: lambda old: old + 1, float: lambda old: old + 1.5}
OTHERWISE |= {str: lambda old: f"{old}x", tuple: lambda old: (*old, "x"), type(None): lambda old: "another password"}
OTHERWISE |= {RestartMode: lambda old: RestartMode.NEVER}


def varied(value: Any) -> list[tuple[str, Any]]:
    """``value`` with each of its keys changed, one at a time, under the dotted name of that key."""
    found: list[tuple[str, Any]] = []
    for field in fields(value):
        old = getattr(value, field.name)
        if field.name == "environment":
            found.append(("environment.TZ", replace(value, environment=(("TZ", "UTC"),))))
        elif is_dataclass(old):
            found += [(f"{field.name}.{key}", replace(value, **{field.name: new})) for key, new in varied(old)]
        elif not (isinstance(value, DatasiteSpec) and field.name == "name"):
            found.append((field.name, replace(value, **{field.name: OTHERWISE[type(old)](old)})))
    return found


VARIED = varied(ALPHA)


def test_every_field_says_how_it_applies() -> None:
    """Somebody who adds a key to fleet.yaml has to think of it: can a running fleet take it up? One word for one key:
    a group that speaks for all its parts is not contradicted by one of them."""
    for kind in (DatasiteSpec, DashboardSpec, FleetConfig):
        said = how_fields_apply(kind)
        assert {each.name for each in fields(kind)} == {key.split(".")[0] for key in said}
        assert set(said.values()) <= set(Applies)
    groups = (
        RestartPolicy,
        ProbePolicy,
        ProbeTiming,
        GpuRequest,
        Access,
        Capabilities,
        HostLimits,
        StartupPolicy,
        Hook,
    )
    assert [] == [each.name for group in groups for each in fields(group) if APPLIES in each.metadata]


def test_a_field_that_does_not_say_it_is_an_error() -> None:
    """Not a restart, and not silence."""

    @dataclass(frozen=True)
    class Careless:
        speed: int = 3

    with pytest.raises(TypeError):
        how_fields_apply(Careless)
    with pytest.raises(KeyError):
        applies(DatasiteSpec, "admin.shoe_size")


def test_what_restarts_a_datasite() -> None:
    """Whoever makes another key restart a line, or no longer, means it."""
    assert RESTARTS == {key for key, _ in VARIED if not is_live(ALPHA, key)}


@pytest.mark.parametrize(("key", "changed"), VARIED, ids=[key for key, _ in VARIED])
def test_one_changed_key_is_found_by_its_name(key: str, changed: DatasiteSpec) -> None:
    """And it restarts that line, or is taken up live, and the other lines stay untouched."""
    made = plan(fleet(ALPHA, BETA), fleet(changed, BETA))
    none, this = dict[str, tuple[str, ...]](), dict[str, tuple[str, ...]](alpha=(key,))
    because, live = (none, this) if is_live(ALPHA, key) else (this, none)
    assert Plan((), (), because, live, ("beta",), (), ()) == made


@pytest.mark.parametrize(("key", "changed"), VARIED, ids=[key for key, _ in VARIED])
def test_a_fingerprint_changes_with_what_restarts_and_with_nothing_else(key: str, changed: DatasiteSpec) -> None:
    """An adopted process is restarted after an upgrade only for what it cannot take up live."""
    assert is_live(ALPHA, key) == (fingerprint(ALPHA) == fingerprint(changed))


def test_a_fingerprint_holds_no_secret() -> None:
    """It lies in a run file: neither password nor environment can be read from it, nor guessed by the password."""
    told = replace(ALPHA, admin=Admin(password="hunter22-hunter22"), environment=(("TOKEN", "s3cret-value"),))
    assert 64 == len(fingerprint(told))
    assert not {"hunter22", "s3cret", "TOKEN"} & {
        word for word in ("hunter22", "s3cret", "TOKEN") if word in fingerprint(told)
    }
    assert fingerprint(told) == fingerprint(replace(told, admin=Admin(password="another-one")))


def test_a_dashboard_has_its_fingerprint_too() -> None:
    """Its port restarts it, its probes do not."""
    board = DashboardSpec()
    assert fingerprint(board) != fingerprint(replace(board, port=5001))
    assert fingerprint(board) == fingerprint(replace(board, restart=RestartPolicy(RestartMode.NEVER)))


def test_who_comes_who_goes_and_in_which_order() -> None:
    """Names are told in the order of the file; the embedded dashboard is a worker like any other."""
    made = plan(fleet(ALPHA, BETA), fleet(GAMMA, ALPHA, dashboard=DashboardSpec()))
    assert (("dashboard", "gamma"), ("beta",), ("alpha",)) == (made.add, made.remove, made.unchanged)
    assert (False, {}, {}) == (made.empty, made.restart, made.live)


def test_another_mock_of_a_dataset_is_taken_up() -> None:
    """What changes deep within the list is found under the key of the list; the same list again is no change."""
    before, after = (replace(ALPHA, datasets=(Dataset("x", Path("/x.csv"), mock),)) for mock in (Mock(), Mock(rows=7)))
    assert {"alpha": ("datasets",)} == plan(fleet(before), fleet(after)).live
    assert plan(fleet(before), fleet(replace(before))).empty


def test_live_and_restarting_keys_together_restart() -> None:
    """What restarts takes the live keys up anyway; only the keys that are to blame are told."""
    changed = replace(ALPHA, port=8090, heartbeat_interval=5.0, environment=(("TZ", "UTC"), ("LANG", "C")))
    made = plan(fleet(ALPHA), fleet(changed))
    assert ({"alpha": ("environment.LANG", "environment.TZ", "port")}, {}) == (made.restart, made.live)


def test_other_gpus_restart_a_line() -> None:
    """With the reason `gpu`, unless a key of its own says so already; a line that is not in both files is not told."""
    made = plan(fleet(ALPHA, BETA), fleet(ALPHA, replace(BETA, gpu=GpuRequest("none"))), ("alpha", "beta", "gone"))
    assert ({"alpha": ("gpu",), "beta": ("gpu.mode",)}, (), False) == (made.restart, made.unchanged, made.empty)
    assert "alpha restarts (gpu); beta restarts (gpu.mode)" == in_words(made)
    live = plan(fleet(ALPHA), fleet(replace(ALPHA, priority=3)), ("alpha",))
    assert ({"alpha": ("gpu",)}, {}) == (live.restart, live.live)


def test_the_same_file_changes_nothing() -> None:
    """A reload without a difference is empty, and says so."""
    made = plan(fleet(ALPHA, BETA), fleet(ALPHA, BETA))
    assert (True, ("alpha", "beta"), "nothing changed") == (made.empty, made.unchanged, in_words(made))


FLEET_WIDE: dict[str, Any] = {
    "name": "other",
    "shutdown_grace": 3.0,
    "startup": StartupPolicy(2),
    "host": HostLimits(max_memory_usage_gb=8.0),
    "on_event": (Hook(("true",)),),
    "state_dir": Path("/elsewhere"),
    "log_dir": Path("/elsewhere"),
}


@pytest.mark.parametrize("key", ["name", "shutdown_grace", "startup", "host", "on_event"])
def test_keys_of_the_fleet_are_taken_up(key: str) -> None:
    """They need no restart of anybody."""
    made = plan(fleet(ALPHA), replace(fleet(ALPHA), **{key: FLEET_WIDE[key]}))
    assert ((key,), (), ("alpha",), f"{key} applied") == (made.fleet, made.refused, made.unchanged, in_words(made))


@pytest.mark.parametrize("key", ["state_dir", "log_dir"])
def test_folders_of_a_running_fleet_stay_where_they_are(key: str) -> None:
    """Moving them is refused, by name."""
    assert (key,) == plan(fleet(ALPHA), replace(fleet(ALPHA), **{key: FLEET_WIDE[key]})).refused


def test_every_key_of_the_fleet_is_thought_of() -> None:
    """Each is a worker's, taken up, refused, or where the file lies."""
    assert {field.name for field in fields(FleetConfig)} == {*FLEET_WIDE, "path", "datasites", "dashboard"}


def test_only_what_a_worker_acts_on_is_handed_to_it() -> None:
    """Heartbeats, capabilities and limits are the datasite's own; probes and restarts are the supervisor's."""
    told = (
        "heartbeat_interval",
        "capabilities.data_types",
        "resources.disk_space_threshold_gb",
        "approved_code",
        "datasets",
        "training_bounds.noise",
    )
    assert [True] * 6 == [is_handed_over(ALPHA, key) for key in told]
    others = ("probes.liveness.period", "priority", "admin.password", "port")
    assert [False] * 4 == [is_handed_over(ALPHA, key) for key in others]


def test_a_plan_in_words_names_keys_and_no_values() -> None:
    """One line; a value may be a secret."""
    old = fleet(ALPHA, BETA, GAMMA)
    new = fleet(
        replace(ALPHA, environment=(("TOKEN", "s3cret"),), admin=Admin(password="hunter22x")),
        replace(BETA, probes=ProbePolicy(liveness=ProbeTiming(1.0, 1.0, 2))),
        DatasiteSpec("delta", 8083),
        shutdown_grace=1.0,
    )
    expected = "delta added; gamma removed; alpha restarts (environment.TOKEN); beta applies"
    expected += " probes.liveness.failure_threshold, probes.liveness.period, probes.liveness.timeout;"
    assert f"{expected} shutdown_grace applied" == in_words(plan(old, new))
    assert ("admin.password", "environment.TOKEN") == changed_keys(old.datasites[0], new.datasites[0])


def test_the_document_of_a_plan_is_what_json_holds() -> None:
    """The stable shape of `fleet reload --json`."""
    document = plan(fleet(ALPHA), fleet(replace(ALPHA, verbose=True), BETA)).to_dict()
    expected = {"add": ("beta",), "remove": (), "restart": {"alpha": ("verbose",)}, "live": {}, "unchanged": ()}
    assert {**expected, "fleet": (), "refused": ()} == document


def test_specs_of_every_kind_were_varied() -> None:
    """The enumeration above really goes down into every part of a spec."""
    parts = {"admin": Admin, "restart": RestartPolicy, "gpu": GpuRequest, "resources": Resources}
    parts["capabilities"] = Capabilities
    for under, kind in parts.items():
        expected = {f"{under}.{field.name}" for field in fields(kind)}
        assert expected == {key for key, _ in VARIED if key.startswith(f"{under}.")}
