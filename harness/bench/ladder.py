"""The ladder: every way to train the reference model, timed in turns in one run, as ratios to the usual loop."""

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
from harness.bench.machine import BATCH, Spent
from harness.bench.peers import version
from harness.bench.rungs import JAX, OWN, REFERENCE, Rung
from harness.errors import HarnessError, UserError
from harness.runner.board import clock
from harness.training.step import Execution

BUDGET_S = 240.0  # of all rounds, compiling not counted
LANES = (2, 4, 8, 16, 32, 64)
MANY_LANES = (128, 256)  # on a GPU, which has room for them
LANES_BY: dict[str, Execution] = {"eager": "eager", "one graph": "compiled"}
PACKAGES = {"JAX": "jax", "Lightning": "lightning", "Pythae": "pythae"}  # of peers, by their names


@dataclass(frozen=True, kw_only=True)
class LadderRow:
    """The measurements of a rung, medians over rounds; or the reason why it has none.

    Attributes:
        name: of the rung.
        lanes: trials that train together.
        wall_ms, cpu_ms: of a step of one trial.
        images_per_s: of all lanes together.
        ratio: how many times faster than the reference loop of the same round; low and high are its quartiles.
        peak: the part of the machine's rate in fp32 products.
        compile_s: the seconds of compiling.
        reason: why the rung was not measured.
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
        """The FLOP of a step of all its lanes."""
        return self.lanes * BATCH * machine.flop_per_sample()

    @property
    def bytes(self) -> int:
        """The least bytes that a step of all its lanes moves."""
        return self.lanes * machine.bytes_per_step()


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """All rows, and what they were measured on.

    Attributes:
        rows: in the order of the table.
        device: in words, of a CPU with its class of instructions.
        threads, rounds: of the run.
        by_threads: True if the number of threads matters, as on a CPU.
        by_cpu: True if CPU time is compared rather than time on the wall. It is for one thread of a CPU, because it leaves out the
            time in which other processes run.
        gflops: the rate of the yardstick product in the same run.
        versions, commit, date: of the run.
        load: the load average before and after.
    """

    rows: Sequence[LadderRow]
    device: str
    threads: int
    rounds: int
    by_threads: bool
    by_cpu: bool
    gflops: float
    versions: str
    commit: str
    load: tuple[float, float]
    date: str

    @property
    def waited(self) -> float:
        """The excess of a rung's wall time over its CPU time, median: on one thread of a quiet machine next to nothing."""
        return statistics.median(r.wall_ms / r.cpu_ms for r in self.rows if not r.reason) - 1


def ladder(
    device: str,
    threads: int,
    rounds: int,
    lanes: Sequence[int],
    console: Console,
    budget_s: float = BUDGET_S,
) -> Ladder:
    """Time every rung on `device`.

    Args:
        device: by name.
        threads: of this process on a CPU.
        rounds: of all rungs, one after another.
        lanes: numbers of lanes, each by operation and as one graph. Those whose rounds would not fit in `budget_s` are left out,
            with the reason.
        console: where progress is shown.
        budget_s: the seconds of all rounds, without compiling.

    Raises:
        UserError: fewer than 1 thread or 2 rounds.
    """
    if threads < 1 or rounds < 2:
        raise UserError(f"a ladder takes at least 1 thread and 2 rounds, got {threads} and {rounds}")
    torch_device, previous_threads = devices.named(device), torch.get_num_threads()
    described = machine.described(torch_device)
    tags, commit = provenance.tags(), provenance.commit()  # asked before minutes of rounds that a fault here would lose
    rungs.mnist()  # raises an error at once if the data set is missing
    load = os.getloadavg()[0]
    torch.set_num_threads(threads)
    try:
        with ExitStack() as stack, _progress(console) as progress:
            builders = plan(torch_device, threads, lanes, stack)
            names = list(builders)
            built, missing = _build(builders, progress, budget_s / rounds)
            rate = Rung("", partial(machine.timed, torch_device, machine.product(torch_device)), 1)
            round_s = sum(built.values()) + _warm(rate)
            console.print(f"{len(built)} rungs, {rounds} rounds: about {clock(rounds * round_s)}", highlight=False)
            task = progress.add_task("rounds", total=rounds)
            times = race([*built, rate], rounds, lambda: progress.advance(task))
    finally:
        torch.set_num_threads(previous_threads)
    by_cpu = torch_device.type == "cpu" and threads == 1
    gflops = machine.flop_of_product() / statistics.median(_used(t, by_cpu) for t in times[""]) / 1e9
    rows = [_row(r, times, by_cpu, gflops) for r in built] + [LadderRow(name=n, reason=reason) for n, reason in missing.items()]
    versions = {"torch": tags["version.torch"], **{n: version(p) for n, p in PACKAGES.items()}, "Python": tags["version.python"]}
    return Ladder(
        rows=sorted(rows, key=lambda r: names.index(r.name)),
        device=described,
        threads=threads,
        rounds=rounds,
        by_threads=torch_device.type == "cpu",
        by_cpu=by_cpu,
        gflops=gflops,
        versions=", ".join(f"{n} {v}" for n, v in versions.items() if v),
        commit=commit,
        load=(load, os.getloadavg()[0]),
        date=datetime.date.today().isoformat(),
    )


def default_lanes(device: str) -> Sequence[int]:
    """Return the default numbers of lanes of the rungs."""
    return LANES if devices.named(device).type == "cpu" else LANES + MANY_LANES


def plan(device: torch.device, threads: int, lanes: Sequence[int], stack: ExitStack) -> dict[str, Callable[[], Rung]]:
    """Return the functions that build the rungs, by name, in the order of the table."""
    builders: dict[str, Callable[[], Rung]] = {name: partial(rungs.usual_loop, name, device) for name in rungs.LOOP_VARIANTS}
    builders |= {name: partial(rungs.trainer, name, device, threads, stack) for name in rungs.TRAINERS}
    builders[JAX] = partial(rungs.jax, device, threads, stack)
    on_cpu = device.type == "cpu"
    own = {name: execution for name, execution in OWN.items() if on_cpu or execution != "manual"}
    builders |= {name: partial(rungs.own_step, name, device, 1, execution) for name, execution in own.items()}
    for kind, execution in LANES_BY.items():
        for count in sorted(set(lanes) - {1}):
            name = f"{count} lanes, {kind}"
            builders[name] = partial(rungs.own_step, name, device, count, execution)
    return builders


def race(contenders: Sequence[Rung], rounds: int, after_round: Callable[[], None] = lambda: None) -> dict[str, list[Spent]]:
    """Call every contender once per round, in alternating order.

    Return the seconds per step of one trial, by name and round. `after_round` is called after every round.
    """
    times: dict[str, list[Spent]] = {r.name: [] for r in contenders}
    for i in range(rounds):
        for r in contenders if i % 2 == 0 else reversed(contenders):
            spent, steps = r.call(), r.steps * r.lanes
            times[r.name].append(Spent(spent.wall / steps, spent.cpu / steps))
        after_round()
    return times


def _build(builders: dict[str, Callable[[], Rung]], progress: Progress, round_s: float) -> tuple[dict[Rung, float], dict[str, str]]:
    """Return the rungs that can be built and that fit in `round_s`, with the seconds of a call; and by name why others cannot."""
    built: dict[Rung, float] = {}
    missing: dict[str, str] = {}
    task, seconds_left = progress.add_task("", total=len(builders)), round_s
    for name, build in builders.items():
        progress.update(task, description=f"building: {name}")
        try:
            rung = build()
            seconds = _warm(rung)
        except (HarnessError, RuntimeError) as fault:
            if name == REFERENCE:
                raise
            missing[name] = str(fault).strip().splitlines()[0]
        else:
            if rung.lanes > 1 and seconds > seconds_left:
                missing[name] = f"left out for time: {seconds:.1f} s a round"
            else:
                built[rung] = seconds
                seconds_left -= seconds
        progress.advance(task)
    progress.remove_task(task)
    return built, missing


def _warm(rung: Rung) -> float:
    """Return the seconds of a call on the wall, after one that warms up."""
    rung.call()
    return rung.call().wall


def _used(spent: Spent, by_cpu: bool) -> float:
    """Return the time that is compared."""
    return spent.cpu if by_cpu else spent.wall


def _row(rung: Rung, times: dict[str, list[Spent]], by_cpu: bool, gflops: float) -> LadderRow:
    """Return the measurements of a rung."""
    seconds = [_used(t, by_cpu) for t in times[rung.name]]
    ratios = [_used(a, by_cpu) / b for a, b in zip(times[REFERENCE], seconds, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    speed = BATCH / statistics.median(seconds)
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
    """Return the bars of a ladder in progress."""
    return Progress(
        BarColumn(16),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.description}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
