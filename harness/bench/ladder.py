"""The ladder: every way to train the reference model, timed round-robin in one run, as ratios to the usual loop."""

import datetime
import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from harness import devices, provenance
from harness.bench import machine, rungs
from harness.bench.jax_peer import version
from harness.bench.machine import BATCH, Spent
from harness.bench.rungs import EAGER, GRAPH, JAX, REFERENCE, Rung
from harness.errors import HarnessError, UserError
from harness.runner.progress import clock

BUDGET_S = 240.0  # of all rounds, compiling not counted
LANES = (2, 4, 8, 16, 32, 64)
MANY_LANES = (128, 256)  # a GPU has room for them


@dataclass(frozen=True, kw_only=True)
class LadderRow:
    """A rung's figures, medians over rounds; or why it has none.

    wall_ms, cpu_ms: of a step of one trial. ratio: how many times faster than the reference loop of the same round; low and high
    are its quartiles. peak: the part of the machine's rate in fp32 products. flop, bytes: of a step of all its lanes.
    """

    name: str
    lanes: int = 1
    wall_ms: float = 0.0
    cpu_ms: float = 0.0
    images_per_s: float = 0.0
    ratio: float = 0.0
    low: float = 0.0
    high: float = 0.0
    peak: float = 0.0
    compile_s: float | None = None
    reason: str = ""

    @property
    def flop(self) -> int:
        return self.lanes * BATCH * machine.flop_per_sample()

    @property
    def bytes(self) -> int:
        return self.lanes * machine.bytes_per_step()


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """All rows, and what they were measured on. `gflops` is the rate of the yardstick product in the same run."""

    rows: Sequence[LadderRow]
    device: str
    threads: int
    rounds: int
    by_threads: bool  # whether threads matter: on a CPU
    by_cpu: bool  # whether CPU time judges, not the wall's: one thread of a CPU, where it does not count what others run
    gflops: float
    versions: str
    commit: str
    load: tuple[float, float]
    date: str

    @property
    def waited(self) -> float:
        """How much longer than its CPU time a rung took on the wall, median: on one thread of a quiet machine next to nothing."""
        return statistics.median(r.wall_ms / r.cpu_ms for r in self.rows if not r.reason) - 1


def ladder(
    device: str,
    threads: int,
    rounds: int,
    lanes: Sequence[int],
    console: Console,
    budget_s: float = BUDGET_S,
) -> Ladder:
    """Time every rung on `device`, `rounds` rounds; `lanes` by operation and as one graph.

    The lanes whose rounds would not fit in `budget_s` are left out and say so.
    """
    if threads < 1 or rounds < 2:
        raise UserError(f"a ladder takes at least 1 thread and 2 rounds, got {threads} and {rounds}")
    where, before = devices.device(device), torch.get_num_threads()
    rungs.mnist()  # a data set that is missing is said at once
    load = os.getloadavg()[0]
    torch.set_num_threads(threads)
    try:
        with ExitStack() as stack, _progress(console) as progress:
            builders = plan(where, threads, lanes, stack)
            names = list(builders)
            standing, absent = _build(builders, progress, budget_s / rounds)
            rate = Rung("", partial(machine.timed, where, machine.product(where)), 1)
            round_s = sum(standing.values()) + _warm(rate)
            console.print(f"{len(standing)} rungs, {rounds} rounds: about {clock(rounds * round_s)}", highlight=False)
            task = progress.add_task("rounds", total=rounds)
            times = race([*standing, rate], rounds, lambda: progress.advance(task))
    finally:
        torch.set_num_threads(before)
    by_cpu = where.type == "cpu" and threads == 1
    gflops = machine.flop_of_product() / statistics.median(_used(t, by_cpu) for t in times[""]) / 1e9
    rows = [_row(r, times, by_cpu, gflops) for r in standing] + [LadderRow(name=n, reason=why) for n, why in absent.items()]
    tags = provenance.tags()
    return Ladder(
        rows=sorted(rows, key=lambda r: names.index(r.name)),
        device=devices.describe(where),
        threads=threads,
        rounds=rounds,
        by_threads=where.type == "cpu",
        by_cpu=by_cpu,
        gflops=gflops,
        versions=", ".join(
            f"{n} {v}" for n, v in (("torch", tags["version.torch"]), ("JAX", version()), ("Python", tags["version.python"])) if v
        ),
        commit=provenance.commit(),
        load=(load, os.getloadavg()[0]),
        date=datetime.date.today().isoformat(),
    )


def default_lanes(device: str) -> Sequence[int]:
    """Lanes of the rungs, unless said."""
    return LANES if devices.device(device).type == "cpu" else LANES + MANY_LANES


def plan(where: torch.device, threads: int, lanes: Sequence[int], stack: ExitStack) -> dict[str, Callable[[], Rung]]:
    """How to build every rung, in the order of the table."""
    builders: dict[str, Callable[[], Rung]] = {n: partial(rungs.usual, n, where) for n in rungs.LOOP_VARIANTS}
    builders[EAGER] = partial(rungs.ours, EAGER, where, 1, False)
    builders[GRAPH] = partial(rungs.ours, GRAPH, where, 1, True)
    builders[JAX] = partial(rungs.jax, where, threads, stack)
    for kind in ("eager", "one graph"):
        for n in sorted(set(lanes) - {1}):
            name = f"{n} lanes, {kind}"
            builders[name] = partial(rungs.ours, name, where, n, kind != "eager")
    return builders


def race(contenders: Sequence[Rung], rounds: int, after_round: Callable[[], None] = lambda: None) -> dict[str, list[Spent]]:
    """A call of each per round, the order turned round every time, by name: seconds per step of one trial."""
    times: dict[str, list[Spent]] = {r.name: [] for r in contenders}
    for i in range(rounds):
        for r in contenders if i % 2 == 0 else reversed(contenders):
            spent, steps = r.call(), r.steps * r.lanes
            times[r.name].append(Spent(spent.wall / steps, spent.cpu / steps))
        after_round()
    return times


def _build(builders: dict[str, Callable[[], Rung]], progress: Progress, round_s: float) -> tuple[dict[Rung, float], dict[str, str]]:
    """The rungs that can be built and whose calls fit in `round_s`, with the seconds of a call; and why others cannot."""
    standing: dict[Rung, float] = {}
    absent: dict[str, str] = {}
    task, left = progress.add_task("", total=len(builders)), round_s
    for name, build in builders.items():
        progress.update(task, description=f"building: {name}")
        try:
            rung = build()
            seconds = _warm(rung)
        except (HarnessError, RuntimeError) as fault:
            if name == REFERENCE:
                raise
            absent[name] = str(fault).strip().splitlines()[0]
        else:
            if rung.lanes > 1 and seconds > left:
                absent[name] = f"left out for time: {seconds:.1f} s a round"
            else:
                standing[rung] = seconds
                left -= seconds
        progress.advance(task)
    progress.remove_task(task)
    return standing, absent


def _warm(rung: Rung) -> float:
    """Seconds of a call on the wall, after one that warms up."""
    rung.call()
    return rung.call().wall


def _used(spent: Spent, by_cpu: bool) -> float:
    return spent.cpu if by_cpu else spent.wall


def _row(rung: Rung, times: dict[str, list[Spent]], by_cpu: bool, gflops: float) -> LadderRow:
    mine = [_used(t, by_cpu) for t in times[rung.name]]
    ratios = [_used(a, by_cpu) / b for a, b in zip(times[REFERENCE], mine, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    speed = BATCH / statistics.median(mine)
    return LadderRow(
        name=rung.name,
        lanes=rung.lanes,
        wall_ms=1e3 * statistics.median(t.wall for t in times[rung.name]),
        cpu_ms=1e3 * statistics.median(t.cpu for t in times[rung.name]),
        images_per_s=speed,
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        peak=speed * machine.flop_per_sample() / 1e9 / gflops,
        compile_s=rung.compile_s,
    )


def _progress(console: Console) -> Progress:
    return Progress(
        BarColumn(16),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.description}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
