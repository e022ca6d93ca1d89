"""Times of benchmarks over commits, read from the sessions that `pytest --benchmark-only` keeps: one history for each machine."""

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import paths
from harness.bench.store import BenchSession, benchmark_name
from harness.errors import UserError

FEWEST_ROUNDS = 3  # of a session: fewer have no quartiles


@dataclass(frozen=True, kw_only=True)
class Point:
    """The times of a benchmark at one commit, those of all its sessions with one version of torch together.

    Attributes:
        commit: its short hash.
        date: of the commit, YYYY-MM-DD HH:MM in UTC.
        torch: the version.
        median, low, high: milliseconds for one unit: the median of all rounds, and their quartiles.
        rounds: their number.
        load: the highest load average that a session began under.
    """

    commit: str
    date: str
    torch: str
    median: float
    low: float
    high: float
    rounds: int
    load: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """The history of one benchmark on one machine.

    Attributes:
        name: of the benchmark, as metrics of `store` name it.
        unit: what the times are of, such as a step.
        points: in the order of the commits.
    """

    name: str
    unit: str
    points: tuple[Point, ...]

    @property
    def change(self) -> float | None:
        """The last median over the one before, minus 1; None if there is only one."""
        return self.points[-1].median / self.points[-2].median - 1 if self.points[1:] else None


@dataclass(frozen=True, kw_only=True)
class MachineHistory:
    """All histories of one machine.

    Attributes:
        machine: its folder's name.
        device: in words.
        series: by benchmark, in alphabetical order.
        left_out: the number of sessions that belong to no commit, since files had been changed.
    """

    machine: str
    device: str
    series: tuple[Series, ...]
    left_out: int


def folder() -> Path:
    """Return the folder that has a folder of sessions for each machine."""
    return paths.mlruns() / "bench"


def read(sessions: Path) -> list[MachineHistory]:
    """Return the history of each machine that has one, from the folder of all sessions.

    Raises:
        UserError: no session of a commit is there, or a file is none.
    """
    machines = [_machine(f) for f in sorted(sessions.glob("*/")) if any(f.glob("*.json"))]
    found = [machine for machine in machines if machine.series]
    if not found:
        changed = sum(machine.left_out for machine in machines)
        why = f": the {changed} there were measured with changed files, which belong to no commit" if changed else ""
        raise UserError(
            f"no benchmarks of a commit are on record in {sessions}{why}\n"
            "measure some: make bench, or .venv/bin/python -m pytest tests/bench/test_step_time.py --benchmark-only"
        )
    return found


def _machine(place: Path) -> MachineHistory:
    """Return the history that the files in a machine's folder tell."""
    sessions = [_session(file) for file in sorted(place.glob("*.json"))]
    of_commits = [s for s in sessions if "+" not in s["origin"]["commit"] and s["commit_info"].get("time")]
    units: dict[str, str] = {}
    rounds: dict[str, dict[tuple[str, str, str], list[tuple[float, float]]]] = {}
    for session in of_commits:
        origin = session["origin"]
        moment = session["commit_info"]["time"][:16].replace("T", " ")
        for name, unit, milliseconds in _times(session):
            units[name] = unit
            at = rounds.setdefault(name, {}).setdefault((moment, origin["commit"], origin["torch"]), [])
            at += [(ms, origin["load"]) for ms in milliseconds]
    series = tuple(
        Series(name=name, unit=units[name], points=tuple(_point(*at, of) for at, of in sorted(rounds[name].items())))
        for name in sorted(rounds)
    )
    device = sessions[-1]["origin"]["device"]
    return MachineHistory(machine=place.name, device=device, series=series, left_out=len(sessions) - len(of_commits))


def _session(file: Path) -> BenchSession:
    """Return the session that a file holds.

    Raises:
        UserError: it holds none.
    """
    try:
        session: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        session["origin"]["commit"], session["commit_info"], session["benchmarks"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file} is no session of benchmarks\nmove it elsewhere: only what `make bench` keeps lies there") from None
    return session


def _times(session: BenchSession) -> Iterator[tuple[str, str, list[float]]]:
    """Yield name, unit and the milliseconds for a unit, round by round, of each benchmark that has enough rounds."""
    for bench in session["benchmarks"]:
        facts: Mapping[str, Any] = bench["extra_info"]
        seconds = bench["stats"]["data"]
        if len(seconds) >= FEWEST_ROUNDS:
            yield (
                benchmark_name(bench["fullname"]),
                facts.get("unit", "call"),
                [1e3 * s / facts.get("units", 1) for s in seconds],
            )


def _point(date: str, commit: str, torch: str, rounds: list[tuple[float, float]]) -> Point:
    """Return the point of one commit from its rounds, each in milliseconds with the load of its session."""
    milliseconds = [ms for ms, _ in rounds]
    low, median, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return Point(
        commit=commit,
        date=date,
        torch=torch,
        median=median,
        low=low,
        high=high,
        rounds=len(rounds),
        load=max(load for _, load in rounds),
    )
