"""One training from the plan to the output folder: what ``fleet train`` does. Participants, outside and watcher are
passed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from central.client.training import completed
from central.federated import columns, history, model_file
from central.federated.checkpoint import BadCheckpoint, Checkpoint
from central.federated.columns import Columns
from central.federated.federation import Event, Federation, Outside
from central.federated.model_file import ModelFile
from central.federated.output import Output, fits
from central.federated.participants import Participant
from central.federated.plan import TrainingPlan
from central.federated.rounds import RoundRules, quorum_of


class Watcher(Protocol):
    """Gets every event. ``done`` gets the history entry of each finished round."""

    def tell(self, event: Event) -> None: ...

    def done(self, entry: Mapping[str, Any]) -> None: ...


class FederatedTraining:
    """This and ``run`` raise Mistake, BadCheckpoint, ValueError (for the quorum), QuorumMissed and OSError."""

    def __init__(self, plan: TrainingPlan, made: ModelFile, warn: Callable[[str], None]) -> None:
        self._plan = plan
        self._made = made
        self._warn = warn
        self._output = Output(Path(plan.output))
        self.rules = RoundRules(quorum_of(plan.quorum, len(plan.lines)), plan.deadline, grace=plan.grace)
        self.config = plan.training_config(made.config)
        completed(self.config.told(1, ""))
        if unused := plan.unused(made.config):
            warn(unused)
        self._settings = plan.settings(self.config, made.digest)
        self.model = model_file.fresh(made, self.config.seed)
        self.kept = self._start()

    def _start(self) -> Checkpoint:
        """Round 0 of a new training, or the checkpoint of the previous run."""
        found = self._output.open(resume=self._plan.resume)
        if found is None:
            initial = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            return Checkpoint(0, initial, self._settings)
        if problem := fits(found.parameters, self.model.state_dict()):
            raise BadCheckpoint(f"the checkpoint in {self._output.folder} does not fit {self._plan.model}: {problem}")
        self.agree(_columns(found.settings, self.config.more))
        for difference in _differences(found.settings, self._settings):
            self._warn(f"the settings differ from the previous run: {difference}")
        return replace(found, settings=self._settings)

    def agree(self, agreed: Columns | None) -> None:
        """Train on these columns in every round, at every datasite."""
        if agreed is not None:
            self.config = replace(self.config, more={**self.config.more, **agreed.config()})
            self._settings = self._plan.settings(self.config, self._made.digest)

    def run(
        self,
        participants: Sequence[Participant],
        outside: Outside,
        watcher: Watcher,
        away: Mapping[str, str] | None = None,
    ) -> Checkpoint:
        """The checkpoint after the last round. Each round's checkpoint is on the disk before the next round begins.
        ``away``: why a participant does not answer, by its name."""
        federation = Federation(participants, self.config, self.rules, outside, watcher.tell, away)
        for kept in self._rounds(federation):
            self._output.after_round(kept)
            self.kept = kept
            watcher.done(kept.history[-1])
        self._output.at_end(self.kept)
        return self.kept

    def _rounds(self, federation: Federation) -> Iterator[Checkpoint]:
        for result in federation.run(self.kept.parameters, self.kept.number + 1, self._plan.rounds):
            entry = history.entry(result, self._measured(result.parameters))
            yield Checkpoint(result.number, result.parameters, self._settings, (*self.kept.history, entry))

    def _measured(self, parameters: Mapping[str, torch.Tensor]) -> dict[str, float]:
        self.model.load_state_dict(parameters)
        return model_file.measured(self._made, self.model)


def _columns(before: Mapping[str, Any], config: Mapping[str, Any]) -> Columns | None:
    """The columns of the previous run, as far as the configuration names none now."""
    kept, named = columns.given(before), columns.given(config)
    if not kept.features or (named.target and named.target != kept.target):
        return None
    return Columns(named.target or kept.target, named.features or kept.features)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    keys = dict.fromkeys((*before, *now))
    return [f"{key} is {now.get(key)!r}, was {before.get(key)!r}" for key in keys if before.get(key) != now.get(key)]
