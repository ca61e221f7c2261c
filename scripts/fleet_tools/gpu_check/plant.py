"""A fleet with GPUs in a temporary folder, and the clients of its datasites."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import yaml

from fleet_tools.gpu_check.verdict import Unmeasured
from fleet_tools.processes import inhabitants
from fleet_tools.temporary_fleet import TemporaryFleet

_ANSWER = 90.0


class Site:
    """The owner's client of one datasite. It keeps working after the datasite restarts."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._known: set[str] = set()

    def ask(self, function: Any, **arguments: Any) -> dict[str, Any]:
        """Its answer, from the serving process."""
        return _answer(self._submitted(function)(**arguments))

    def ask_job(self, function: Any, **arguments: Any) -> dict[str, Any]:
        """Its answer, from a process of its own."""
        return _answer(self.queue(function, **arguments).wait(timeout=_ANSWER))

    def queue(self, function: Any, **arguments: Any) -> Any:
        """The job, which may wait."""
        return self._submitted(function)(blocking=False, **arguments)

    def _submitted(self, function: Any) -> Any:
        import syft as sy

        if function.__name__ not in self._known:
            wrapped = sy.syft_function(share_results_with_owners=True)(function)
            self._client.code.request_code_execution(wrapped).approve(approve_nested=True)
            self._known.add(function.__name__)
        return getattr(self._client.code, function.__name__)


def _answer(answer: Any) -> dict[str, Any]:
    bare = answer.get() if hasattr(answer, "get") and not isinstance(answer, dict) else answer
    try:
        return dict(json.loads(str(bare)))
    except ValueError as error:
        raise Unmeasured(f"the datasite answered: {' '.join(str(bare).split())[-400:]}") from error


class Plant(TemporaryFleet):
    """``asked``: the value of ``gpu:`` by datasite. Nothing runs when made."""

    title = "gpu-check"

    def __init__(self, folder: Path, asked: Mapping[str, str]) -> None:
        super().__init__(folder, asked)
        self.keys = {name: {"gpu": yaml.safe_load(value)} for name, value in asked.items()}
        self.write()
        self._sites: dict[str, Site] = {}

    def holders(self) -> dict[str, dict[str, Any]]:
        """What ``fleet gpus --json`` reports about each datasite."""
        return {line["name"]: line for line in self.answer("gpus")["lines"]}

    def gpus(self, name: str) -> list[str]:
        return list(self.holders()[name]["gpus"])

    def site(self, name: str) -> Site:
        if name not in self._sites:
            self._sites[name] = Site(self.login(name))
        return self._sites[name]

    def started(self) -> bool:
        """Whether anything of it ever ran."""
        return bool(list(self.state_folder.run.glob("*.json"))) or bool(inhabitants([self.folder], named=True))


@contextmanager
def plant(folder: Path, asked: Mapping[str, str]) -> Iterator[Plant]:
    """A fleet that may be brought up, and is down afterwards."""
    folder.mkdir()
    with closing(Plant(folder, asked)) as made:
        yield made
