"""Generate vibration data of healthy and failing rolling-element bearings, from the physics of the defect.

    python bearings.py --folder data --seed 7       writes NAME.csv and NAME-mock.csv for each line, and test.npz

Why synthetic: the public bearing sets (CWRU, Paderborn, MAFAULDA) are downloads of hundreds of megabytes, and PyPI has
only downloaders for them. This generator needs no network, and what is in its data is known exactly.

The model is that of McFadden and Smith (1984) with the random slip of Antoni and Randall (2003). Each time a rolling
element passes a defect, it strikes the structure, which rings and decays:

    x(t) = sum_k A_k s(t - k T - tau_k) + shaft harmonics + noise,    s(t) = exp(-zeta w t) sin(w t) for t >= 0

T is the time between strikes. Geometry and shaft speed f_r give its rate for n elements of diameter d on a pitch circle
D with contact angle phi (Randall and Antoni 2011, eq. 1 to 4):

    BPFO = n/2 f_r (1 - d/D cos phi)             outer race
    BPFI = n/2 f_r (1 + d/D cos phi)             inner race
    BSF  = D/(2d) f_r (1 - (d/D cos phi)^2)      ball, which strikes both races: twice a turn
    FTF  = f_r/2 (1 - d/D cos phi)               cage

tau_k is the slip, 1 % of T. A_k is the load on the defect when it strikes: constant on the fixed outer race, modulated
with f_r on the inner race, which turns through the load zone, and with FTF on a ball, which the cage carries through.

The features of each window are those of a condition monitor: level, impulsiveness, and the prominence of the four rates
and their harmonics in the spectrum of the envelope.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STATES = ("healthy", "inner", "outer", "ball")
RATE = 10_000  # samples a second
WINDOW = 4_096  # samples: 0.41 s
FEATURES = (
    "rms", "kurtosis", "crest", "skewness", "envelope_variation",
    "bpfo_1", "bpfo_2", "bpfi_1", "bpfi_2", "bsf_1", "bsf_2", "ftf_1", "shaft_1", "sideband_shaft", "sideband_cage",
    "speed", "load",
)  # fmt: skip


@dataclass(frozen=True)
class Bearing:
    """Rolling elements, their diameter, the pitch diameter (mm), the contact angle (radians)."""

    elements: int
    ball: float
    pitch: float
    angle: float = 0.0

    def orders(self) -> dict[str, float]:
        """The four rates, in strikes per turn of the shaft."""
        ratio = self.ball / self.pitch * np.cos(self.angle)
        return {
            "outer": self.elements / 2 * (1 - ratio),
            "inner": self.elements / 2 * (1 + ratio),
            "ball": self.pitch / (2 * self.ball) * (1 - ratio**2) * 2,
            "cage": (1 - ratio) / 2,
        }


@dataclass(frozen=True)
class Machine:
    """The machine of one production line. ``counts``: the windows of each state in its history."""

    name: str
    bearing: Bearing
    speed: tuple[float, float]  # turns a second, from and to
    load: tuple[float, float]  # of the nominal
    resonance: float  # Hz, of the structure between bearing and sensor
    noise: float
    counts: Mapping[str, int]


MACHINES = (
    Machine("press", Bearing(9, 7.94, 39.04), (28.0, 30.5), (0.7, 1.2), 3_300.0, 1.0,
            {"healthy": 800, "inner": 200, "outer": 200, "ball": 0}),
    Machine("conveyor", Bearing(8, 9.53, 46.4), (15.0, 22.0), (0.3, 0.8), 2_100.0, 0.8,
            {"healthy": 300, "inner": 0, "outer": 90, "ball": 90}),
    Machine("spindle", Bearing(12, 6.35, 44.0, 0.26), (45.0, 55.0), (0.4, 0.6), 4_100.0, 1.3,
            {"healthy": 110, "inner": 40, "outer": 0, "ball": 40}),
)  # fmt: skip
NOWHERE = Machine("mock", Bearing(10, 8.0, 42.0), (20.0, 40.0), (0.5, 1.0), 3_000.0, 1.0, {})
TEST_WINDOWS = 100  # of each state, of each machine


def window(machine: Machine, state: str, chance: np.random.Generator) -> tuple[Array, float, float]:
    """The vibration, the speed (turns a second) and the load of one window."""
    speed, load = chance.uniform(*machine.speed), chance.uniform(*machine.load)
    time = np.arange(WINDOW) / RATE
    shaft = sum(
        chance.uniform(0.2, 0.6) * np.sin(2 * np.pi * turn * speed * time + chance.uniform(0, 2 * np.pi))
        for turn in (1, 2, 3)
    )
    signal = shaft + machine.noise * chance.normal(size=WINDOW)
    if state != "healthy":
        signal += _ringing(machine, state, speed, load, chance)
    return signal, speed, load


def _ringing(machine: Machine, state: str, speed: float, load: float, chance: np.random.Generator) -> Array:
    orders = machine.bearing.orders()
    period = 1 / (orders[state] * speed)
    strikes = np.arange(-2, WINDOW / RATE / period) * period
    strikes = strikes + chance.uniform(0, period) + chance.normal(0, 0.01 * period, len(strikes))
    severity = chance.lognormal(np.log(4.0), 0.35) * (0.5 + 0.5 * load)
    turns = {"outer": 0.0, "inner": speed, "ball": orders["cage"] * speed}[state]
    depth = {"outer": 0.0, "inner": 0.7, "ball": 0.6}[state]
    loads = 1 + depth * np.cos(2 * np.pi * turns * strikes + chance.uniform(0, 2 * np.pi))
    weights = severity * loads * chance.lognormal(0, 0.15, len(strikes))
    train = np.zeros(WINDOW)
    at = np.round(strikes * RATE).astype(int)
    inside = (at >= 0) & (at < WINDOW)
    np.add.at(train, at[inside], weights[inside])
    decay = np.arange(int(0.006 * RATE)) / RATE
    turn = 2 * np.pi * machine.resonance
    return np.convolve(train, np.exp(-0.06 * turn * decay) * np.sin(turn * decay))[:WINDOW]


def features(signal: Array, speed: float, load: float, bearing: Bearing) -> list[float]:
    """The features of a window, in the order of FEATURES. All but the last two are dimensionless."""
    level = float(np.sqrt(np.mean(signal**2)))
    shape = (signal - signal.mean()) / signal.std()
    envelope = _envelope(signal)
    spectrum = np.abs(np.fft.rfft((envelope - envelope.mean()) * np.hanning(len(envelope))))
    orders = bearing.orders()

    def at(order: float) -> float:
        return _prominence(spectrum, order * speed)

    return [
        np.log(level),
        np.log(np.mean(shape**4)),
        np.log(np.abs(signal).max() / level),
        float(np.mean(shape**3)),
        float(envelope.std() / envelope.mean()),
        *(at(turn * orders[name]) for name in ("outer", "inner", "ball") for turn in (1, 2)),
        at(orders["cage"]),
        at(1.0),
        at(orders["inner"] - 1) + at(orders["inner"] + 1),
        at(orders["ball"] - orders["cage"]) + at(orders["ball"] + orders["cage"]),
        speed / 30.0,
        load,
    ]


def _envelope(signal: Array) -> Array:
    """The modulus of the analytic signal above 1 kHz, where the structure rings and the shaft does not."""
    spectrum = np.fft.fft(signal)
    hertz = np.fft.fftfreq(len(signal), 1 / RATE)
    analytic: Array = np.abs(np.fft.ifft(np.where(hertz > 1_000, 2 * spectrum, 0)))
    return analytic


def _prominence(spectrum: Array, hertz: float) -> float:
    """The logarithm of the peak within 1.5 % of ``hertz``, relative to the median around it."""
    bins = hertz * WINDOW / RATE
    reach = max(1.0, 0.015 * bins)
    peak = spectrum[int(np.floor(bins - reach)) : int(np.ceil(bins + reach)) + 1].max()
    around = spectrum[max(2, int(bins - 25)) : int(bins + 26)]
    return float(np.log(peak / np.median(around)))


def rows(machine: Machine, counts: Mapping[str, int], chance: np.random.Generator) -> tuple[Array, NDArray[np.int64]]:
    """Features and states of ``counts`` windows, in random order."""
    states = np.repeat(np.arange(len(STATES)), [counts[state] for state in STATES])
    chance.shuffle(states)
    vectors = [features(*window(machine, STATES[state], chance), machine.bearing) for state in states]
    return np.array(vectors), states.astype(np.int64)


def write(folder: Path, seed: int) -> None:
    """Write the history and the mock of each line, and the test set with all four states of every machine.

    The centre may see the mock: a few windows of a machine that does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    some = {"healthy": 8, "inner": 4, "outer": 4, "ball": 4}
    for number, machine in enumerate(MACHINES):
        _write_table(
            folder / f"{machine.name}.csv", *rows(machine, machine.counts, np.random.default_rng([seed, number]))
        )
        _write_table(
            folder / f"{machine.name}-mock.csv", *rows(NOWHERE, some, np.random.default_rng([seed, number, 2]))
        )
    every = dict.fromkeys(STATES, TEST_WINDOWS)
    tests = [rows(machine, every, np.random.default_rng([seed, number, 1])) for number, machine in enumerate(MACHINES)]
    np.savez(
        folder / "test.npz",
        x=np.concatenate([x for x, _ in tests]).astype(np.float32),
        y=np.concatenate([y for _, y in tests]),
        machine=np.repeat([machine.name for machine in MACHINES], [len(y) for _, y in tests]),
    )


def _write_table(path: Path, x: Array, y: NDArray[np.int64]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*FEATURES, "state"])
        table.writerows([*(f"{value:.6g}" for value in row), state] for row, state in zip(x, y, strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("data"), help="where to write (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the data (default: %(default)s)")
    options = parser.parse_args(arguments)
    write(options.folder, options.seed)


if __name__ == "__main__":
    main()
