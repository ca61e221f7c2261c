"""Identity and logins: drawn once, kept for ever, readable by their owner alone; broken files are never replaced."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from datasite_worker.__main__ import parser
from datasite_worker.credentials import admin_login, identity, show
from fleet_common import folders
from fleet_common.failures import ConfigurationFailure


def test_an_identity_is_drawn_once(tmp_path: Path) -> None:
    """The next start finds the same, in a file and a folder that only their owner reads."""
    first = identity(tmp_path)
    assert first == identity(tmp_path)
    assert ("0o700", "0o600") == tuple(
        oct(path.stat().st_mode & 0o777) for path in (tmp_path, tmp_path / "identity.json")
    )


@pytest.mark.parametrize("broken", ["", "{", "[]", "{}", '{"uid": 1}'])
def test_a_broken_identity_is_refused_and_stays(tmp_path: Path, broken: str) -> None:
    """With the file's name and the two ways out."""
    (tmp_path / "identity.json").write_text(broken)
    with pytest.raises(
        ConfigurationFailure, match=r"identity\.json cannot be used .* restore it from a backup, or use reset"
    ):
        identity(tmp_path)
    assert broken == (tmp_path / "identity.json").read_text()


def test_a_password_is_drawn_when_none_is_given_and_kept(tmp_path: Path) -> None:
    """A strong one; one that is given later changes nothing of it."""
    drawn = admin_login(tmp_path, "a@plant.com", "Admin", None)
    show(tmp_path, drawn)
    assert (True, 24) == (drawn.generated, len(drawn.password))
    assert drawn == admin_login(tmp_path, "a@plant.com", "Admin", "given-later")


def test_every_admin_keeps_a_login_of_its_own(tmp_path: Path) -> None:
    """A second admin's login hides the first's nowhere; ``admin.json`` shows the one that was asked for last."""
    first = admin_login(tmp_path, "a@plant.com", "Admin", None)
    show(tmp_path, first)
    second = admin_login(tmp_path, "b@plant.com", "Second", "its-own-word")
    assert ("b@plant.com", "its-own-word", False) == (second.email, second.password, second.generated)
    assert first.password == json.loads((tmp_path / "admin.json").read_text())["password"]
    show(tmp_path, second)
    assert "its-own-word" == json.loads((tmp_path / "admin.json").read_text())["password"]
    assert first == admin_login(tmp_path, "a@plant.com", "Admin", None)
    assert second == admin_login(tmp_path, "b@plant.com", "Second", None)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--port", "70000"], "'70000' is not a port"),
        (["--port", "eighty"], "'eighty' is not a port"),
        (["--factory_name", "../other"], "'../other' is not a valid name"),
        (["--reset", "perhaps"], "'perhaps' is not true or false"),
    ],
)
def test_wrong_usage_is_told_in_words(words: list[str], fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and no traceback."""
    with pytest.raises(SystemExit, match="2"):
        parser().parse_args(words)
    assert fault in capsys.readouterr().err


@pytest.mark.parametrize(("number", "refused"), [(errno.ENOSPC, OSError), (errno.EACCES, ConfigurationFailure)])
def test_a_trouble_that_passes_advises_no_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, refused: type[Exception]
) -> None:
    """A full or failing disk is tried again; only what lasts is called a broken identity."""

    def fail(_: Path) -> bytes:
        raise OSError(number, "as told")

    monkeypatch.setattr(folders, "read", fail)
    with pytest.raises(refused) as caught:
        identity(tmp_path)
    assert (number == errno.EACCES) is ("reset" in str(caught.value))
