"""A state folder that an earlier release wrote opens unchanged: no login, dataset, approval or history is lost.

``tests/histories/state-0.1.0.tar.xz`` was written by a fleet of one datasite, up and down again with that release: a
dataset published from ``tab.csv``, a data scientist registered by the owner, a function approved and called once. Its
keys and passwords belong to nobody. Add a folder for each release, and leave the old ones.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_tools.temporary_fleet import brought_up
from tests.real.harness import Fleet, eventually

KEPT = sorted((Path(__file__).parents[1] / "histories").glob("state-*.tar.xz"))
KEPT_FILES = ("identity.json", "admin.json", "datasets.json")
ROWS = 300
SCIENTIST = {"email": "scientist@centre.example", "password": "pw-of-the-test"}


class OldFleet(Fleet):
    """One datasite, configured as the one that wrote the folder."""

    def write(self) -> None:
        rows = "".join(f"{row},{row * 2}\n" for row in range(ROWS))
        (self.folder / "tab.csv").write_text(f"a,b\n{rows}")
        admin = "{email: admin@plant.example, password: correct-horse-battery}"
        self.file.write_text(
            f"version: 1\nname: plant\ndashboard: {{mode: embedded, port: {self.dashboard}}}\ndatasites:\n"
            f"  - {{name: alpha, port: {self.alpha}, admin: {admin}, datasets: [{{name: tab, path: tab.csv}}]}}\n"
        )

    before: dict[str, Any]

    def kept(self) -> dict[str, Any]:
        """What must not change; when a dataset's file was last looked at may."""
        files = {name: json.loads((self.state("alpha") / name).read_text()) for name in KEPT_FILES}
        for dataset in files["datasets.json"]["datasets"].values():
            del dataset["looks"]
        return files


@pytest.fixture(scope="module", params=KEPT, ids=lambda path: path.name)
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OldFleet]:
    made = OldFleet(tmp_path_factory.mktemp("old"))
    with tarfile.open(request.param) as archive:
        archive.extractall(made.folder, filter="data")
    made.before = made.kept()
    with brought_up(made):
        yield made


def scientist(fleet: OldFleet) -> Any:
    import syft as sy

    return sy.login(url="http://127.0.0.1", port=fleet.alpha, **SCIENTIST)


def test_there_is_a_folder_to_open() -> None:
    """The other tests have something to try."""
    assert [] != KEPT


def test_identity_and_logins_stay(fleet: OldFleet) -> None:
    """The files are what they were; the admin and the data scientist log in with their old passwords."""
    assert fleet.before == fleet.kept()
    emails = {user.email for user in fleet.login("alpha", fleet.alpha).users.get_all()}
    assert {"admin@plant.example", SCIENTIST["email"]} <= emails
    assert fleet.before["identity.json"]["uid"] == scientist(fleet).id.no_dash


def test_an_approved_function_runs_on_the_old_dataset(fleet: OldFleet) -> None:
    """The dataset is not published anew, and the approval still holds."""
    client = scientist(fleet)
    (dataset,) = client.datasets.get_all()
    assert ("tab", ROWS) == (dataset.name, client.code.rows(x=dataset.assets[0]).get())


def test_the_history_goes_on(fleet: OldFleet) -> None:
    """Events of the old release stand before those of this one, and the dashboard knows the datasite."""

    def ready() -> list[str]:
        told = fleet.run("events", "--json", "--lines", "500").stdout.splitlines()
        events = [json.loads(line) for line in told]
        return [one["at"] for one in events if (one["name"], one["event"]) == ("alpha", "ready")]

    eventually(lambda: len(ready()) == 2)
    assert sorted(ready()) == ready()
