"""``fleet.yaml``: what it means, and for each mistake the line, the column, the key and the next step."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet_common.contract import Approval, TrainingBounds
from supervisor import config
from supervisor.config import ConfigError, Problem
from supervisor.spec import (
    Admin,
    Capabilities,
    DashboardSpec,
    Dataset,
    DatasiteSpec,
    FleetConfig,
    GpuRequest,
    Hook,
    Mock,
    ProbePolicy,
    ProbeTiming,
    Resources,
    RestartMode,
    RestartPolicy,
    StartupPolicy,
)

ROOT = Path(__file__).parents[2]
HEAD = "version: 1\ndashboard: embedded\ndatasites:\n"
"""Three lines; the datasites begin in the fourth."""

Read = Callable[..., FleetConfig]
Judge = Callable[..., list[Problem]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Loads a text as ``fleet.yaml``, with the environment in the keywords."""

    def run(text: str, **environ: str) -> FleetConfig:
        path = tmp_path / "fleet.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return config.load(path, environ, lambda: "plant7.example.com")

    return run


@pytest.fixture
def judge(read: Read) -> Judge:
    """The problems of a text that has some."""

    def run(text: str, **environ: str) -> list[Problem]:
        with pytest.raises(ConfigError) as caught:
            read(text, **environ)
        return list(caught.value.problems)

    return run


def only(read: Read, settings_text: str, **environ: str) -> DatasiteSpec:
    """The datasite that is told ``settings_text`` beside name and port."""
    (datasite,) = read(f"{HEAD}  - {{name: a, port: 8080, {settings_text}}}\n", **environ).datasites
    return datasite


def places(problems: list[Problem]) -> list[tuple[int, int, str]]:
    return [(problem.line, problem.column, problem.key) for problem in problems]


# What it means


def test_the_shape_in_full(read: Read, tmp_path: Path) -> None:
    """The sample: defaults merged key by key, relative paths from the file, the embedded dashboard where none is named."""
    fleet = read(
        """
        version: 1
        name: detroit
        state_dir: state
        log_dir: /var/log/fleet
        dashboard: embedded
        shutdown_grace: 20
        defaults:
          heartbeat_interval: 15
          admin: {email: boss@pdm-factory.com, password: "${env:PASSWORD}"}
          environment: {TZ: America/Detroit, LANG: C}
        datasites:
          - {name: alpha, port: 8080}
          - {name: beta, port: 8081, dashboard_url: "https://central.automotive.com:5000/",
             admin: {name: Beta}, environment: {LANG: de}}
        """,
        PASSWORD="correct horse",
    )
    admin = Admin("boss@pdm-factory.com", password="correct horse")
    alpha = DatasiteSpec(
        "alpha",
        8080,
        advertise="localhost",
        dashboard_url="http://127.0.0.1:5000",
        heartbeat_interval=15.0,
        admin=admin,
        environment=(("TZ", "America/Detroit"), ("LANG", "C")),
    )
    beta = DatasiteSpec(
        "beta",
        8081,
        advertise="localhost",
        dashboard_url="https://central.automotive.com:5000",
        heartbeat_interval=15.0,
        admin=Admin("boss@pdm-factory.com", "Beta", "correct horse"),
        environment=(("TZ", "America/Detroit"), ("LANG", "de")),
    )
    folders = (tmp_path / "state", Path("/var/log/fleet"))
    assert FleetConfig("detroit", tmp_path / "fleet.yaml", *folders, (alpha, beta), DashboardSpec(), 20.0) == fleet


def test_what_is_left_out_is_what_the_spec_says(read: Read, tmp_path: Path) -> None:
    """Name and port are enough; every other default is the one of supervisor.spec."""
    fleet = read(f"{HEAD}  - {{name: a, port: 8080}}")
    plain = DatasiteSpec("a", 8080, advertise="localhost", dashboard_url=DashboardSpec().url)
    folders = (tmp_path / ".fleet", tmp_path / "logs")
    assert FleetConfig("fleet", tmp_path / "fleet.yaml", *folders, (plain,), DashboardSpec()) == fleet


def test_every_setting_of_a_datasite_arrives(read: Read) -> None:
    """Nothing that can be written is dropped on the way."""
    datasite = only(
        read,
        """
        hostname: 10.1.2.3, advertise: line.example.com, dashboard_url: "http://[::1]:5000/base/",
        heartbeat_url: "http://central:8888", heartbeat_interval: 1m30s, priority: -7, dev_mode: true, reset: on, verbose: yes,
        association_request_auto_approval: false,
        admin: {email: a@b.example.com, name: A B, password: tr0ub4dor&3},
        restart: {mode: on-failure, backoff: 1, backoff_max: 2m, jitter: 0, stable_after: 0, max_crashes: 0,
                  window: 1h, quarantine_retry: 0},
        probes: {startup: {period: 1h, failure_threshold: 24}, readiness: {period: 100ms, timeout: 1, failure_threshold: 2, success_threshold: 3},
                 liveness: {period: 4, timeout: 5, failure_threshold: 7, success_threshold: 1}},
        gpu: {count: 2, memory: 8GiB, exclusive: true},
        resources: {max_memory_usage_gb: 1.5, max_cpu_usage_percent: 200, max_concurrent_training_sessions: 2,
                    disk_space_threshold_gb: 10, network_bandwidth_limit_mbps: 100, threads: 4},
        capabilities: {max_concurrent_training: 9, supported_models: [sklearn], data_types: [], security_level: high},
        environment: {N: 0777, F: 1.50, B: on, E: "", Z: "~"}
        """.replace("\n", " "),
    )
    expected = DatasiteSpec(
        name="a",
        port=8080,
        hostname="10.1.2.3",
        advertise="line.example.com",
        dashboard_url="http://[::1]:5000/base",
        heartbeat_url="http://central:8888",
        heartbeat_interval=90.0,
        priority=-7,
        dev_mode=True,
        reset=True,
        verbose=True,
        association_request_auto_approval=False,
        admin=Admin("a@b.example.com", "A B", "tr0ub4dor&3"),
        restart=RestartPolicy(RestartMode.ON_FAILURE, 1.0, 120.0, 0.0, 0.0, 0, 3600.0, 0.0),
        probes=ProbePolicy(ProbeTiming(3600.0, 5.0, 24), ProbeTiming(0.1, 1.0, 2, 3), ProbeTiming(4.0, 5.0, 7, 1)),
        gpu=GpuRequest("some", (), 2, 8 * 1024**3, True),
        resources=Resources(1.5, 200.0, 2, 10.0, 100.0, 4),
        capabilities=Capabilities(9, ("sklearn",), (), "high"),
        environment=(("N", "0777"), ("F", "1.50"), ("B", "on"), ("E", ""), ("Z", "~")),
    )
    assert expected == datasite


UUID = "GPU-8a56a4bc-22e1-4b0c-9b0d-000000000001"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("auto", GpuRequest()),
        ("none", GpuRequest("none")),
        ("0", GpuRequest("some", ("0",), 1)),
        (UUID, GpuRequest("some", (UUID,), 1)),
        (f"[1, {UUID}]", GpuRequest("some", ("1", UUID), 2)),
        ("{count: 2}", GpuRequest("some", (), 2)),
        ("{memory: 500MB}", GpuRequest("some", (), 1, 500_000_000)),
        ("{devices: [0, 1], exclusive: true}", GpuRequest("some", ("0", "1"), 2, 0, True)),
        ('"${env:GPU}"', GpuRequest("some", ("3",), 1)),
    ],
)
def test_the_ways_to_ask_for_gpus(read: Read, written: str, expected: GpuRequest) -> None:
    """A word, an index, a UUID, a list, or a request in full."""
    assert expected == only(read, f"gpu: {written}", GPU="3").gpu


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30", 30.0), ("0.5", 0.5), ("30s", 30.0), ("5m", 300.0), ("2h", 7200.0), ("500ms", 0.5), ("1h 30m", 5400.0)],
)
def test_the_ways_to_write_a_time(read: Read, written: str, seconds: float) -> None:
    """Seconds, or numbers with units."""
    assert seconds == only(read, f"heartbeat_interval: {written}").heartbeat_interval


def test_the_capability_is_what_the_resource_allows(read: Read) -> None:
    """The dashboard is told as many trainings as run, unless told otherwise."""
    limited = only(read, "resources: {max_concurrent_training_sessions: 7}")
    assert 7 == limited.capabilities.max_concurrent_training


def test_a_wildcard_is_advertised_under_the_machines_name(read: Read) -> None:
    """Nobody can connect to 0.0.0.0; the machine's name is asked only then."""
    assert "plant7.example.com" == only(read, "hostname: 0.0.0.0").advertise
    assert "plant7.example.com" == only(read, 'hostname: "::"').advertise
    assert "x.example.com" == only(read, "hostname: 0.0.0.0, advertise: x.example.com").advertise
    assert "http://[::1]:8080" == only(read, 'hostname: "::1"').url


def test_the_machines_name_is_not_asked_without_need(tmp_path: Path) -> None:
    """Asking for it may wait for a name server."""
    path = tmp_path / "fleet.yaml"
    path.write_text(f"{HEAD}  - {{name: a, port: 8080}}")
    asked: list[bool] = []
    config.load(path, {}, lambda: asked.append(True) or "x")  # type: ignore[func-returns-value]
    assert [] == asked


def test_the_dashboard_in_full(read: Read) -> None:
    """Host and port of the embedded one can be chosen; the datasites follow."""
    fleet = read("version: 1\ndashboard: {port: 5001}\ndatasites: [{name: a, port: 8080}]")
    assert DashboardSpec(port=5001) == fleet.dashboard
    assert "http://127.0.0.1:5001" == fleet.datasites[0].dashboard_url


def test_start_order_and_hooks_arrive(read: Read, tmp_path: Path) -> None:
    """What the fleet as a whole is told: how many start at once, who is told of events, with secrets filled in."""
    (tmp_path / "url").write_text("https://hooks.example.com/T1/?key=s3cret&token=t\n")
    fleet = read(
        HEAD
        + """\
  - {name: a, port: 8080}
startup: {parallel: 3, stagger: 250ms}
on_event:
  - {command: [/usr/local/bin/page, --line, a b], events: [quarantined, unready], timeout: 500ms}
  - {webhook: "${file:url}"}
  - {command: [/bin/chat], environment: {TOKEN: "${file:url}", FLEET_ROOM: 7}}
"""
    )
    assert StartupPolicy(3, 0.25) == fleet.startup
    url = "https://hooks.example.com/T1/?key=s3cret&token=t"
    pager = Hook(("/usr/local/bin/page", "--line", "a b"), "", ("quarantined", "unready"), 0.5)
    chat = Hook(("/bin/chat",), environment=(("TOKEN", url), ("FLEET_ROOM", "7")))
    assert (pager, Hook((), url), chat) == fleet.on_event
    assert "s3cret" not in repr(fleet)


def test_datasets_arrive(read: Read, tmp_path: Path) -> None:
    """Paths are relative to the file; each of the mock rules; a datasite's own list stands instead of the defaults'."""
    fleet = read(
        """
        version: 1
        dashboard: embedded
        defaults:
          datasets: [{name: shared, path: "${env:DATA}/shared.NPZ"}]
        datasites:
          - {name: alpha, port: 8080}
          - name: beta
            port: 8081
            datasets:
              - {name: bearings, path: data/a.csv, mock: synthetic, description: "Vibration, 1 kHz"}
              - {name: Wear 2, path: /srv/b.parquet, mock: empty, description: ""}
              - {name: c, path: c.csv, mock: {rows: 1000}}
              - {name: d, path: d.csv, mock: {rows: same}}
              - {name: e, path: data/e.npz, mock: {path: data/mock.npz}}
          - {name: gamma, port: 8082, datasets: []}
        """,
        DATA="/data",
    )
    alpha, beta, gamma = (one.datasets for one in fleet.datasites)
    assert (Dataset("shared", Path("/data/shared.NPZ")),) == alpha
    assert (
        Dataset("bearings", tmp_path / "data/a.csv", description="Vibration, 1 kHz"),
        Dataset("Wear 2", Path("/srv/b.parquet"), Mock("empty")),
        Dataset("c", tmp_path / "c.csv", Mock(rows=1000)),
        Dataset("d", tmp_path / "d.csv", Mock(rows=None)),
        Dataset("e", tmp_path / "data/e.npz", Mock("file", path=tmp_path / "data/mock.npz")),
    ) == beta
    assert () == gamma


def test_bounds_for_trainings_arrive(read: Read) -> None:
    """A datasite's replace the defaults key by key, and a dataset's those of its datasite."""
    datasite = only(
        read,
        """
        training_bounds: {min_samples: 100, clip: 5, steps: {min: 10, max: 20}},
        datasets: [{name: a, path: a.csv}, {name: b, path: b.csv, training_bounds: {
          enforce: false, target: wear, features: [load, heat], batch_size: {min: 8, max: 64},
          learning_rate: {min: 0.001, max: 0.1}, epochs: {min: 1, max: 3}, clip: 0, noise: 0, exact_metrics: true}}]
        """.replace("\n", " "),
    )
    own = TrainingBounds(min_samples=100, clip=5.0, steps=(10.0, 20.0))
    assert (own, None) == (datasite.training_bounds, datasite.datasets[0].training_bounds)
    assert (
        TrainingBounds(
            False, 100, "wear", ("load", "heat"), (8.0, 64.0), (0.001, 0.1), (1.0, 3.0), (10.0, 20.0), 0.0, 0.0, True
        )
        == datasite.datasets[1].training_bounds
    )


HASH = f"sha256:{'0a' * 32}"


def test_approvals_arrive(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its dataset; a day means its end, by the machine's clock."""
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    datasite = only(
        read,
        f"""
        approved_code: [
          {{hash: "{HASH.upper().replace("SHA", "sha")}", dataset: My data}},
          {{hash: "{HASH}", dataset: wear, asset: x, by: s@centre.example.com, runs: 20, until: 2027-03-31}},
          {{hash: "{HASH}", dataset: wear, asset: [x, y], until: "2027-03-31T18:00Z",
            config: {{epochs: [1, 2], learning_rate: 1e-3, optimizer: sgd, nesterov: true}}}}]
        """.replace("\n", " "),
    )
    assert (
        Approval(HASH, "My data"),
        Approval(HASH, "wear", ("x",), "s@centre.example.com", {}, 20, "2027-04-01T00:00:00+02:00"),
        Approval(
            HASH, "wear", ("x", "y"), "",
            {"epochs": (1, 2), "learning_rate": (0.001,), "optimizer": ("sgd",), "nesterov": (True,)},
            0, "2027-03-31T18:00:00+00:00",
        ),
    ) == datasite.approved_code  # fmt: skip
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("dashboard", ["", "dashboard:", "dashboard: null"])
def test_no_embedded_dashboard(read: Read, dashboard: str) -> None:
    """Without it, the URL may come from the defaults."""
    fleet = read(
        f"version: 1\n{dashboard}\ndefaults: {{dashboard_url: 'http://c:5000'}}\ndatasites: [{{name: a, port: 1}}]"
    )
    assert (None, "http://c:5000") == (fleet.dashboard, fleet.datasites[0].dashboard_url)


def test_an_empty_value_takes_a_default_back(read: Read) -> None:
    """``key:`` in a datasite means the built-in default, and removes a variable from environment."""
    text = """
        version: 1
        dashboard: embedded
        defaults: {heartbeat_interval: 5, admin: {name: X, email: x@example.com}, environment: {A: 1, B: 2}}
        datasites:
          - name: a
            port: 8080
            heartbeat_interval:
            admin: {name: ~}
            environment: {A: ~}
        """
    (datasite,) = read(text).datasites
    assert 30.0 == datasite.heartbeat_interval
    assert Admin("x@example.com") == datasite.admin
    assert (("B", "2"),) == datasite.environment


def test_anchors_aliases_and_merge_keys(read: Read) -> None:
    """What YAML offers against repetition works; what is written beside ``<<`` wins, and so does the earlier source."""
    fleet = read(
        """
        version: 1
        dashboard: embedded
        datasites:
          - &alpha {name: alpha, port: 8080, verbose: true, admin: &admin {name: A}}
          - {<<: *alpha, name: beta, port: 8081}
          - {<<: [{name: gamma, port: 8082}, *alpha], admin: *admin}
        """
    )
    picked = [(one.name, one.port, one.verbose, one.admin.name) for one in fleet.datasites]
    assert [("alpha", 8080, True, "A"), ("beta", 8081, True, "A"), ("gamma", 8082, True, "A")] == picked


# Interpolation


def test_references_in_any_text(read: Read, tmp_path: Path) -> None:
    """Variables, defaults, files (one final newline taken off), several in one text, and a literal ``${``."""
    (tmp_path / "secret").write_text("from a file\n\n")
    written = '{A: "${env:X}-${env:Y:-y}", B: "${env:E:-d}", C: "${file:secret}", D: "$${env:X} $X $$"}'
    datasite = only(read, f"environment: {written}", X="x", E="")
    expected = (("A", "x-y"), ("B", "d"), ("C", "from a file\n"), ("D", "${env:X} $X $$"))
    assert expected == datasite.environment


def test_references_where_no_text_is_expected(read: Read) -> None:
    """Numbers, times and switches are converted."""
    text = """
        version: 1
        dashboard: embedded
        datasites:
          - name: ${env:NAME}
            port: ${env:PORT}
            heartbeat_interval: ${env:BEAT:-5s}
            dev_mode: ${env:DEV}
            resources: {max_memory_usage_gb: "${env:GB}"}
        """
    (datasite,) = read(text, NAME="a", PORT="8080", DEV="TRUE", GB="1.5").datasites
    picked = (datasite.name, datasite.port, datasite.heartbeat_interval, datasite.dev_mode)
    assert ("a", 8080, 5.0, True) == picked
    assert 1.5 == datasite.resources.max_memory_usage_gb


def test_an_empty_default_is_as_if_the_key_were_not_there(read: Read) -> None:
    """``${env:NAME:-}`` makes a setting optional; a variable that is set but empty does not pass for a password."""
    assert None is only(read, 'admin: {password: "${env:PASSWORD:-}"}').admin.password
    assert "long enough" == only(read, 'admin: {password: "${env:PASSWORD:-}"}', PASSWORD="long enough").admin.password
    assert (("A", ""),) == only(read, 'environment: {A: "${env:NOPE:-}"}').environment
    with pytest.raises(ConfigError):
        only(read, 'admin: {password: "${env:PASSWORD}"}', PASSWORD="")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("${env:NOPE}", r"NOPE is not set; export it, or write a default: \$\{env:NOPE:-…\}"),
        ("${file:nope}", r"cannot read the file .*/nope: No such file or directory; create it"),
        ("${file:.}", r"cannot read the file .*: Is a directory"),
        ("${file:latin}", r"latin is not UTF-8"),
        ("${file:big}", r"big is larger than 64 KiB"),
        ("${NOPE}", r"expected \$\{env:NAME\}"),
        ("${env:}", r"expected \$\{env:NAME\}"),
        ("${env:A:-${env:B}}", r"expected \$\{env:NAME\}"),
        ("${env:NOPE", r"expected \$\{env:NAME\}"),
    ],
)
def test_a_reference_to_nothing(judge: Judge, tmp_path: Path, written: str, message: str) -> None:
    """It is named where it stands, once, with the next step; the value is then not judged on top."""
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "big").write_bytes(b"x" * 70000)
    problem, *more = judge(f'{HEAD}  - name: a\n    port: 8080\n    admin: {{password: "{written}"}}', B="b")
    assert (6, 23, "datasites[0].admin.password") == places([problem])[0]
    assert re.search(message, problem.message)
    assert [] == more


SECRET = "Xyzzy-Geheim"
LEAKY = [
    "name: {}",
    "port: {}",
    "hostname: '{} !'",
    "advertise: '{} !'",
    "dashboard_url: {}",
    "heartbeat_interval: {}",
    "dev_mode: {}",
    "gpu: {}",
    "gpu: [{}]",
    "gpu: {{memory: {}, count: {}, exclusive: {}}}",
    "admin: {{email: {}}}",
    "admin: {{name: [{}], password: [{}]}}",
    "restart: {{mode: {}, backoff: {}, jitter: {}}}",
    "probes: {}",
    "resources: {{threads: {}, max_memory_usage_gb: {}}}",
    "capabilities: {{data_types: {}}}",
    "datasets: [{{name: '{} !', path: {}, mock: {}}}]",
    "datasets: [{{name: a, path: {}.txt, mock: {{rows: {}}}}}]",
    "environment: {}",
    "environment: {{A: [{}], 9: {}}}",
    "pasword: {}",
]


@pytest.mark.parametrize("template", LEAKY)
def test_a_secret_is_in_no_message(judge: Judge, tmp_path: Path, template: str) -> None:
    """Wherever a secret from the environment or a file lands, the error does not show it."""
    (tmp_path / "secret").write_text(SECRET)
    for reference in ('"${env:SECRET}"', '"${file:secret}"', '"x${env:NOPE:-' + SECRET + '}"'):
        problems = judge(f"{HEAD}  - name: a\n    port: 8080\n    {template.replace('{}', reference)}", SECRET=SECRET)
        assert problems
        shown = "".join(map(str, problems)) + repr(problems) + repr(ConfigError(tuple(problems)))
        assert SECRET not in shown


@pytest.mark.parametrize("password", ["geheim", "changethis", "Password123", "geheim!!" * 10, "geheim!!\\nzwei"])
def test_a_refused_password_is_not_shown(judge: Judge, password: str) -> None:
    """A literal password is as secret as any."""
    (problem,) = judge(f'{HEAD}  - name: a\n    port: 8080\n    admin: {{password: "{password}"}}')
    assert (6, 23, "datasites[0].admin.password") == places([problem])[0]
    assert password.lower() not in str(problem).lower().replace("`fleet", "").replace("a password", "")


def test_a_valid_configuration_does_not_show_its_secrets(read: Read) -> None:
    """Not even in a debugger's repr."""
    datasite = only(read, 'admin: {password: "${env:S}"}, environment: {TOKEN: "${env:S}"}', S=SECRET)
    assert SECRET == datasite.admin.password
    assert SECRET not in repr(datasite)


@pytest.mark.parametrize("text", ["password: *{}", "password: !{} x", "password: '{}", "password: {}: {}"])
def test_a_syntax_error_shows_no_value(judge: Judge, text: str) -> None:
    """YAML's own words are passed on only where they hold no value."""
    problems = judge(text.replace("{}", SECRET.replace("-", "")))
    assert SECRET.replace("-", "") not in "".join(map(str, problems))


# Mistakes


SINGLE = [
    # settings of a datasite in line 4; column of the value, key, message
    ("port: 0", 18, "port", r"expected a port, 1 to 65535, not 0"),
    ("port: 65536", 18, "port", r"1 to 65535, not 65536"),
    ("port: -1", 18, "port", r"1 to 65535, not -1"),
    ("port: 80.5", 18, "port", r"not 80\.5"),
    ("port: '8080'", 18, "port", "remove the quotes"),
    ("port: 08080", 18, "port", "remove the leading 0"),
    ("port: 01234", 18, "port", "remove the leading 0"),
    ("port: 8_080", 18, "port", "in plain decimal digits"),
    ("port: 0x1F90", 18, "port", "in plain decimal digits"),
    ("port: 22:22", 18, "port", "in plain decimal digits"),
    ("port: no", 18, "port", "not no"),
    ("port: [1]", 18, "port", "not a list"),
    ("port: {a: 1}", 18, "port", "not a mapping"),
    ("port: 99999999999999999999999999", 18, "port", "expected a port"),
    ("name: no", 18, "name", 'YAML reads no as false; put it in quotes: "no"'),
    ("name: On", 18, "name", 'YAML reads On as true; put it in quotes: "On"'),
    (
        "name: Line A",
        18,
        "name",
        r"a-z, 0-9, - and _, beginning with a letter or digit, at most 63 characters, not 'Line A'; write line_a",
    ),
    ("name: Straße 1", 18, "name", "write strae_1"),
    ("name: _x", 18, "name", "write x"),
    ("name: ../x", 18, "name", "write x"),
    (f"name: {'x' * 64}", 18, "name", f"write {'x' * 63}$"),
    ("name: dashboard", 18, "name", "fleet itself uses the name dashboard"),
    ("name: fleet", 18, "name", "fleet itself uses the name fleet"),
    ("name: ''", 18, "name", "not an empty value"),
    ("name: 'a\\nb'", 18, "name", "expected a name"),
    ("hostname: 'a b'", 22, "hostname", "a host name or an IP address, without scheme or port, not 'a b'"),
    ("hostname: 'h:80'", 22, "hostname", "without scheme or port"),
    ("hostname: 1.2.3.400", 22, "hostname", "a host name or an IP address"),
    ("hostname: -x", 22, "hostname", "a host name or an IP address"),
    ("advertise: 0.0.0.0", 23, "advertise", "at which others reach this machine, not 0.0.0.0"),
    ("dashboard_url: central", 27, "dashboard_url", "must begin with http:// or https://"),
    ("dashboard_url: ftp://c", 27, "dashboard_url", "must begin with http"),
    ("dashboard_url: 'http:c'", 27, "dashboard_url", "must begin with http"),
    ("dashboard_url: http://", 27, "dashboard_url", "host is missing"),
    ("dashboard_url: http://c:0", 27, "dashboard_url", "port must be 1 to 65535"),
    ("dashboard_url: http://c:70000", 27, "dashboard_url", "the host or the port (.*) is not valid"),
    ("dashboard_url: 'http://c:'", 27, "dashboard_url", "port must be"),
    ("dashboard_url: 'http://[::1'", 27, "dashboard_url", "the host or the port (.*) is not valid"),
    ("dashboard_url: http://u:p@c", 27, "dashboard_url", "remove the user and password"),
    ("dashboard_url: http://c/?a=b", 27, "dashboard_url", "remove the [?] or # and what follows"),
    ("heartbeat_url: http://a b", 27, "heartbeat_url", "the host is missing or not valid"),
    ("heartbeat_interval: 0", 32, "heartbeat_interval", "more than 0"),
    ("heartbeat_interval: 30 sec", 32, "heartbeat_interval", "500ms, 30s, 5m, 2h, not '30 sec'"),
    ("heartbeat_interval: .inf", 32, "heartbeat_interval", "a time"),
    ("heartbeat_interval: .nan", 32, "heartbeat_interval", "a time"),
    ("heartbeat_interval: 8d", 32, "heartbeat_interval", "at most 7d"),
    ("heartbeat_interval: 1:30", 32, "heartbeat_interval", "in plain decimal digits, not 1:30"),
    ("dev_mode: 1", 22, "dev_mode", "expected true or false, not 1"),
    ("dev_mode: 'true'", 22, "dev_mode", "remove the quotes"),
    ("admin: {email: x}", 27, "admin.email", "an e-mail address such as .*, not 'x'"),
    ("admin: {email: x@plant.local}", 27, "admin.email", "special-use"),
    ("admin: {password: short}", 30, "admin.password", "at least 8 characters"),
    ("admin: {password: [a]}", 30, "admin.password", "not a list"),
    ("admin: x", 19, "admin", "expected a mapping"),
    ("admin: {e_mail: x}", 20, "admin.e_mail", r"did you mean email\?"),
    ("restart: {mode: sometimes}", 28, "restart.mode", "one of always, on-failure, never, not 'sometimes'"),
    ("restart: {jitter: 2}", 30, "restart.jitter", r"a number, 0 to 1, not 2"),
    ("restart: {backoff: 2m}", 21, "restart.backoff_max", "at least backoff, which is 120 s"),
    ("restart: {backoff: 9, backoff_max: 3}", 47, "restart.backoff_max", "at least backoff, which is 9 s"),
    ("restart: {max_crashes: -1}", 35, "restart.max_crashes", r"0 to 1000"),
    ("probes: {liveness: {period: 0}}", 40, "probes.liveness.period", "more than 0"),
    ("probes: {liveness: {success_threshold: 2}}", 51, "probes.liveness.success_threshold", "whole number, 1, not 2"),
    ("priority: 1001", 22, "priority", r"a whole number, -1000 to 1000, not 1001"),
    ("priority: high", 22, "priority", r"-1000 to 1000, not 'high'"),
    ("startup: {parallel: 1}", 12, "startup", "startup belongs at the top level or under probes"),
    ("on_event: []", 12, "on_event", "on_event belongs at the top"),
    ("probes: {startup: 3}", 30, "probes.startup", "expected a mapping"),
    ("probes: {startup: {period: 0}}", 39, "probes.startup.period", "a time of more than 0 and at most 7d"),
    ("probes: {startup: {failure_threshold: 0}}", 50, "probes.startup.failure_threshold", r"1 to 100000, not 0"),
    ("probes: {startup: {success_threshold: 2}}", 50, "probes.startup.success_threshold", "whole number, 1, not 2"),
    ("probes: {startup: {perid: 1}}", 31, "probes.startup.perid", r"did you mean period\?"),
    ("probes: {timeout: 3}", 21, "probes.timeout", "under probes.readiness or under probes.liveness"),
    ("gpu: off", 17, "gpu", "YAML reads off as false, write none"),
    ("gpu: all", 17, "gpu", "expected auto, none or a GPU's index .* or UUID .*, not 'all'"),
    ("gpu: '0'", 17, "gpu", "remove the quotes"),
    ("gpu: -1", 17, "gpu", "not -1"),
    ("gpu: [0, auto]", 21, "gpu[1]", "expected a GPU's index"),
    ("gpu: []", 17, "gpu", "at least one"),
    ("gpu: [0, 0]", 17, "gpu", "no GPU twice"),
    ("gpu: {count: 0}", 25, "gpu.count", r"1 to 1000, not 0"),
    ("gpu: {memory: lots}", 26, "gpu.memory", "512MiB, 8GiB, 10GB, not 'lots'"),
    ("gpu: {memory: -1}", 26, "gpu.memory", "a size"),
    ("gpu: {cuont: 1}", 18, "gpu.cuont", r"did you mean count\?"),
    ("gpu: {devices: [0], count: 1}", 39, "gpu.count", "either devices or count"),
    ("resources: {threads: 1.5}", 33, "resources.threads", "a whole number"),
    ("resources: {max_memory_usage_gb: 8GB}", 45, "resources.max_memory_usage_gb", "a number, 0 or more, not '8GB'"),
    ("capabilities: {data_types: tabular}", 39, "capabilities.data_types", "expected a list"),
    ("capabilities: {data_types: [{}]}", 40, "capabilities.data_types[0]", "not a mapping"),
    ("datasets: x", 22, "datasets", "expected a list"),
    ("datasets: [x]", 23, "datasets[0]", "expected a mapping"),
    ("datasets: [{name: x}]", 23, "datasets[0].path", "this key is required. A CSV, Parquet or NPZ file"),
    ("datasets: [{path: x.csv}]", 23, "datasets[0].name", "this key is required"),
    ("datasets: [{name: a/b, path: x.csv}]", 30, "datasets[0].name", "letters, digits, spaces and . _ -, .*not 'a/b'"),
    ("datasets: [{name: a, path: x.xlsx}]", 39, "datasets[0].path", r"a \.csv, \.parquet or \.npz file, .*'x\.xlsx'"),
    ("datasets: [{name: a, path: ~/x.csv}]", 39, "datasets[0].path", "~ is not expanded"),
    ("datasets: [{name: a, path: x.csv, mock: real}]", 52, "datasets[0].mock", "synthetic or empty, not 'real'"),
    ("datasets: [{name: a, path: x.csv, mock: {}}]", 52, "datasets[0].mock.path", "expected either path or rows"),
    ("datasets: [{name: a, path: x.csv, mock: {path: m.npz}}]", 52, "datasets[0].mock", r"a \.csv file, like the data"),
    (
        "datasets: [{name: a, path: x.csv, mock: {path: m.csv, rows: 3}}]",
        72,
        "datasets[0].mock.rows",
        "either path or rows",
    ),
    (
        "datasets: [{name: a, path: x.csv, mock: {rows: all}}]",
        59,
        "datasets[0].mock.rows",
        r"1 to 100000, or same .*, not 'all'",
    ),
    ("datasets: [{name: a, path: x.csv, mok: empty}]", 46, "datasets[0].mok", r"did you mean mock\?"),
    (
        "datasets: [{name: a, path: x.csv}, {name: a, path: y.csv}]",
        22,
        "datasets",
        "datasets 1 and 2 have the same name",
    ),
    (
        f"approved_code: ['sha256:{'0a' * 32}']",
        28,
        "approved_code[0]",
        f"an approval needs the dataset that the code may read; write {{hash: sha256:{'0a' * 32}, dataset: NAME}}",
    ),
    ("approved_code: [x]", 28, "approved_code[0]", "write {hash: sha256:…, dataset: NAME}"),
    (f"approved_code: [{{hash: 'sha256:{'0a' * 32}'}}]", 28, "approved_code[0].dataset", "this key is required"),
    ("approved_code: [{hash: x, dataset: d}]", 35, "approved_code[0].hash", "the SHA-256 of a function's source"),
    (
        f"approved_code: [{{hash: 'sha256:{'0a' * 32}', dataset: d, runs: 0}}]",
        128,
        "approved_code[0].runs",
        "a whole number, 1 to 100000, not 0",
    ),
    (
        f"approved_code: [{{hash: 'sha256:{'0a' * 32}', dataset: d, until: soon}}]",
        129,
        "approved_code[0].until",
        "a day such as 2027-03-31, .*not 'soon'",
    ),
    (
        f"approved_code: [{{hash: 'sha256:{'0a' * 32}', dataset: d, config: [a]}}]",
        130,
        "approved_code[0].config",
        "expected a mapping",
    ),
    (
        f"approved_code: [{{hash: &h 'sha256:{'0a' * 32}', dataset: d}}, {{hash: *h, dataset: d, runs: 2}}]",
        27,
        "approved_code",
        "entries 1 and 2 approve the same code for the same data and user; keep one",
    ),
    ("training_bounds: {min_sample: 3}", 30, "training_bounds.min_sample", r"did you mean min_samples\?"),
    ("training_bounds: {noise: 2}", 37, "training_bounds.noise", "a number, 0 to 1, not 2"),
    ("training_bounds: {epochs: {min: 1}}", 38, "training_bounds.epochs.max", "this key is required. The most"),
    ("training_bounds: {epochs: {min: 2, max: 1}}", 52, "training_bounds.epochs.max", "at least min, which is 2"),
    ("training_bounds: {epochs: 3}", 38, "training_bounds.epochs", "expected a mapping"),
    ("environment: [A]", 25, "environment", "expected a mapping"),
    ("environment: {A: [b]}", 29, "environment.A", "not a list"),
    ("environment: {A: }", 29, "environment.A", r"text \(\"\" for an empty value\)"),
    ("environment: {A-B: c}", 26, "environment.A-B", "letters, digits and _"),
    ("environment: {SYFT_PORT: 1}", 26, "environment.SYFT_PORT", "fleet configures PySyft"),
    ("environment: {SERVER_UID: 1}", 26, "environment.SERVER_UID", "keeps it in state_dir"),
    ("environment: {SERVER_PRIVATE_KEY: 1}", 26, "environment.SERVER_PRIVATE_KEY", "keeps it in state_dir"),
    ("environment: {DEFAULT_ROOT_EMAIL: 1}", 26, "environment.DEFAULT_ROOT_EMAIL", "use admin.email"),
    ("environment: {DEFAULT_ROOT_PASSWORD: 1}", 26, "environment.DEFAULT_ROOT_PASSWORD", "use admin.password"),
    ("environment: {CUDA_VISIBLE_DEVICES: 1}", 26, "environment.CUDA_VISIBLE_DEVICES", "use gpu"),
    ("environment: {OMP_NUM_THREADS: 1}", 26, "environment.OMP_NUM_THREADS", "use resources.threads"),
    ("environment: {FLEET_X: 1}", 26, "environment.FLEET_X", "reserved for fleet"),
    ("heartbeat_intervall: 3", 12, "heartbeat_intervall", r"did you mean heartbeat_interval\?"),
    ("Verbose: true", 12, "Verbose", r"did you mean verbose\?"),
    ("dev-mode: true", 12, "dev-mode", r"did you mean dev_mode\?"),
    ("password: abcdefgh", 12, "password", "password belongs under admin"),
    ("shutdown_grace: 3", 12, "shutdown_grace", "shutdown_grace belongs at the top"),
    ("xyzzy: 3", 12, "xyzzy", "expected one of hostname, advertise,"),
    ("? [a] : 1", 14, "", "expected a plain word as the key"),
    ("~: 1", 12, "", "expected a plain word as the key"),
    ("verbose: !!python/name:os.system x", 21, "verbose", "fleet.yaml has no tags"),
    ("verbose: !x [1]", 21, "verbose", "fleet.yaml has no tags"),
    ("<<: 3", 16, "", "needs the alias of a mapping"),
]


@pytest.mark.parametrize(("written", "column", "key", "message"), SINGLE, ids=[row[0] for row in SINGLE])
def test_one_mistake(judge: Judge, written: str, column: int, key: str, message: str) -> None:
    """Each is one problem, at its own line and column, under its full key, with what is allowed."""
    rest = "".join(f"\n    {line}" for line in ("name: a", "port: 8080") if not written.startswith(line.split(":")[0]))
    problem, *more = judge(f"{HEAD}  -       {written}".replace("-       ", "- {      ", 1).rstrip() + _flow(rest))
    assert [] == more
    # The row's columns are counted from a key in column 12.
    assert (4, column, ".".join(filter(None, ("datasites[0]", key)))) == places([problem])[0]
    assert re.search(message, problem.message)


def _flow(rest: str) -> str:
    """The other settings of the same flow mapping."""
    return "".join(f",\n    {line.strip()}" for line in rest.splitlines() if line.strip()) + "}\n"


TOP = [
    # the whole file; line, column, key, message
    ("", 0, 0, "", "the file is empty; create one with `fleet init`"),
    ("# nothing\n", 0, 0, "", "the file is empty"),
    ("hello", 1, 1, "", "expected a mapping at the top"),
    ("- a\n- b", 1, 1, "", "expected a mapping at the top"),
    ("a: [1\nb: 2", 2, 2, "", "YAML syntax error"),
    ("a: 'x", 1, 6, "", "YAML syntax error: while scanning a quoted scalar"),
    ("a: b: c", 1, 5, "", "YAML syntax error: mapping values are not allowed"),
    ("a:\n\t- b", 2, 1, "", "spaces, not tabs"),
    ("a: {b: ${env:X}}", 1, 9, "", 'put "[$]{…}" in quotes'),
    ("a: *b", 1, 4, "", "YAML syntax error: found undefined alias"),
    ("a: 1\n--- \nb: 2", 2, 1, "", "YAML syntax error: expected a single document"),
    ("a: 1\nb: \x07", 2, 4, "", "this control character; delete it"),
    ("a: " + "[" * 40, 1, 35, "", "nested more than 32 levels"),
    ("a: " + "[" * 100000, 1, 35, "", "nested more than 32 levels"),
    (
        "datasites: [{name: a, port: 1, dashboard_url: 'http://c'}]",
        1,
        1,
        "version",
        "this key is required. The version",
    ),
    ("version: 2\ndashboard: embedded\ndatasites: [{name: a, port: 1}]", 1, 10, "version", "1, not 2"),
    ("version: '1'\ndashboard: embedded\ndatasites: [{name: a, port: 1}]", 1, 10, "version", "remove the quotes"),
    ("version: 1", 1, 1, "datasites", "expected at least one datasite"),
    ("version: 1\ndatasites:", 2, 11, "datasites", "expected at least one datasite"),
    ("version: 1\ndatasites: []", 2, 12, "datasites", "expected at least one datasite"),
    ("version: 1\ndatasites: {a: 1}", 2, 12, "datasites", "expected a list of datasites"),
    ("version: 1\ndatasites: a", 2, 12, "datasites", "expected a list of datasites"),
    ("version: 1\ndatasites: [a]", 2, 13, "datasites[0]", "expected a datasite"),
    ("version: 1\ndatasites: [[]]", 2, 13, "datasites[0]", "expected a datasite"),
    ("version: 1\ndatasites: [~]", 2, 13, "datasites[0]", "expected a datasite"),
    ("version: 1\ndatasites: [" + "{}, " * 1001 + "]", 2, 12, "datasites", "at most 1000"),
    (HEAD + "  - port: 80", 4, 5, "datasites[0].name", "this key is required. The datasite's name: a-z"),
    (HEAD + "  - name: a", 4, 5, "datasites[0].port", "this key is required. The TCP port"),
    (HEAD + "  - name: a\n    port:", 5, 10, "datasites[0].port", "this key is required"),
    (HEAD + "  - {name: a, port: 1}\nstate_dir: ~/x", 5, 12, "state_dir", r"write \$\{env:HOME\}"),
    (HEAD + "  - {name: a, port: 1}\nlog_dir: ''", 5, 10, "log_dir", "not an empty value"),
    (HEAD + "  - {name: a, port: 1}\nshutdown_grace: -1", 5, 17, "shutdown_grace", "0 or more"),
    (HEAD + "  - {name: a, port: 1}\nstartup: 3", 5, 10, "startup", "expected a mapping"),
    (HEAD + "  - {name: a, port: 1}\nstartup: {parallel: -1}", 5, 21, "startup.parallel", r"0 to 1000, not -1"),
    (
        HEAD + "  - {name: a, port: 1}\nstartup: {stagger: x}",
        5,
        20,
        "startup.stagger",
        "a time of 0 or more and at most 7d, .*500ms",
    ),
    (HEAD + "  - {name: a, port: 1}\nstartup: {paralel: 3}", 5, 11, "startup.paralel", r"did you mean parallel\?"),
    (
        HEAD + "  - {name: a, port: 1}\non_event: x",
        5,
        11,
        "on_event",
        "expected a list, each entry beginning with `- `",
    ),
    (HEAD + "  - {name: a, port: 1}\non_event: [{}]", 5, 12, "on_event[0].command", "either command or webhook"),
    (
        HEAD + "  - {name: a, port: 1}\non_event: [{command: [a], webhook: http://c}]",
        5,
        22,
        "on_event[0].command",
        "either command or webhook",
    ),
    (
        HEAD + "  - {name: a, port: 1}\non_event: [{webhook: http://c, environment: {A: b}}]",
        5,
        45,
        "on_event[0].environment",
        "a webhook has no environment",
    ),
    (HEAD + "  - {name: a, port: 1}\non_event: [{command: a}]", 5, 22, "on_event[0].command", "expected a list"),
    (HEAD + "  - {name: a, port: 1}\non_event: [{comand: [a]}]", 5, 13, "on_event[0].comand", r"mean command\?"),
    (HEAD + "  - {name: a, port: 1}\non_event: [{webhook: c}]", 5, 22, "on_event[0].webhook", "begin with http://"),
    (
        HEAD + "  - {name: a, port: 1}\non_event: [{command: [a], events: [crashed]}]",
        5,
        35,
        "on_event[0].events",
        "kinds of events, not crashed; known: starting, ready, .*quarantined",
    ),
    (
        HEAD + "  - {name: a, port: 1}\non_event: [{command: [a], timeout: 0}]",
        5,
        36,
        "on_event[0].timeout",
        "a time of more than 0",
    ),
    (
        HEAD + "  - {name: a, port: 1}\non_event: [" + "{command: [a]}, " * 33 + "]",
        5,
        11,
        "on_event",
        "at most 32 entries",
    ),
    (HEAD + "  - {name: a, port: 1}\ndefaults: 3", 5, 11, "defaults", "expected a mapping"),
    (HEAD + "  - {name: a, port: 1}\ndefaults: {port: 3}", 5, 12, "defaults.port", "port belongs .* in a datasite"),
    (HEAD + "  - {name: a, port: 1}\nhostname: x", 5, 1, "hostname", "under dashboard or in a datasite"),
    (HEAD + "  - {name: a, port: 1}\nname: x\nname: y", 6, 1, "name", "first on line 5 and again on line 6"),
    (
        "version: 1\ndashboard: yes\ndatasites: [{name: a, port: 1}]",
        2,
        12,
        "dashboard",
        "expected embedded .*, not yes",
    ),
    ("version: 1\ndashboard: [a]\ndatasites: [{name: a, port: 1}]", 2, 12, "dashboard", "not a list"),
    ("version: 1\ndashboard: {port: x}\ndatasites: [{name: a, port: 1}]", 2, 19, "dashboard.port", "a port"),
    ("version: 1\ndashboard: {url: x}\ndatasites: [{name: a, port: 1}]", 2, 13, "dashboard.url", "unknown key"),
    ("version: 1\ndatasites:\n  - name: a\n    port: 1", 3, 5, "datasites[0].dashboard_url", "dashboard: embedded"),
]


@pytest.mark.parametrize(("text", "line", "column", "key", "message"), TOP, ids=[row[0][-40:] for row in TOP])
def test_one_mistake_at_the_top(judge: Judge, text: str, line: int, column: int, key: str, message: str) -> None:
    """Syntax and shape: one problem, at its place, with what is allowed."""
    problem, *more = judge(text)
    assert [] == more
    assert (line, column, key) == places([problem])[0]
    assert re.search(message, problem.message)


CLASHES = [
    # two datasites in lines 4 and 5; column in line 5, key, message
    ("{name: a, port: 1}", "{name: a, port: 2}", 12, "name", r"same name as datasites\[0\] \(line 4\)"),
    (
        "{name: a-b, port: 1}",
        "{name: a_b, port: 2}",
        12,
        "name",
        r"same name as datasites\[0\] .*, since - and _ count as equal",
    ),
    (
        "{name: a, port: 80}",
        "{name: b, port: 80}",
        21,
        "port",
        r"same port as datasites\[0\] \(line 4\), .*; 81 is free",
    ),
    (
        "{name: a, port: 80, hostname: 0.0.0.0}",
        "{name: b, port: 80, hostname: 10.0.0.1}",
        21,
        "port",
        r"same port as datasites\[0\]",
    ),
    (
        "{name: a, port: 80, hostname: 127.0.0.1}",
        "{name: b, port: 80}",
        21,
        "port",
        r"same port as datasites\[0\]",
    ),
    (
        "{name: a, port: 1}",
        "{name: b, port: 5000}",
        21,
        "port",
        "same port as the embedded dashboard, .*; 5001 is free",
    ),
    ("{name: a, port: 1}", "{name: b, port: 5000, hostname: '::'}", 21, "port", "same port as the embedded dashboard"),
]


@pytest.mark.parametrize(("first", "second", "column", "key", "message"), CLASHES)
def test_two_that_clash(judge: Judge, first: str, second: str, column: int, key: str, message: str) -> None:
    """The second is at fault, and is told of the first."""
    problem, *more = judge(f"{HEAD}  - {first}\n  - {second}")
    assert [] == more
    assert (5, column, f"datasites[1].{key}") == places([problem])[0]
    assert re.search(message, problem.message)


def test_one_port_on_two_addresses_is_no_clash(read: Read) -> None:
    """Ports are counted per address."""
    text = f"{HEAD}  - {{name: a, port: 80, hostname: 10.0.0.1}}\n  - {{name: b, port: 80, hostname: 10.0.0.2}}"
    assert [80, 80] == [one.port for one in read(text).datasites]


def test_a_clash_shows_beside_other_mistakes(judge: Judge) -> None:
    """A mistake in one datasite hides no clash between its name and another's."""
    problems = judge(f"{HEAD}  - {{name: a, port: 1, gpu: x}}\n  - {{name: a, port: 1, nope: 1}}")
    expected = [(4, 29, "gpu"), (5, 12, "name"), (5, 21, "port"), (5, 24, "nope")]
    assert expected == [(line, column, key.rpartition(".")[2]) for line, column, key in places(problems)]


def test_all_at_once_in_the_order_of_the_file(judge: Judge) -> None:
    """One run shows everything there is to correct."""
    problems = judge(
        """\
        version: 3
        dashboard: embedded
        defaults:
          hostname: a b
          heartbeat_intervall: 30
        datasites:
          - name: Alpha
            port: 0
            admin: {email: x, password: "${env:NOPE}"}
          - name: beta
            name: gamma
            gpu: maybe
        """
    )
    expected = [
        (1, 10, "version"),
        (4, 13, "defaults.hostname"),
        (5, 3, "defaults.heartbeat_intervall"),
        (7, 11, "datasites[0].name"),
        (8, 11, "datasites[0].port"),
        (9, 20, "datasites[0].admin.email"),
        (9, 33, "datasites[0].admin.password"),
        (10, 5, "datasites[1].port"),
        (11, 5, "datasites[1].name"),
        (12, 10, "datasites[1].gpu"),
    ]
    assert expected == places(problems)


def test_a_wrong_default_is_one_problem(judge: Judge) -> None:
    """However many datasites it reaches, and also when they all override it."""
    many = "".join(f"  - {{name: a{i}, port: {i + 1}}}\n" for i in range(20))
    overridden = "  - {name: a, port: 1, restart: {backoff: 1}}\n"
    for datasites in (many, overridden):
        problems = judge(
            f"version: 1\ndashboard: embedded\ndefaults: {{restart: {{backoff: x}}}}\ndatasites:\n{datasites}"
        )
        assert [(3, 31, "defaults.restart.backoff")] == places(problems)


def test_a_mistake_behind_an_anchor_is_one_problem(judge: Judge) -> None:
    """It is corrected where it is written."""
    problems = judge(f"{HEAD}  - &a {{name: a, port: 1, gpu: x}}\n  - {{<<: *a, name: b, port: 2}}")
    assert [(4, 32, "datasites[0].gpu")] == places(problems)


def test_how_a_problem_reads(judge: Judge, tmp_path: Path) -> None:
    """``file:line:column: key: message``, one line each, nothing a terminal would obey."""
    problems = judge(f'{HEAD}  - {{name: a, port: 70000, "x\\e[31m": 1}}')
    place = tmp_path / "fleet.yaml"
    assert f"{place}:4:21: datasites[0].port: expected a port, 1 to 65535, not 70000" == str(problems[0])
    assert "\x1b" not in str(ConfigError(tuple(problems)))
    assert 2 == len(str(ConfigError(tuple(problems))).splitlines())


# Files


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, a folder, not UTF-8, too large: one clear line, no traceback."""
    (tmp_path / "latin").write_bytes(b"version: 1\nname: caf\xe9\n")
    (tmp_path / "large").write_bytes(b"#" * (1024 * 1024 + 1))
    (tmp_path / "utf16").write_text("version: 1", encoding="utf-16")
    expected = {
        "nope": "file not found; create one with `fleet init`, or name another with -f",
        ".": "cannot read the file: Is a directory",
        "latin:2:10": "the file is not UTF-8 text; save it as UTF-8",
        "utf16:1:1": "the file is not UTF-8 text; save it as UTF-8",
        "large": "the file is larger than 1 MiB; check that it is the right file",
    }
    for place, message in expected.items():
        with pytest.raises(ConfigError) as caught:
            config.load(tmp_path / place.partition(":")[0], {})
        assert f"{tmp_path / place}: {message}" == str(caught.value)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    path = tmp_path / "fleet.yaml"
    path.write_text(f"{HEAD}  - {{name: a, port: 1}}\n", encoding="utf-8-sig")
    assert "a" == config.load(path, {}).datasites[0].name


def test_which_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-f, then ./fleet.yaml, then $FLEET_FILE; with none of them the name that is missing."""
    monkeypatch.chdir(tmp_path)
    environ = {"FLEET_FILE": "/etc/fleet.yaml"}
    assert Path("fleet.yaml") == config.find(None, {})
    assert Path("/etc/fleet.yaml") == config.find(None, environ)
    (tmp_path / "fleet.yaml").touch()
    assert Path("fleet.yaml") == config.find(None, environ)
    assert Path("other.yaml") == config.find(Path("other.yaml"), environ)


# Warnings


def test_what_is_allowed_but_unwise(tmp_path: Path) -> None:
    """An open password in an open file, and plain http on the network; neither keeps the fleet from starting."""
    path = tmp_path / "fleet.yaml"
    path.write_text(
        "version: 1\ndashboard: {hostname: 0.0.0.0}\ndefaults: {admin: {password: tr0ub4dor&3}, hostname: 0.0.0.0}\n"
        "datasites:\n- {name: a, port: 1}\n- {name: b, port: 2, hostname: 127.0.0.1, admin: {password: '${env:P}'}}\n"
    )
    exposed = [(2, 23, "dashboard.hostname"), (3, 54, "defaults.hostname")]
    for mode, expected in ((0o644, [exposed[0], (3, 30, "defaults.admin.password"), exposed[1]]), (0o640, exposed)):
        path.chmod(mode)
        _, warnings = config.check(path, {"P": "long enough"}, lambda: "plant7")
        assert expected == places(list(warnings))
        assert "tr0ub4dor" not in "".join(map(str, warnings))


@pytest.mark.parametrize("mode", [0o664, 0o602])
def test_a_file_that_others_can_write_gives_a_warning(tmp_path: Path, mode: int) -> None:
    """It names commands that fleet runs."""
    path = tmp_path / "fleet.yaml"
    path.write_text(f"{HEAD}- {{name: a, port: 1}}\n")
    path.chmod(mode)
    (warning,) = config.check(path, {}, lambda: "plant7")[1]
    assert f"{path}: other users can change this file and the commands in it; run chmod g-w,o-w fleet.yaml" == str(
        warning
    )


def test_an_approval_for_a_dataset_that_is_not_listed_gives_a_warning(tmp_path: Path) -> None:
    """It may be one that a user uploads; a typing mistake would approve nothing. A datasite without a list has only such."""
    path = tmp_path / "fleet.yaml"
    (tmp_path / "a.csv").write_text("x\n1\n")
    approved = f"approved_code: [{{hash: '{HASH}', dataset: waer}}]"
    path.write_text(
        f"{HEAD}  - {{name: a, port: 1, {approved}, datasets: [{{name: wear, path: a.csv}}]}}\n"
        f"  - {{name: b, port: 2, {approved}}}\n"
    )
    path.chmod(0o600)
    (warning,) = config.check(path, {}, lambda: "plant7")[1]
    assert (4, "datasites[0].approved_code[0].dataset") == (warning.line, warning.key)
    assert "not listed under datasets; correct only if somebody uploads such a dataset" == warning.message


def test_a_missing_dataset_file_gives_a_warning(tmp_path: Path) -> None:
    """It keeps nobody from starting: the file may come later."""
    path = tmp_path / "fleet.yaml"
    (tmp_path / "there.csv").write_text("a\n1\n")
    path.touch(0o600)
    path.write_text(
        f"{HEAD}- {{name: a, port: 1, datasets: [{{name: x, path: there.csv}}, {{name: y, path: not.csv}}]}}\n"
    )
    (warning,) = config.check(path, {}, lambda: "plant7")[1]
    assert (4, 77, "datasites[0].datasets[1].path") == places([warning])[0]
    assert "file not found; the dataset is published as soon as the file exists" == warning.message
    path.write_text(f"{HEAD}- {{name: a, port: 1, datasets: [{{name: x, path: {'x' * 300}.csv}}]}}\n")
    assert 1 == len(config.check(path, {}, lambda: "plant7")[1])


# What is shipped


SHIPPED = {"fleet.yaml": (ROOT / "fleet.yaml").read_text(encoding="utf-8"), "starter": config.starter()}


@pytest.mark.parametrize("text", SHIPPED.values(), ids=SHIPPED.keys())
def test_shipped_files_are_sound(tmp_path: Path, text: str) -> None:
    """They load with no environment at all, and there is nothing to warn of."""
    path = tmp_path / "fleet.yaml"
    path.touch(0o600)
    path.write_text(text, encoding="utf-8")
    fleet, warnings = config.check(path, {})
    assert () == warnings
    assert all(one.admin.password is None for one in fleet.datasites)


def test_the_three_lines_of_detroit() -> None:
    """The shipped file is what the README promises."""
    fleet = config.load(ROOT / "fleet.yaml", {})
    lines = [(one.name, one.port, one.gpu.mode) for one in fleet.datasites]
    assert [
        ("detroit_line_alpha", 8080, "auto"),
        ("detroit_line_beta", 8081, "auto"),
        ("detroit_qc_station", 8082, "none"),
    ] == lines
    assert DashboardSpec() == fleet.dashboard


def test_the_starters_comments_are_the_defaults(read: Read) -> None:
    """Uncommented, every default shown there is the real one."""
    shown = re.sub(
        r"^(  )# (?=(  )*(restart|probes|resources|capabilities|[a-z_]+): ?)",
        r"\1",
        config.starter(),
        flags=re.MULTILINE,
    )
    shown = re.sub(r"^  (advertise|dashboard_url|heartbeat_url|environment|  TZ).*\n", "", shown, flags=re.MULTILINE)
    shown = re.sub(r"^ +password: .*\n|^  #.*TZ.*\n", "", shown, flags=re.MULTILINE)
    told = yaml.safe_load(shown)["defaults"]
    assert {"restart", "probes", "gpu", "resources", "capabilities", "heartbeat_interval", "verbose"} <= set(told)
    assert read(config.starter()).datasites == read(shown).datasites


# The schema


def _objects(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {}).items()
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else []:
        yield from _objects(part)


def test_every_key_of_the_schema_is_described() -> None:
    """An editor has a word for each."""
    keys = list(_objects(config.json_schema()))
    assert {"version", "datasites", "password", "liveness", "threads"} <= {key for key, _ in keys}
    assert [] == [key for key, value in keys if not value.get("description") and "$ref" not in str(value)]


def test_the_schema_knows_the_defaults() -> None:
    """They come from the spec."""
    found = {key: value["default"] for key, value in _objects(config.json_schema()) if "default" in value}
    assert [30.0, 600.0] == [found[key] for key in ("heartbeat_interval", "quarantine_retry")]


def test_the_schema_takes_what_is_shipped() -> None:
    """An editor with `fleet schema` marks nothing in the starter, nor in the sample fleet.yaml."""
    checker = jsonschema.Draft202012Validator(config.json_schema())
    told = [[error.message for error in checker.iter_errors(yaml.safe_load(text))] for text in SHIPPED.values()]
    assert [[], []] == told


def test_the_schema_takes_every_key_the_starter_shows() -> None:
    """Its comments taken away, the starter still is what the schema allows: start order, hooks, probes."""
    shown = re.sub(r"^( *)# (?=(  )*([a-zA-Z_]+:|- \{))", r"\1", config.starter(), flags=re.MULTILINE)
    shown = re.sub(r"^#   - \{", "  - {", shown, flags=re.MULTILINE)
    shown = shown.replace("dashboard: embedded  ", "# dashboard: embedded  ")
    told = yaml.safe_load(shown)
    assert {"startup", "on_event"} <= set(told)
    assert {"probes", "priority", "restart"} <= set(told["defaults"])
    assert [] == [error.message for error in jsonschema.Draft202012Validator(config.json_schema()).iter_errors(told)]


def test_the_schema_takes_references_of_each_kind(checker: jsonschema.Draft202012Validator) -> None:
    """In the place of a number, too: the value comes when the file is read."""
    head = {"version": 1, "dashboard": "embedded"}
    for kind in ("env:P", "env:P:-1", "file:p", "credential:p"):
        assert checker.is_valid({**head, "datasites": [{"name": "a", "port": f"${{{kind}}}"}]}), kind
    assert not checker.is_valid({**head, "datasites": [{"name": "a", "port": "${vault:p}"}]})


REFUSED = [
    "{name: A, port: 1}",
    "{name: a, port: 0}",
    "{name: a}",
    "{name: a, port: 1, nope: 1}",
    "{name: a, port: '1'}",
    "{name: a, port: 1, priority: 1001}",
    "{name: a, port: 1, probes: {startup: {success_threshold: 2}}}",
    "{name: a, port: 1, datasets: [{name: a}]}",
    "{name: a, port: 1, datasets: [{name: a, path: a.txt}]}",
    "{name: a, port: 1, datasets: [{name: /, path: a.csv}]}",
    "{name: a, port: 1, datasets: [{name: a, path: a.csv, mock: real}]}",
    "{name: a, port: 1, datasets: [{name: a, path: a.csv, mock: {rows: 0}}]}",
    "{name: a, port: 1, datasets: [{name: a, path: a.csv, mock: {}}]}",
    "{name: a, port: 1}\nstartup: {parallel: -1}",
    "{name: a, port: 1}\non_event: [{command: a}]",
]
TAKEN = [
    "{name: a, port: 1}",
    "{name: '${env:NAME}', port: '${env:PORT}', dev_mode: '${env:DEV}', heartbeat_interval: '${env:BEAT}'}",
    "{name: a, port: 1, heartbeat_interval: 500ms, restart: {window: 2h, mode: never}, environment: {A: 1, B: true}}",
    "{name: a, port: 1, gpu: none}",
    "{name: a, port: 1, gpu: [0, GPU-8a56a4bc]}",
    "{name: a, port: 1, gpu: {count: 2, memory: 8GiB}}",
    "{name: a, port: 1, priority: -3, probes: {startup: {period: 2s, failure_threshold: 600}}}",
    "{name: a, port: 1, datasets: [{name: a, path: a.csv}, {name: b, path: '${env:DATA:-/x}/b.Parquet', mock: empty}]}",
    "{name: a, port: 1, datasets: [{name: a, path: a.npz, mock: {rows: same}, description: ''}]}",
    "{name: a, port: 1, datasets: [{name: a, path: a.npz, mock: {path: '${env:DATA:-x.npz}'}}]}",
    "{name: a, port: 1}\nstartup: {parallel: 3, stagger: 250ms}",
    "{name: a, port: 1}\non_event: [{command: [a], events: [exited]}, {webhook: 'http://c/?k=v', timeout: 2}]",
]
VALUES = {"NAME": "a", "PORT": "1", "DEV": "no", "BEAT": "3"}


@pytest.fixture(scope="module")
def checker() -> jsonschema.Draft202012Validator:
    """The schema, which is one."""
    jsonschema.Draft202012Validator.check_schema(schema := config.json_schema())
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize(
    ("written", "sound"), [*((text, False) for text in REFUSED), *((text, True) for text in TAKEN)]
)
def test_schema_and_fleet_agree(
    read: Read, checker: jsonschema.Draft202012Validator, written: str, sound: bool
) -> None:
    """What an editor marks is refused, and what it passes loads."""
    assert sound == checker.is_valid(yaml.safe_load(f"{HEAD}  - {written}"))
    try:
        read(f"{HEAD}  - {written}", **VALUES)
    except ConfigError:
        assert not sound
    else:
        assert sound


# Robustness


def test_an_alias_bomb_does_not_go_off(judge: Judge) -> None:
    """Nine levels of nine aliases are a thousand million values; counting stops long before."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    merges = ["m0: &m0 {x: 1}"] + [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, 10)]
    for bomb in (levels, merges):
        begin = time.process_time()
        problems = judge("\n".join(bomb))
        assert any("more than 50000 values" in problem.message for problem in problems)
        assert 5.0 > time.process_time() - begin


def test_a_hundred_datasites_are_quick(tmp_path: Path) -> None:
    """``fleet status`` waits for this: well under the ceiling on any machine."""
    path = tmp_path / "fleet.yaml"
    path.write_text(
        HEAD + "".join(f"  - {{name: line_{i}, port: {8000 + i}, admin: {{name: L}}}}\n" for i in range(100))
    )
    config.load(path, {})
    times = []
    for _ in range(3):
        begin = time.process_time()
        config.load(path, {})
        times.append(time.process_time() - begin)
    assert 0.25 > min(times)


KEYS = sorted({key for key, _ in _objects(config.json_schema())} | {"<<", "x", "SYFT_X", ""})
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
    st.sampled_from(
        ["embedded", "auto", "none", "8GiB", "5m", "${env:X}", "${file:x}", "${", "http://h:1", "::", "a@b"]
    ),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)),
    max_leaves=20,
)
FILES = st.one_of(
    st.text(),
    st.text(alphabet="-[]{}:,&*!|>'\"%@`#?<~ \n\tab01$"),
    TREES.map(yaml.safe_dump),
    st.fixed_dictionaries(
        {
            "version": st.just(1),
            "datasites": st.lists(st.dictionaries(st.sampled_from(KEYS), TREES, max_size=4), max_size=3),
        },
        optional={"defaults": TREES, "dashboard": TREES},
    ).map(yaml.safe_dump),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=FILES)
def test_any_text_is_a_fleet_or_a_list_of_problems(tmp_path: Path, text: str) -> None:
    """Never another exception, and never a problem without words."""
    path = tmp_path / "fleet.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        config.load(path, {"X": "8080"}, lambda: "plant7")
    except ConfigError as error:
        assert error.problems
        assert all(problem.message for problem in error.problems)
        assert len(error.problems) == len(str(error).splitlines())
