"""The unit's text, and ``fleet install systemd`` around it. The unit itself runs in tests/systemd."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from supervisor.faces.cli import app
from supervisor.faces.commands import install as command
from supervisor.faces.faults import Exit
from supervisor.faces.systemd import UnitPlan, quoted, slug, unit_name, unit_text
from supervisor.spec import DatasiteSpec, FleetConfig, GpuRequest

FLEET_YAML = """\
version: 1
name: detroit
dashboard: embedded
datasites:
  - {name: line_a, port: 8080}
"""
analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
HIGHEST_EXPOSURE = 2.0
"""docs/systemd.md records the score."""


def plan(*specs: DatasiteSpec, folder: str = "/srv/plant", **more: Any) -> UnitPlan:
    base = Path(folder)
    lines = specs or (DatasiteSpec("line_a", 8080),)
    config = FleetConfig("detroit", base / "fleet.yaml", base / ".fleet", base / "logs", lines)
    given: dict[str, Any] = {"command": ("/opt/venv/bin/fleet",), "needs": (Path("/opt/venv"),), "user": "plant"}
    return UnitPlan(**{"config": config, "systemd": 252, "fleet": "1.0", **given, **more})


def directives(text: str) -> dict[str, list[str]]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    found: dict[str, list[str]] = {}
    for name, _, value in pairs:
        found.setdefault(name, []).append(value)
    return found


# --- the text ---


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (252, {"Type": ["notify"], "ExecReload": ["kill -HUP $MAINPID"]}),
        (253, {"Type": ["notify-reload"], "ReloadSignal": ["SIGHUP"]}),
        (254, {"Type": ["notify-reload"], "ReloadSignal": ["SIGHUP"], "RestartMaxDelaySec": ["30"]}),
    ],
)
def test_the_unit_is_made_for_the_systemd_that_reads_it(version: int, expected: dict[str, list[str]]) -> None:
    """Type=notify-reload from 253 on, slower and slower restarts from 254 on."""
    versioned = ("Type", "ExecReload", "ReloadSignal", "RestartMaxDelaySec")
    found = directives(unit_text(plan(systemd=version)))
    assert expected == {name: found[name] for name in versioned if name in found}


def test_times_follow_the_configuration() -> None:
    """The start may take as long as the slowest line, the stop two grace periods: lines, then dashboard. Where GPUs
    are wanted a start may wait for the driver too."""
    assert ["240"] == directives(unit_text(plan()))["TimeoutStartSec"]
    found = directives(unit_text(plan(DatasiteSpec("line_a", 8080, gpu=GpuRequest("none")))))
    assert (["170"], ["50"], ["/srv/plant"]) == (
        found["TimeoutStartSec"],
        found["TimeoutStopSec"],
        found["WorkingDirectory"],
    )


def test_what_another_start_may_mend_is_started_again() -> None:
    """Exit code 1, as where the GPU driver did not answer in time; not an order, a wrong file or a second supervisor."""
    found = directives(unit_text(plan()))["RestartPreventExitStatus"]
    assert [" ".join(map(str, map(int, (Exit.OK, Exit.WRONG_USE, Exit.ALREADY_RUNNING))))] == found


def test_only_the_fleets_folders_can_be_written() -> None:
    """And they are waited for when they are mounts."""
    found = directives(unit_text(plan()))
    assert (["strict"], ["-/srv/plant/.fleet -/srv/plant/logs"]) == (found["ProtectSystem"], found["ReadWritePaths"])
    assert ["/srv/plant /srv/plant/.fleet /srv/plant/logs"] == found["RequiresMountsFor"]


@pytest.mark.parametrize(
    ("folder", "needs", "home", "temporary"),
    [
        ("/srv/plant", "/opt/venv", "yes", "yes"),
        (str(Path("/home", "eva", "plant")), "/opt/venv", "read-only", "yes"),
        ("/srv/plant", str(Path("/root", "venv")), "read-only", "yes"),
        ("/tmp/plant", "/opt/venv", "yes", "no"),
        ("/homes/plant", "/tmpfs/venv", "yes", "yes"),
    ],
)
def test_what_the_fleet_needs_stays_in_sight(folder: str, needs: str, home: str, temporary: str) -> None:
    """A fleet, or a Python, in a home folder or below /tmp would vanish behind full protection."""
    found = directives(unit_text(plan(folder=folder, needs=(Path(needs),))))
    assert ([home], [temporary]) == (found["ProtectHome"], found["PrivateTmp"])


def test_a_fleet_without_gpus_gets_no_devices() -> None:
    """`gpu: none` for all lines takes NVIDIA's devices and modules away."""
    none = directives(unit_text(plan(DatasiteSpec("a", 8080, gpu=GpuRequest(mode="none")))))
    auto = directives(unit_text(plan(DatasiteSpec("a", 8080))))
    assert (["closed"], None) == (none["DevicePolicy"], none.get("DeviceAllow"))
    assert ["char-nvidia* rw", "char-drm rw", "char-kfd rw"] == auto["DeviceAllow"]
    assert "modprobe@nvidia_uvm.service" in auto["Wants"]


@pytest.mark.parametrize(("port", "capability"), [(443, "CAP_NET_BIND_SERVICE"), (8443, "")])
def test_a_low_port_takes_its_one_capability(port: int, capability: str) -> None:
    """And otherwise there is none at all."""
    found = directives(unit_text(plan(DatasiteSpec("a", port))))
    assert ([capability], [capability]) == (found["CapabilityBoundingSet"], found["AmbientCapabilities"])


def test_a_user_unit_asks_for_nothing_that_only_the_system_has() -> None:
    """No User=, no mount namespaces, default.target."""
    found = directives(unit_text(plan(user=None)))
    assert set() == {"User", "ProtectSystem", "PrivateTmp", "CapabilityBoundingSet", "Wants"} & set(found)
    assert (["default.target"], ["-%h/.config/fleet/detroit.env"]) == (found["WantedBy"], found["EnvironmentFile"])
    assert any("systemctl --user kill" in line for line in found["ExecStopPost"])


def test_credentials_are_loaded_by_name() -> None:
    """One LoadCredential= each."""
    secrets = (("admin", Path("/etc/fleet/admin")), ("token", Path("/etc/fleet/100%")))
    found = directives(unit_text(plan(credentials=secrets)))
    assert ["admin:/etc/fleet/admin", "token:/etc/fleet/100%%"] == found["LoadCredential"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("detroit", "fleet-detroit.service"), ("Plant 1/Süd", "fleet-Plant-1-S-d.service"), ("…", "fleet-fleet.service")],
)
def test_any_fleet_name_makes_a_unit_name(name: str, expected: str) -> None:
    """A fleet's name is free text."""
    assert expected == unit_name(name)
    assert "/" not in slug(name)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/srv/a", "/srv/a"),
        ("/srv/a b", '"/srv/a b"'),
        ("/srv/100%", "/srv/100%%"),
        ('/a"b\\', '"/a\\"b\\\\"'),
        ("", '""'),
    ],
)
def test_values_are_written_as_systemd_reads_them(value: str, expected: str) -> None:
    """Spaces, quotes and specifiers in a path."""
    assert expected == quoted(value)


STOP_CASES = [
    ("success", "exited", False, True),  # asked down, or SIGTERM
    ("success", "killed", False, False),  # a signal that systemd calls clean: the supervisor is restarted
    ("timeout", "killed", False, True),  # frozen at a stop
    ("signal", "killed", False, False),  # a crash: the lines serve on
    ("watchdog", "dumped", False, False),
    ("exit-code", "exited", False, False),
    ("signal", "killed", True, True),  # died over a stop that was asked for
]


@pytest.mark.process
@pytest.mark.parametrize(("result", "code", "asked", "ends"), STOP_CASES)
def test_lines_are_ended_after_a_stop_and_kept_after_a_crash(
    tmp_path: Path, result: str, code: str, asked: bool, ends: bool
) -> None:
    """What ExecStopPost does, run by a real shell as systemd would run it."""
    scripts = [script_of(line) for line in directives(unit_text(plan()))["ExecStopPost"]]
    mark, done, scratch = tmp_path / "stopping", tmp_path / "done", tmp_path / "scratch"
    scratch.mkdir()
    if asked:
        mark.touch()
    environ = {"SERVICE_RESULT": result, "EXIT_CODE": code, "TMPDIR": str(scratch), "PATH": os.environ["PATH"]}
    for script in scripts:
        subprocess.run(["sh", "-c", script, mark, "sh", "-c", f"echo ran >>{done}"], env=environ, check=True)
    assert ("ran\nran\n" if ends else "") == (done.read_text() if done.exists() else "")
    assert ends is not scratch.exists()


@pytest.mark.process
@pytest.mark.parametrize(("code", "said"), [(0, ""), (1, "Error: x\n"), (3, "")])
def test_nothing_left_to_stop_is_not_worth_a_word(tmp_path: Path, code: int, said: str) -> None:
    """`fleet down` ends with 3 then; other failures are shown in the journal."""
    script = script_of(directives(unit_text(plan()))["ExecStopPost"][0])
    environ = {"SERVICE_RESULT": "success", "EXIT_CODE": "exited", "PATH": os.environ["PATH"]}
    command = [
        "sh",
        "-c",
        script,
        str(tmp_path / "mark"),
        "sh",
        "-c",
        f"test {code} = 0 || echo 'Error: x' >&2; exit {code}",
    ]
    assert said == subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout


def script_of(line: str) -> str:
    """The shell's text in an Exec line, as systemd would hand it on."""
    found = re.match(r"[-+]*/bin/sh -c '(.*)'(?: %t|$)", line)
    assert found is not None, line
    return found[1].replace("$$", "$").replace("\\'", "'")


def test_where_the_kernel_may_hold_lines_to_their_limits() -> None:
    """From 254 on the supervisor starts in a leaf. Before, the unit's group is freed for the next one when it has ended,
    and the supervisor is told so; never both."""
    before, after = (directives(unit_text(plan(systemd=version))) for version in (253, 254))
    assert (["yes"], ["yes"], ["supervisor"]) == (before["Delegate"], after["Delegate"], after["DelegateSubgroup"])
    assert "FLEET_UNIT_FREES_CGROUP=1" in before["Environment"]
    assert "cgroup.subtree_control" in before["ExecStopPost"][-1]
    assert "DelegateSubgroup" not in before
    assert not any("CGROUP" in value for value in after["Environment"])
    assert not any("cgroup" in value for value in after["ExecStopPost"])


@pytest.mark.process
def test_nothing_but_a_units_own_group_is_freed() -> None:
    """Run anywhere else than where systemd runs what comes after a service, it does nothing."""
    script = script_of(directives(unit_text(plan()))["ExecStopPost"][-1])
    done = subprocess.run(["sh", "-xc", script], capture_output=True, text=True, check=True)
    assert "+ exit 0" == done.stderr.splitlines()[-1]


# --- what systemd says of it ---


@pytest.mark.process
@analyze
@pytest.mark.parametrize("folder", ["/srv/plant", '/srv/line 1/100% "new" $HOME\'s'])
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path, folder: str) -> None:
    """`systemd-analyze verify` has nothing to say, also of awkward paths."""
    path = tmp_path / "fleet-detroit.service"
    path.write_text(unit_text(plan(folder=folder, command=("/bin/true",), systemd=command._systemd_version())))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.process
@analyze
def test_systemd_finds_no_fault_in_the_user_unit(tmp_path: Path) -> None:
    """The same for a unit of a user's own manager."""
    path = tmp_path / "fleet-detroit.service"
    path.write_text(unit_text(plan(command=("/bin/true",), user=None, systemd=command._systemd_version())))
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    verify = ["systemd-analyze", "verify", "--user", str(path)]
    done = subprocess.run(verify, env=environ, capture_output=True, text=True, check=False)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.process
@analyze
def test_the_hardening_keeps_its_score(tmp_path: Path) -> None:
    """`systemd-analyze security` rates the exposure no higher than recorded."""
    path = tmp_path / "fleet-detroit.service"
    path.write_text(unit_text(plan(systemd=command._systemd_version())))
    security = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    said = subprocess.run(security, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None
    assert float(found[1]) <= HIGHEST_EXPOSURE, said


# --- the command ---


def told(result: Result) -> str:
    return result.stdout + result.stderr


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``fleet install systemd`` in an empty plant's folder, with its units in ``units``."""
    monkeypatch.chdir(tmp_path)
    for name in ("FLEET_FILE", "SUDO_USER", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "fleet.yaml").write_text(FLEET_YAML)
    monkeypatch.setattr(command, "_SYSTEM_UNITS", tmp_path / "units")

    def run(*words: object) -> Result:
        return CliRunner(mix_stderr=False).invoke(app, ["install", "systemd", *map(str, words)], catch_exceptions=False)

    return run


@pytest.mark.process
def test_it_writes_the_unit_and_says_what_to_do_next(install: Callable[..., Result], tmp_path: Path) -> None:
    """The path it wrote, and the next commands; the fleet's folders are there then."""
    result = install()
    unit = tmp_path / "units" / "fleet-detroit.service"
    assert (0, 0o644) == (result.exit_code, unit.stat().st_mode & 0o777)
    assert f"wrote {unit}" in told(result)
    assert "  systemctl daemon-reload\n  systemctl enable --now fleet-detroit.service" in told(result)
    assert (True, True) == ((tmp_path / ".fleet").is_dir(), (tmp_path / "logs").is_dir())
    found = directives(unit.read_text())
    program = Path(sys.executable).with_name("fleet")
    assert [f"{quoted(program)} up {quoted(tmp_path / 'fleet.yaml')}"] == found["ExecStart"]
    assert [getpass.getuser()] == found["User"]


@pytest.mark.process
def test_dry_run_prints_the_very_unit_and_writes_nothing(install: Callable[..., Result], tmp_path: Path) -> None:
    """What is printed is what would be written."""
    printed = install("--dry-run")
    assert (0, []) == (printed.exit_code, sorted(path.name for path in tmp_path.iterdir() if path.name != "fleet.yaml"))
    install()
    assert (tmp_path / "units" / "fleet-detroit.service").read_text() == printed.stdout


@pytest.mark.process
def test_a_unit_that_says_something_else_is_left_alone(install: Callable[..., Result], tmp_path: Path) -> None:
    """The same text again is fine, a changed one takes --force."""
    install()
    unit = tmp_path / "units" / "fleet-detroit.service"
    again = install()
    assert (0, True) == (again.exit_code, "nothing to change" in told(again))
    unit.write_text("mine")
    refused = install()
    assert (1, "mine") == (refused.exit_code, unit.read_text())
    assert "--force to replace the old one" in told(refused)
    assert (0, True) == (install("--force").exit_code, "[Service]" in unit.read_text())
    assert [unit] == list(unit.parent.iterdir())


@pytest.mark.process
def test_a_user_unit_lies_with_the_user(install: Callable[..., Result], tmp_path: Path) -> None:
    """~/.config/systemd/user, and how to keep it running without a login."""
    result = install("--user")
    assert (tmp_path / "config" / "systemd" / "user" / "fleet-detroit.service").is_file()
    assert "systemctl --user enable --now" in told(result)
    assert "loginctl enable-linger" in told(result)


@pytest.mark.process
def test_output_names_another_folder(install: Callable[..., Result], tmp_path: Path) -> None:
    """For packages and images; systemd has to be told of it then."""
    result = install("--output", tmp_path / "image")
    assert (tmp_path / "image" / "fleet-detroit.service").is_file()
    assert f"systemctl link {tmp_path / 'image' / 'fleet-detroit.service'}" in told(result)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--run-as", "nobody-of-that-name"), 2, "there is no user 'nobody-of-that-name'"),
        (("--run-as", "root", "--user"), 2, "--user cannot be combined with --run-as"),
        (("--credential", "nonsense"), 2, "expected NAME:FILE"),
        (("elsewhere.yaml",), 2, "file not found"),
    ],
)
def test_mistakes_are_named(install: Callable[..., Result], words: tuple[str, ...], code: int, said: str) -> None:
    """Exit code 2 and a sentence."""
    result = install(*words)
    assert (code, True) == (result.exit_code, said in told(result)), told(result)


@pytest.mark.process
def test_a_folder_that_cannot_be_written_says_sudo(
    install: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or --user: the way without privileges."""

    def denied(*about: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(command, "_replace", denied)
    result = install()
    assert 1 == result.exit_code
    assert "sudo fleet install systemd, or --user" in told(result)


@pytest.mark.process
def test_the_file_is_checked_as_the_service_will_see_it(
    install: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of this shell is not one of the service; its own file of variables and its credentials are."""
    monkeypatch.setenv("PLANT_PASSWORD", "only-in-this-shell")
    variables, secret = tmp_path / "config.env", tmp_path / "secret"
    monkeypatch.setattr(command, "_variables_file", lambda name, *, user: variables)
    secret.write_text("correct-horse-battery\n")
    admin = "admin: {email: '${credential:mail}', password: '${env:PLANT_PASSWORD}'}"
    (tmp_path / "fleet.yaml").write_text(f"{FLEET_YAML}defaults: {{{admin}}}\n")

    refused = install()
    assert 2 == refused.exit_code
    assert "PLANT_PASSWORD is not set" in told(refused)
    assert f"write NAME=value into {variables}" in told(refused)
    variables.write_text("# of the plant\n\nPLANT_PASSWORD='in the file = good'\n")
    assert "cannot read the file LoadCredential/mail" in told(install())
    secret.write_text("admin@plant.org\n")
    result = install("--credential", f"mail:{secret}")
    assert 0 == result.exit_code, told(result)
    assert [f"mail:{secret}"] == directives((tmp_path / "units" / "fleet-detroit.service").read_text())[
        "LoadCredential"
    ]


def test_down_needs_no_secret(install: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stop over which the supervisor died, systemd has taken the credentials away; its lines end all the same."""
    (tmp_path / "fleet.yaml").write_text(FLEET_YAML.replace("8080", "8080, admin: {password: '${credential:x}'}"))
    (tmp_path / ".fleet").mkdir()
    seen: list[FleetConfig] = []

    def stop_orphans(config: FleetConfig) -> tuple[str, ...]:
        seen.append(config)
        return ("line_a",)

    monkeypatch.setattr("supervisor.daemon.stop_orphans", stop_orphans)
    result = CliRunner(mix_stderr=False).invoke(app, ["down"], catch_exceptions=False)
    assert (0, "line_a stopped (its supervisor had ended)\n") == (result.exit_code, result.stdout), result.stderr
    assert [(tmp_path / ".fleet", ["dashboard", "line_a"])] == [
        (config.state_dir, [spec.name for spec in config.workers]) for config in seen
    ]


def test_a_credential_outside_of_a_service_is_explained(tmp_path: Path) -> None:
    """`fleet validate` by hand has no credentials, and says what they are."""
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET_YAML.replace("port: 8080", "port: 8080, admin: {password: '${credential:admin}'}"))
    environ = {name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"}
    result = CliRunner(mix_stderr=False, env=environ).invoke(app, ["validate", str(path)])
    assert 2 == result.exit_code
    assert "LoadCredential=admin:" in told(result)


@pytest.mark.process
def test_an_unknown_systemd_gets_the_plainest_unit(
    install: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no systemctl answers, as when an image is built, with a warning."""
    monkeypatch.setenv("PATH", "/nowhere")
    result = install("--dry-run")
    assert (0, ["notify"]) == (result.exit_code, directives(result.stdout)["Type"])
    assert "cannot find the version of systemd" in result.stderr
