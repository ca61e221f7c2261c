"""What a checkout promises before any of it runs: one version, pinned packages, clean names, light imports."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTION = "datasite-fleet"
PACKAGES = ("supervisor", "datasite_worker", "central", "fleet_common", "fleet_tools")
FOLDERS = {"fleet_tools": ROOT / "scripts" / "fleet_tools"}
DOORS = ("fleet", "test", "check", "bench", "chaos", "gpu-check", "example")
SCRIPTS = (*(f"scripts/{name}" for name in DOORS), ".ci/run")

# The modules of supervisord, whose import package is called `supervisor` as well.
SUPERVISORD = frozenset(
    [
        "childutils",
        "compat",
        "confecho",
        "datatypes",
        "dispatchers",
        "events",
        "http",
        "http_client",
        "loggers",
        "medusa",
        "options",
        "pidproxy",
        "poller",
        "process",
        "rpcinterface",
        "skel",
        "socket_manager",
        "states",
        "supervisorctl",
        "supervisord",
        "templating",
        "web",
        "xmlrpc",
    ]
)

# Modules that the supervisor and the command line load, and what loading them may not bring along.
LIGHT = (
    "supervisor.__main__",
    "supervisor.daemon",
    "supervisor.engine",
    "supervisor.faces.cli",
    "fleet_common.contract",
    "datasite_worker.entry",
    "central.dashboard.entry",
)
HEAVY = ("syft", "torch", "fastapi", "sqlalchemy", "numpy", "fleet_tools")
WEB = ("uvicorn", "starlette", "fastapi", "httptools", "h11", "requests", "anyio")

INDEX_HOST = re.compile(
    r"pypi[.]org|pythonhosted[.]org|download[.]pytorch[.]org|(extra-)?index-u[r]l|file:[/]//", re.IGNORECASE
)
HOME_FOLDER = re.compile(r"(?<![\w>.}$-])/(root|home/[\w-]+|Users/[\w-]+)/")


def project() -> dict[str, Any]:
    """The [project] table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def declared() -> list[Requirement]:
    """Every dependency of pyproject.toml, the optional ones too."""
    optional = [line for group in project()["optional-dependencies"].values() for line in group]
    return [Requirement(line) for line in project()["dependencies"] + optional]


def pins(python: str) -> dict[str, str]:
    """constraints.txt as Python ``python`` ("3.11") reads it: canonical name -> version; fails on an unpinned line."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    found: dict[str, str] = {}
    for line in filter(None, (raw.partition("#")[0].strip() for raw in constraints().splitlines())):
        requirement = Requirement(line)
        if Marker(str(requirement.marker or 'os_name != ""')).evaluate(environment):
            (pin,) = requirement.specifier
            assert ("==", False) == (pin.operator, pin.version.endswith("*")), line
            assert canonicalize_name(requirement.name) not in found, line
            found[canonicalize_name(requirement.name)] = pin.version
    return found


def constraints() -> str:
    return (ROOT / "constraints.txt").read_text(encoding="utf-8")


def repository_files() -> list[Path]:
    """Every text file that is or would be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()]


def sightings(pattern: re.Pattern[str]) -> list[str]:
    """``file:line`` of every line of the repository in which ``pattern`` is found."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in repository_files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


def types_in(module: ast.Module) -> set[str]:
    """The names of classes and of aliases of types that a module defines."""
    assigned = [node.targets[0] for node in module.body if isinstance(node, ast.Assign)]
    names = {target.id for target in assigned if isinstance(target, ast.Name)}
    named = names | {node.name for node in module.body if isinstance(node, ast.ClassDef)}
    return {name for name in named if name.lstrip("_")[:1].isupper() and not name.isupper()}


def exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")


class TestVersion:
    def test_the_installed_version_is_the_declared_one(self) -> None:
        """`fleet version` tells the version of this tree: an edit of pyproject.toml renews the installation."""
        assert project()["version"] == metadata.version(DISTRIBUTION)

    def test_no_module_keeps_a_version_of_its_own(self) -> None:
        """pyproject.toml is the only place where the version is written."""
        own = re.compile(r"^__version__\s*=\s*['\"]", re.MULTILINE)
        files = [file for package in PACKAGES for file in FOLDERS.get(package, ROOT / package).rglob("*.py")]
        assert [] == [str(file) for file in files if own.search(file.read_text(encoding="utf-8"))]


class TestNames:
    @pytest.mark.parametrize("package", PACKAGES)
    def test_the_package_is_ours_alone(self, package: str) -> None:
        """No other distribution, supervisord above all, is installed over a package of ours."""
        assert {DISTRIBUTION} == set(metadata.packages_distributions()[package])

    def test_no_module_bears_a_name_of_supervisords(self) -> None:
        """Were supervisord installed beside us, none of its imports could find a module of ours."""
        ours = {path.stem for path in (ROOT / "supervisor").iterdir() if path.suffix == ".py" or path.is_dir()}
        assert set() == ours & SUPERVISORD

    def test_no_two_types_of_the_supervisor_share_a_name(self) -> None:
        """Whoever reads `Probe` or `Plan` need not ask which: a class, an alias or an option's type is named once."""
        homes: dict[str, list[str]] = {}
        for path in (ROOT / "supervisor").rglob("*.py"):
            for name in sorted(types_in(ast.parse(path.read_text(encoding="utf-8")))):
                homes.setdefault(name, []).append(str(path.relative_to(ROOT)))
        assert {} == {name: places for name, places in homes.items() if len(places) > 1}

    @pytest.mark.parametrize("script", ["fleet", "factory-datasite"])
    def test_the_commands_lead_to_a_main(self, script: str) -> None:
        """Each console script names a function that can be called."""
        (entry_point,) = metadata.entry_points(group="console_scripts", name=script)
        assert callable(entry_point.load())


class TestPins:
    @pytest.mark.parametrize("python", ["3.11", "3.12"])
    def test_every_declared_dependency_is_pinned_within_its_range(self, python: str) -> None:
        """An installation with constraints.txt is the same today and in a year, on both Pythons."""
        pinned = pins(python)
        unfit = [
            str(want)
            for want in declared()
            if not want.specifier.contains(pinned.get(canonicalize_name(want.name), "0"))
        ]
        assert [] == unfit

    def test_what_is_installed_is_what_is_pinned(self) -> None:
        """The tests run with the versions that users get; a package without a pin has slipped in by itself."""
        pinned = pins(f"{sys.version_info.major}.{sys.version_info.minor}")
        # Not all of sys.path: setuptools, once a test has loaded it, adds what it carries along.
        found = metadata.distributions(path=[sysconfig.get_paths()["purelib"]])
        installed = {canonicalize_name(each.name): each.version.partition("+")[0] for each in found}
        ours = {name: version for name, version in installed.items() if name not in {"pip", DISTRIBUTION}}
        assert {} == {name: version for name, version in ours.items() if pinned.get(name) != version}

    def test_no_pin_names_a_build_or_a_place(self) -> None:
        """Which build of torch, and from where, is the plant's choice: no `+cpu`, no URL, no path."""
        assert [] == [line for line in constraints().splitlines() if line[:1] != "#" and re.search(r"[+@/]|^-", line)]


class TestTree:
    @pytest.mark.parametrize("script", SCRIPTS)
    def test_the_scripts_can_be_run(self, script: str) -> None:
        """A bare checkout needs no chmod."""
        assert os.access(ROOT / script, os.X_OK)

    @pytest.mark.process
    @needs_git
    def test_no_file_names_a_package_index(self) -> None:
        """Where packages come from is the machine's business (pip.conf), never the repository's."""
        assert [] == sightings(INDEX_HOST)

    @pytest.mark.process
    @needs_git
    def test_no_file_names_a_folder_of_somebodys_machine(self) -> None:
        """Neither this checkout's own path nor a home folder is written down anywhere."""
        checkout = re.compile(rf"(?<![\w>.}}])({re.escape(str(ROOT))}|{re.escape(str(Path(sys.prefix).resolve()))})\b")
        assert [] == sightings(checkout) + sightings(HOME_FOLDER)


@pytest.mark.process
@pytest.mark.parametrize("module", [module for module in LIGHT if exists(module)])
def test_the_supervisors_side_loads_nothing_heavy(module: str) -> None:
    """The supervisor and the command line stay small and quick: PySyft lives in the workers alone."""
    program = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (0, "", "") == (done.returncode, done.stdout.strip(), done.stderr)


@pytest.mark.process
@pytest.mark.parametrize("module", ["supervisor.engine", "supervisor.policy.fleet", "supervisor.messages"])
def test_what_decides_loads_no_web_stack(module: str) -> None:
    """The loop and the policy depend on values alone: sockets and servers are behind ``supervisor.protocols``."""
    program = f"import sys, {module}; print(*sorted(set({(*WEB, *HEAVY)!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (0, "", "") == (done.returncode, done.stdout.strip(), done.stderr)
