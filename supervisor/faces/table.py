"""The picture of a fleet for people: ``FleetSnapshot`` in, rich renderables or plain text out. Pure.

Ages are told from ``taken_at``; no clock is read. Whatever came from outside is shown as text, never as markup.
rich is loaded where a terminal is drawn on: a script that asks every second should not wait for it.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len

from supervisor.faces.formatting import age, clean, duration
from supervisor.record import Wanted, WorkerState
from supervisor.snapshot import FleetSnapshot, HostSnapshot, WorkerSnapshot

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

NOTHING = "-"
_GAP = 2
_FRAME = 11
"""Lines of a display that are neither rows nor reasons, the cursor's included."""
_NEVER_DROPPED = 100
_EXIT_WIDTHS = (28, 12)

_LOOKS: dict[str, tuple[str, str]] = {
    WorkerState.READY: ("●", "green"),
    WorkerState.STARTING: ("◌", "cyan"),
    WorkerState.STOPPING: ("◌", "cyan"),
    WorkerState.UNREADY: ("▲", "yellow"),
    "not answering": ("▲", "yellow"),
    WorkerState.BACKOFF: ("▲", "yellow"),
    WorkerState.QUARANTINED: ("✖", "bold red"),
    WorkerState.DOWN: ("○", "dim"),
}
"""Mark and colour of a state; the table shows the word as well."""


@dataclass(frozen=True, slots=True)
class Column:
    """``weight``: on a narrow terminal the lowest is dropped first; names and states are never dropped."""

    title: str
    short: str
    weight: int
    read: Callable[[WorkerSnapshot, str], str]
    right: bool = False


SILENT = "not answering"


def shown_state(worker: WorkerSnapshot) -> str:
    """A datasite is counted as ready until several probes have failed; that one has failed shows at once."""
    silent = worker.ready and worker.not_answering_s is not None
    return SILENT if silent else clean(worker.state)


def _state(worker: WorkerSnapshot, _: str) -> str:
    return shown_state(worker)


def _registered(worker: WorkerSnapshot, _: str) -> str:
    if worker.registered is None:
        return NOTHING
    if worker.registered:
        return "yes"
    return "beats only" if worker.last_heartbeat else "no"


def _heartbeat(worker: WorkerSnapshot, taken_at: str) -> str:
    return age(worker.last_heartbeat, taken_at) if worker.last_heartbeat else NOTHING


def _last_exit(worker: WorkerSnapshot, _: str) -> str:
    return clean(worker.last_exit) if worker.last_exit else NOTHING


def _restarts(worker: WorkerSnapshot) -> str:
    """``2 (signal)``, ``3 (1 hung, 2 signal)``."""
    by_cause = sorted(worker.restarts_by_cause.items())
    causes = ", ".join(clean(cause) if len(by_cause) == 1 else f"{count} {clean(cause)}" for cause, count in by_cause)
    return f"{worker.restarts} ({causes})" if causes else str(worker.restarts)


def _number(value: float | None, pattern: str) -> str:
    return NOTHING if value is None else pattern.format(value)


def _memory(worker: WorkerSnapshot) -> str:
    """``118M``; of a datasite with a limit ``1.2/4 GB``."""
    limit = (worker.limits or {}).get("max_memory_usage_gb")
    if worker.memory_mb is None or not limit:
        return _number(worker.memory_mb, "{:.0f}M")
    return f"{worker.memory_mb * _MIB / _GB:.1f}/{limit:g} GB"


_MIB, _GB = 1024 * 1024, 10**9


COLUMNS: tuple[Column, ...] = (
    Column("name", "name", _NEVER_DROPPED, lambda w, _: clean(w.name)),
    Column("state", "state", _NEVER_DROPPED, _state),
    Column("wanted", "wanted", 95, lambda w, _: w.wanted),
    Column("pid", "pid", 60, lambda w, _: _number(w.pid, "{}"), right=True),
    Column("port", "port", 90, lambda w, _: str(w.port), right=True),
    Column("device", "dev", 20, lambda w, _: clean(w.device) if w.device else NOTHING),
    Column("up-time", "up", 70, lambda w, _: NOTHING if w.uptime_s is None else duration(w.uptime_s), right=True),
    Column("restarts", "rst", 80, lambda w, _: _restarts(w), right=True),
    Column("last exit", "exit", 50, _last_exit),
    Column("ready", "rdy", 10, lambda w, _: "yes" if w.ready else "no"),
    Column("registered", "reg", 55, _registered),
    Column("heartbeat", "beat", 65, _heartbeat, right=True),
    Column("CPU", "CPU", 30, lambda w, _: _number(w.cpu_percent, "{:.1f}%"), right=True),
    Column("memory", "mem", 40, lambda w, _: _memory(w), right=True),
    Column("limited", "lim", 75, lambda w, _: ",".join(map(clean, w.limited)) or NOTHING),
)


def workers(snapshot: FleetSnapshot) -> list[WorkerSnapshot]:
    """Every supervised process, datasites first."""
    return [*snapshot.datasites, *([snapshot.dashboard] if snapshot.dashboard else [])]


# --- on a terminal ---


def fleet_view(snapshot: FleetSnapshot, width: int, height: int | None = None, footer: str = "") -> RenderableType:
    """Header, table and the reasons under it, for a terminal ``width`` columns wide.

    With ``height`` it fits that many lines: what is not ready is shown first, and what is left out is counted.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(header(snapshot)), Text()]
    reasons = why(snapshot)
    kept = len(reasons) if height is None else min(len(reasons), max(1, height // 3))
    shown, left_out = _chosen(workers(snapshot), None if height is None else height - kept - _FRAME)
    parts.append(fleet_table(shown, snapshot.taken_at, width))
    if left_out:
        parts.append(Text(f"  … and {len(left_out)} more: {_counts(left_out)}", style="dim"))
    if reasons:
        parts += [Text(), *(_reason_line(line) for line in reasons[:kept])]
    if kept < len(reasons):
        parts.append(Text(f"  … and {len(reasons) - kept} more reasons: fleet status", style="dim"))
    if footer:
        parts += [Text(), Text(footer, style="dim")]
    return Group(*parts)


def fleet_table(shown: Sequence[WorkerSnapshot], taken_at: str, width: int) -> Table:
    """The table alone. Columns are shortened, then dropped by weight, until it is at most ``width`` wide."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    layout = _fitting(shown, taken_at, width)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), show_edge=False, pad_edge=False)
    for column in layout.columns:
        table.add_column(layout.title(column), justify="right" if column.right else "left", no_wrap=True)
    for worker in shown:
        cells = (layout.cell(column, worker, taken_at) for column in layout.columns)
        table.add_row(*(Text(text, style=_style(c, worker)) for c, text in zip(layout.columns, cells, strict=True)))
    return table


@dataclass(frozen=True, slots=True)
class _Layout:
    columns: tuple[Column, ...]
    short: bool = False
    exit_width: int = _EXIT_WIDTHS[0]

    def title(self, column: Column) -> str:
        return column.short if self.short else column.title

    def cell(self, column: Column, worker: WorkerSnapshot, taken_at: str) -> str:
        """As a terminal has it: the state with its mark, an exit cause cut to what fits beside the rest."""
        text = column.read(worker, taken_at)
        if column.title == "state":
            return f"{_LOOKS.get(shown_state(worker), ('?', ''))[0]} {text}"
        if column.title == "restarts" and self.short:
            return str(worker.restarts)
        if column.title == "last exit" and len(text) > self.exit_width:
            return f"{text[: self.exit_width - 1]}…"
        return text

    def width(self, shown: Sequence[WorkerSnapshot], taken_at: str) -> int:
        def widest(column: Column) -> int:
            return max([len(self.title(column)), *(cell_len(self.cell(column, w, taken_at)) for w in shown)])

        return sum(widest(column) + _GAP for column in self.columns) - _GAP


def _fitting(shown: Sequence[WorkerSnapshot], taken_at: str, width: int) -> _Layout:
    """The fullest layout that fits; the narrowest if none does."""
    for layout in _layouts(_shown_columns(shown)):
        if layout.width(shown, taken_at) <= width:
            break
    return layout


def _layouts(columns: tuple[Column, ...]) -> Iterator[_Layout]:
    """From the fullest to the narrowest."""
    yield _Layout(columns)
    yield _Layout(columns, short=True)
    for column in sorted(columns, key=lambda column: column.weight):
        yield _Layout(columns, short=True, exit_width=_EXIT_WIDTHS[1])
        if column.weight >= _NEVER_DROPPED:
            return
        columns = tuple(kept for kept in columns if kept is not column)


def _shown_columns(shown: Sequence[WorkerSnapshot]) -> tuple[Column, ...]:
    """Every column that has something to show; ``wanted`` only where the state does not show it."""
    silent = {"wanted": not any(map(_disagrees, shown)), "limited": not any(worker.limited for worker in shown)}
    return tuple(column for column in COLUMNS if not silent.get(column.title))


def _style(column: Column, worker: WorkerSnapshot) -> str:
    if column.title == "state":
        return _LOOKS.get(shown_state(worker), ("?", "magenta"))[1]
    if column.title == "name":
        return "bold"
    if column.title == "registered" and worker.registered is False and not worker.last_heartbeat:
        return "yellow"
    if column.title == "heartbeat" and worker.heartbeat_error:
        return "yellow"
    if column.title == "limited":
        return "yellow"
    return ""


def _disagrees(worker: WorkerSnapshot) -> bool:
    """Whether the state does not show what the operator wants."""
    if worker.wanted == Wanted.DOWN:
        return worker.state != WorkerState.DOWN
    return worker.state in (WorkerState.DOWN, WorkerState.STOPPING)


def _chosen(candidates: list[WorkerSnapshot], room: int | None) -> tuple[list[WorkerSnapshot], list[WorkerSnapshot]]:
    """Which rows to show in ``room`` lines, and the rest, in the fleet's order; ready ones are left out first."""
    if room is None or len(candidates) <= room:
        return candidates, []
    ranked = sorted(range(len(candidates)), key=lambda at: (shown_state(candidates[at]) == WorkerState.READY, at))
    kept = set(ranked[: max(1, room)])
    return (
        [worker for at, worker in enumerate(candidates) if at in kept],
        [worker for at, worker in enumerate(candidates) if at not in kept],
    )


def _counts(counted: Sequence[WorkerSnapshot]) -> str:
    seen = Counter(shown_state(worker) for worker in counted)
    known = [state.value for state in WorkerState if state.value in seen]
    others = [state for state in seen if state not in known]
    order = sorted(known, key=lambda state: state != WorkerState.READY) + others
    return ", ".join(f"{seen[state]} {clean(state)}" for state in order)


# --- header and reasons ---


def header(snapshot: FleetSnapshot) -> str:
    """Fleet, supervisor, counts and the embedded dashboard, in one or two lines."""
    going = ", stopping" if snapshot.stopping else ""
    line = (
        f"fleet {clean(snapshot.fleet)}: {_counts(snapshot.datasites) or 'no datasites'}{going}"
        f" (supervisor pid {snapshot.supervisor_pid}, up {duration(snapshot.supervisor_uptime_s)})"
    )
    if snapshot.dashboard:
        line += f"\ndashboard: {clean(snapshot.dashboard.url)}"
    return line


def why(snapshot: FleetSnapshot) -> list[str]:
    """One line for each worker that is not ready, for each whose dashboard does not hear it, for each at a limit; and
    for each limit of all datasites together."""
    seen = workers(snapshot)
    troubled = [worker for worker in seen if shown_state(worker) != WorkerState.READY]
    waiting = [_why_silent(worker) if worker.ready else _why_not_ready(worker) for worker in troubled]
    unheard = [line for worker in seen if worker.ready and (line := _why_unheard(worker))]
    limited = [line for worker in seen if worker.ready for line in _at_limits(worker, snapshot.host)]
    return waiting + unheard + _host_at_limits(snapshot.host) + limited


def _why_silent(worker: WorkerSnapshot) -> str:
    name, since = clean(worker.name), duration(worker.not_answering_s or 0.0)
    return f"{name} {SILENT} for {since}: {clean(worker.not_answering)}; next step: fleet logs {name}"


def _why_not_ready(worker: WorkerSnapshot) -> str:
    parts = [clean(worker.reason) or "reason unknown"]
    if worker.next_attempt_s is not None:
        parts.append(f"next attempt in {duration(worker.next_attempt_s)}")
    if step := next_step(worker):
        parts.append(f"next step: {step}")
    under_way = worker.state in (WorkerState.STARTING, WorkerState.STOPPING)
    since = f" for {duration(worker.since_s)}" if under_way else ""
    return f"{clean(worker.name)} {clean(worker.state)}{since}: {'; '.join(parts)}"


def next_step(worker: WorkerSnapshot) -> str:
    """What the operator can do about a worker that is not ready; empty when waiting is enough."""
    name = clean(worker.name)
    match worker.state:
        case WorkerState.QUARANTINED:
            return f"fleet logs {name}, then fleet restart {name}"
        case WorkerState.BACKOFF | WorkerState.UNREADY:
            return f"fleet logs {name}"
        case WorkerState.DOWN:
            return f"fleet start {name}"
    return ""


def _why_unheard(worker: WorkerSnapshot) -> str:
    name = clean(worker.name)
    if worker.heartbeat_error:
        return f"{name} heartbeat fails: {clean(worker.heartbeat_error)}"
    if worker.registered is False and not worker.last_heartbeat:
        return f"{name} not registered: {clean(worker.registration) or 'the dashboard does not answer'}"
    return ""


def _host_at_limits(host: HostSnapshot) -> list[str]:
    reached = [f"host at its limit: {clean(words)}" for words in host.limited.values()]
    return reached + [f"host near its limit: {clean(words)}" for words in host.near_limits.values()]


def _at_limits(worker: WorkerSnapshot, host: HostSnapshot) -> list[str]:
    """Its own limits; those of the host are shown once."""
    name = clean(worker.name)
    reached = [
        f"{name} at its limit: {clean(words)}" for key, words in worker.limited.items() if key not in host.limited
    ]
    return reached + [f"{name} near its limit: {clean(words)}" for words in worker.near_limits.values()]


def _reason_line(line: str) -> Text:
    from rich.text import Text

    name, _, rest = line.partition(" ")
    return Text.assemble((name, "bold"), f" {rest}", overflow="fold")


# --- everywhere else ---


def plain(snapshot: FleetSnapshot) -> str:
    """The same picture as whole lines without colour, mark or box, for pipes and files."""
    lines = [header(snapshot), "", *_plain_rows(snapshot)]
    reasons = why(snapshot)
    return "\n".join([*lines, "", *reasons] if reasons else lines)


def _plain_rows(snapshot: FleetSnapshot) -> list[str]:
    shown = workers(snapshot)
    columns = _shown_columns(shown)
    rows = [[column.title for column in columns]]
    rows += [[column.read(worker, snapshot.taken_at) for column in columns] for worker in shown]
    widths = [max(map(cell_len, cells)) for cells in zip(*rows, strict=True)]
    return [_plain_row(row, columns, widths) for row in rows]


def _plain_row(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    parts = []
    for text, column, width in zip(cells, columns, widths, strict=True):
        blanks = " " * (width - cell_len(text))
        parts.append(blanks + text if column.right else text + blanks)
    return (" " * _GAP).join(parts).rstrip()


def text_of(view: RenderableType, width: int = 100_000) -> str:
    """``view`` as plain text, without trailing blanks."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, emoji=False, markup=False)
    with console.capture() as caught:
        console.print(view)
    return "\n".join(line.rstrip() for line in caught.get().splitlines())
