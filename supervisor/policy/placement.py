"""Which datasite gets which GPU: ``place`` decides from the requests, the cards, and who had which before. Pure.

What was asked for comes before ``auto``, which takes what is there, or none. Of what was asked for: who had a GPU keeps
it, then exclusive ones, then by memory. A datasite goes to the least loaded GPU; a running one is never moved.
Memory is a claim that is added up, for each GPU of the request; what other programs use only turns the choice away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from supervisor.cards import Card
from supervisor.spec import FleetConfig, GpuRequest

_MOST_TRIES = 5000
"""Steps of the search for a placement; beyond them the last datasite on a full host gets no GPU."""
_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Placement:
    """By name: the UUIDs (none: CPU), what is impossible, and why each datasite has what it has. ``moved``: who runs,
    and has other GPUs now. ``asked``: by name what this is the answer to. ``unseen``: who said ``auto`` and is on the
    CPU only because the GPUs could not be seen."""

    assignments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    moved: tuple[str, ...] = ()
    asked: dict[str, str] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()


class ImpossibleGpus(Exception):
    """This host cannot provide the GPUs that datasites ask for."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("\n".join(f"{name}: gpu: {why}" for name, why in problems.items()))
        self.problems = dict(problems)


class UnseenGpus(Exception):
    """The GPUs are not visible now, and ``names`` ask for some and had none before. Another start may succeed."""

    def __init__(self, trouble: str, names: Collection[str]) -> None:
        super().__init__(f"{trouble}, and {', '.join(names)} {'needs' if len(names) == 1 else 'need'} a GPU")
        self.names = tuple(names)


def requests_of(config: FleetConfig) -> dict[str, GpuRequest]:
    return {spec.name: spec.gpu for spec in config.datasites}


def wants_any(config: FleetConfig) -> bool:
    """Whether any datasite could use a GPU."""
    return any(spec.gpu.mode != "none" for spec in config.datasites)


def place(
    requests: Mapping[str, GpuRequest],
    cards: Sequence[Card],
    previous: Mapping[str, tuple[str, ...]],
    running: Collection[str] = (),
) -> Placement:
    """``previous``: who had which UUIDs. Those in ``running`` keep them while the GPUs are there and fit; the others
    keep them if that prevents nothing."""
    claims, problems = _claims(requests, cards)
    table = _Table.of(cards)
    kept = _keep(requests, claims, table, {name: previous[name] for name in running if name in previous})
    for name, uuids in kept.items():
        table = table.seat(name, uuids, claims.get(name, _AUTO))
    open_claims = _in_order([claim for name, claim in claims.items() if name not in kept], table, previous)
    wishes = {name: previous.get(name, ()) for name, request in requests.items() if request.mode == "auto"}
    table = table.expecting([uuid for name, uuids in wishes.items() if name not in kept for uuid in uuids])
    found = _search(open_claims, table, previous)
    if found is None:
        found, crowded = _one_by_one(open_claims, table, previous, some_kept=bool(kept))
        problems |= crowded
    for claim in open_claims:
        table = table.seat(claim.name, found.get(claim.name, ()), claim)
    uuids_of = kept | found | _autos([name for name in wishes if name not in kept], wishes, table.expecting(()))
    assignments = {name: uuids_of.get(name, ()) for name in requests}
    reasons = _reasons(requests, assignments, previous, problems)
    gone = tuple(name for name in requests if name in running and assignments[name] != previous.get(name, ()))
    return Placement(assignments, problems, reasons, gone, _asked(requests))


def remembered(kept: Placement, requests: Mapping[str, GpuRequest]) -> dict[str, tuple[str, ...]]:
    """Who had which UUIDs for the same request as now. While GPUs are not visible, nobody can say if they fit another
    request."""
    same = {name for name, request in _asked(requests).items() if kept.asked.get(name) == request}
    return {name: uuids for name, uuids in kept.assignments.items() if name in same}


def keeping(
    placement: Placement, requests: Mapping[str, GpuRequest], had: Mapping[str, tuple[str, ...]], trouble: str
) -> Placement:
    """``placement`` while the GPUs are not visible: who has GPUs keeps them, because they may still be there.
    ``trouble``: the reason for others that ask for one."""
    kept = {name: uuids for name, uuids in had.items() if uuids and name in requests and requests[name].mode != "none"}
    problems = dict.fromkeys([name for name in placement.problems if name not in kept], trouble)
    unseen = tuple(name for name, request in requests.items() if request.mode == "auto" and name not in kept)
    cpu = dict.fromkeys(unseen, "auto: the GPUs are not visible")
    stay = {name: f"{in_words(requests[name])}: as before; the GPUs are not visible" for name in kept}
    return replace(
        placement,
        assignments=placement.assignments | kept,
        problems=problems,
        reasons=placement.reasons | problems | cpu | stay,
        moved=tuple(name for name in placement.moved if name not in kept),
        unseen=unseen,
    )


def sees_others(had: tuple[str, ...] | None, has: tuple[str, ...], cards: Collection[Card]) -> bool:
    """Whether a process that was launched with ``had`` must restart. None: without an assignment, so it sees every
    card. One on the CPU is not interrupted for a GPU: it gets it at its next start."""
    return bool(cards) if had is None else had not in ((), has)


# --- what is asked for, against the cards there are ---


@dataclass(frozen=True, slots=True)
class _Claim:
    """A request for ``count`` of ``candidates``, each of which would do. ``named``: exactly these, in this order."""

    name: str
    candidates: tuple[str, ...] = ()
    count: int = 1
    memory: int = 0
    exclusive: bool = False
    named: bool = False
    order: int = 0

    def takes(self, uuids: Collection[str]) -> bool:
        if self.named:
            return uuids == self.candidates
        return len(uuids) == self.count and set(uuids) <= set(self.candidates)


_AUTO = _Claim("")


def _claims(requests: Mapping[str, GpuRequest], cards: Sequence[Card]) -> tuple[dict[str, _Claim], dict[str, str]]:
    """The claims to place, and the requests that these cards can never meet."""
    claims, problems = dict[str, _Claim](), dict[str, str]()
    for order, (name, request) in enumerate(requests.items()):
        if request.mode != "some":
            continue
        try:
            found = _candidates(request, cards)
        except _Hopeless as why:
            problems[name] = str(why)
        else:
            claims[name] = _claim(name, request, found, order)
    return claims, problems


def _claim(name: str, request: GpuRequest, found: Iterable[Card], order: int) -> _Claim:
    uuids, named = tuple(card.uuid for card in found), bool(request.devices)
    return _Claim(name, uuids, _count(request), request.memory_bytes, request.exclusive, named, order)


class _Hopeless(Exception):
    """Why a request can never be met."""


def _count(request: GpuRequest) -> int:
    return len(request.devices) or request.count


def _candidates(request: GpuRequest, cards: Sequence[Card]) -> list[Card]:
    if not cards:
        raise _Hopeless("there is no GPU on this host")
    found = _named(request.devices, cards) if request.devices else _any(request.count, cards)
    large = [card for card in found if card.memory_bytes >= request.memory_bytes]
    if len(large) < _count(request):
        have = ", ".join(f"{card.label} has {_gib(card.memory_bytes)}" for card in found)
        raise _Hopeless(f"needs {_gib(request.memory_bytes)} of memory; {have}")
    return large


def _any(count: int, cards: Sequence[Card]) -> list[Card]:
    usable = [card for card in cards if card.usable]
    if count > 1:
        usable = [card for card in usable if not card.parent]  # CUDA shows a process one MIG instance, never more
    if len(usable) < count:
        raise _Hopeless(
            f"needs {count} GPU{'s' if count > 1 else ''}; this host has {_census(usable, cards, whole=count > 1)}"
        )
    return usable


def _census(usable: Sequence[Card], cards: Sequence[Card], *, whole: bool) -> str:
    what = "whole GPU" if whole and any(card.split for card in cards) else "usable GPU"
    bad = [f"{card.label}: {card.trouble}" for card in cards if card.trouble]
    return f"{len(usable)} {what}{'' if len(usable) == 1 else 's'}" + (f" ({'; '.join(bad)})" if bad else "")


def _named(devices: Sequence[str], cards: Sequence[Card]) -> list[Card]:
    found = [_the_one(device, cards) for device in devices]
    if len({card.uuid for card in found}) < len(found):
        raise _Hopeless(f"{', '.join(devices)} name the same GPU twice")
    if len(found) > 1 and any(card.parent for card in found):
        raise _Hopeless("CUDA shows only one MIG instance to a process: name one")
    return found


def _the_one(device: str, cards: Sequence[Card]) -> Card:
    matching = [card for card in cards if _is(card, device)]
    if not matching:
        known = ", ".join(f"{card.index} ({card.uuid})" for card in cards if not card.parent)
        raise _Hopeless(f"no GPU {device}; known: {known}")
    if len(matching) > 1:
        raise _Hopeless(f"{device} matches {len(matching)} GPUs: {', '.join(c.uuid for c in matching)}")
    (card,) = matching
    if card.split:
        parts = [part.uuid for part in cards if part.parent == card.uuid]
        raise _Hopeless(f"{card.label} is in MIG mode: name one of its instances: {', '.join(parts) or 'it has none'}")
    if card.trouble:
        raise _Hopeless(f"{card.label} cannot be used: {card.trouble}")
    return card


def _is(card: Card, device: str) -> bool:
    """By index, or by UUID or its first characters, as in CUDA."""
    if device.isdecimal():
        return not card.parent and card.index == int(device)
    return card.uuid.lower().startswith(device.lower())


# --- who sits where ---


@dataclass(frozen=True, slots=True)
class _Seat:
    """What is claimed of one card. ``expected``: datasites that would like to come back to it."""

    card: Card
    booked: int = 0
    datasites: tuple[str, ...] = ()
    exclusive: bool = False
    expected: int = 0

    def has_room(self, claim: _Claim) -> bool:
        alone = self.exclusive or (claim.exclusive and self.datasites)
        return not alone and self.booked + claim.memory <= self.card.memory_bytes

    def load(self, claim: _Claim) -> tuple[float, ...]:
        """Claims with memory look at memory first, others at the number of datasites."""
        share = self.booked / max(1, self.card.memory_bytes)
        load = len(self.datasites) + self.expected
        foreign = max(0, self.card.memory_bytes - self.card.free_bytes) // _GIB
        first = (share, load) if claim.memory else (load, share)
        return (*first, foreign, self.card.index)


@dataclass(frozen=True, slots=True)
class _Table:
    seats: dict[str, _Seat]

    @classmethod
    def of(cls, cards: Iterable[Card]) -> _Table:
        return cls({card.uuid: _Seat(card) for card in cards if card.usable})

    def seat(self, name: str, uuids: Iterable[str], claim: _Claim) -> _Table:
        taken = {
            uuid: replace(
                self.seats[uuid],
                booked=self.seats[uuid].booked + claim.memory,
                datasites=(*self.seats[uuid].datasites, name),
                exclusive=claim.exclusive,
            )
            for uuid in uuids
        }
        return _Table(self.seats | taken)

    def expecting(self, uuids: Iterable[str]) -> _Table:
        wished = list(uuids)
        return _Table({uuid: replace(seat, expected=wished.count(uuid)) for uuid, seat in self.seats.items()})

    def have_room(self, uuids: Iterable[str], claim: _Claim) -> bool:
        return all(uuid in self.seats and self.seats[uuid].has_room(claim) for uuid in uuids)

    def least_loaded(self, uuids: Iterable[str], claim: _Claim) -> list[str]:
        """Those with room, the least loaded first."""
        free = [uuid for uuid in uuids if self.seats[uuid].has_room(claim)]
        return sorted(free, key=lambda uuid: (self.seats[uuid].load(claim), uuid))


def _keep(
    requests: Mapping[str, GpuRequest],
    claims: Mapping[str, _Claim],
    table: _Table,
    had: Mapping[str, tuple[str, ...]],
) -> dict[str, tuple[str, ...]]:
    """The running datasites that can stay where they are."""
    kept = dict[str, tuple[str, ...]]()
    for name in sorted((name for name in requests if name in had), key=lambda name: name not in claims):
        uuids, claim = had[name], claims.get(name, _AUTO)
        stays = claim.takes(uuids) if name in claims else requests[name].mode == "auto" and len(uuids) <= 1
        if stays and table.have_room(uuids, claim):
            kept[name] = uuids
            table = table.seat(name, uuids, claim)
    return kept


# --- the search ---


def _in_order(claims: Iterable[_Claim], table: _Table, previous: Mapping[str, tuple[str, ...]]) -> list[_Claim]:
    def newcomer(claim: _Claim) -> bool:
        had = previous.get(claim.name, ())
        return not (claim.takes(had) and table.have_room(had, claim))

    return sorted(claims, key=lambda one: (newcomer(one), not one.exclusive, -one.memory, one.order))


def _options(claim: _Claim, table: _Table, previous: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Every way to meet a claim, the best first."""
    had = claim.candidates if claim.named else previous.get(claim.name, ())
    if claim.takes(had) and table.have_room(had, claim):
        yield had
    if claim.named:
        return
    for some in combinations(table.least_loaded(claim.candidates, claim), claim.count):
        if some != had:
            yield some


def _search(
    claims: Sequence[_Claim], start: _Table, previous: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]] | None:
    """A placement of all claims, each with the best option that leaves the others theirs; None: none was found.

    Depth first; the first way down is the greedy one, and on a host with room the only one that is tried.
    """
    chosen: list[tuple[str, ...]] = []
    tables, levels = [start], [_options(claims[0], start, previous)] if claims else []
    for _ in range(_MOST_TRIES + len(claims)):
        if len(chosen) == len(claims):
            return {claim.name: uuids for claim, uuids in zip(claims, chosen, strict=True)}
        option = next(levels[-1], None)
        if option is not None:
            claim = claims[len(chosen)]
            chosen.append(option)
            tables.append(tables[-1].seat(claim.name, option, claim))
            if len(chosen) < len(claims):
                levels.append(_options(claims[len(chosen)], tables[-1], previous))
            continue
        levels.pop()
        if not chosen:
            return None
        chosen.pop()
        tables.pop()
    return None


def _one_by_one(
    claims: Sequence[_Claim], table: _Table, previous: Mapping[str, tuple[str, ...]], *, some_kept: bool
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Not all requests can be met: the first ones are, and each other gets the reason."""
    found, problems = dict[str, tuple[str, ...]](), dict[str, str]()
    for claim in claims:
        option = next(_options(claim, table, previous), None)
        if option is None:
            problems[claim.name] = _crowded(claim, table) + ("; a running datasite keeps its GPUs" if some_kept else "")
        else:
            found[claim.name] = option
            table = table.seat(claim.name, option, claim)
    return found, problems


def _crowded(claim: _Claim, table: _Table) -> str:
    what = f"{claim.count} {'exclusive ' if claim.exclusive else ''}GPU{'s' if claim.count > 1 else ''}"
    what += f" with {_gib(claim.memory)}" if claim.memory else ""
    return f"no room for {what}: {'; '.join(_held(table.seats[uuid]) for uuid in claim.candidates)}"


def _held(seat: _Seat) -> str:
    if not seat.datasites:
        return f"{seat.card.label} is free"
    whose = f"{seat.card.label} is {'held exclusively by' if seat.exclusive else 'held by'} {', '.join(seat.datasites)}"
    return f"{whose}, {_gib(seat.booked)} of {_gib(seat.card.memory_bytes)} reserved" if seat.booked else whose


def _autos(names: Sequence[str], wishes: Mapping[str, tuple[str, ...]], table: _Table) -> dict[str, tuple[str, ...]]:
    """Back to their former card if possible, else to the least loaded one, else to the CPU."""
    found = dict[str, tuple[str, ...]]()
    for name in sorted(names, key=lambda name: not wishes[name]):
        back = len(wishes[name]) == 1 and table.have_room(wishes[name], _AUTO)
        found[name] = wishes[name] if back else tuple(table.least_loaded(table.seats, _AUTO)[:1])
        table = table.seat(name, found[name], _AUTO)
    return found


# --- why ---


def _reasons(
    requests: Mapping[str, GpuRequest],
    assignments: Mapping[str, tuple[str, ...]],
    previous: Mapping[str, tuple[str, ...]],
    problems: Mapping[str, str],
) -> dict[str, str]:
    return {
        name: problems.get(name) or _reason(request, assignments[name], previous.get(name))
        for name, request in requests.items()
    }


def _reason(request: GpuRequest, uuids: tuple[str, ...], had: tuple[str, ...] | None) -> str:
    if request.mode == "none":
        return "gpu: none"
    if not uuids:
        return "auto: no GPU is available" if request.mode == "auto" else ""
    how = "as before" if uuids == had else "least loaded"
    return f"{in_words(request)}: {'as named' if request.devices else how}"


def _asked(requests: Mapping[str, GpuRequest]) -> dict[str, str]:
    return {name: in_words(request) for name, request in requests.items()}


def in_words(request: GpuRequest) -> str:
    """What a datasite asks for, in words."""
    if request.mode != "some":
        return request.mode
    parts = [" ".join(request.devices) if request.devices else f"{request.count} GPU{'s' if request.count > 1 else ''}"]
    parts += [_gib(request.memory_bytes)] if request.memory_bytes else []
    parts += ["exclusive"] if request.exclusive else []
    return ", ".join(parts)


def _gib(count: int) -> str:
    return f"{count / _GIB:.1f} GiB"
