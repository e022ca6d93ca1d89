"""Is this working tree slower than another commit? Deterministic counts, then paired timing.

Timing, of the step by operations and then of the compiled one: process groups of base, head and head again, forked afresh, take
turns round by round. A group gives one number, the median over rounds of log(head / base); the verdict is from these numbers, since
processes of equal code differ by more than rounds do. The two heads are also each other's control: where they differ, the machine
is unfit and there is no verdict.
"""

import itertools
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from harness import data, devices, paths, stats
from harness.bench import counts
from harness.data import download
from harness.errors import MachineError, UserError
from harness.runner.progress import PLAIN_EVERY_S, clock

PAIRS, ROUNDS = 24, 15
STEPS = {False: 10, True: 20}  # of a round, by whether they are compiled; the last is by operations in either case
MORE_PAIRS = 4  # between two looks, while the verdict is open
BUDGET_S = 400.0  # of each way of taking the step
FEWEST_PAIRS = 6
SLOWER, HALF = math.log(1.05), math.log(1.025)  # the effect sought, and half of it
IMAGES = 4096

OK, IMPROVEMENT, REGRESSION, INCONCLUSIVE = "OK", "IMPROVEMENT", "REGRESSION", "INCONCLUSIVE"


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """What the pairs say of log(head / base): outcome and why, the mean with its 90 % interval, the number of pairs."""

    outcome: str
    reason: str
    estimate: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        slower, low, high = (100 * math.expm1(v) for v in (self.estimate, self.low, self.high))
        return f"{self.outcome}: {self.reason}; step time {slower:+.1f} % [{low:+.1f}, {high:+.1f}], {self.pairs} process pairs"


def verdict(pair_log_ratios: Sequence[float], control: Sequence[float]) -> GateVerdict:
    """Judge pairs of processes, each log(head / base), beside a control of equal code, log(head / head again).

    REGRESSION: the 90 % interval of the mean lies above 0 and the mean above 2.5 %; IMPROVEMENT: the mirror image; OK: the interval
    ends below +5 %; else, or where the control shows a difference, INCONCLUSIVE.

    Raises:
        MachineError: too few pairs to say anything.
    """
    if min(len(pair_log_ratios), len(control)) < FEWEST_PAIRS:
        few = min(len(pair_log_ratios), len(control))
        raise MachineError(f"nothing to judge: {few} process pairs were timed, {FEWEST_PAIRS} are the fewest")
    found, equal = _judge(pair_log_ratios), _judge(control)
    if equal.outcome in (REGRESSION, IMPROVEMENT):
        why = f"the machine is unfit: it times equal code as {100 * math.expm1(equal.estimate):+.1f} %"
        return replace(found, outcome=INCONCLUSIVE, reason=why)
    return found


def _judge(log_ratios: Sequence[float]) -> GateVerdict:
    n, mean = len(log_ratios), statistics.fmean(log_ratios)
    half = stats.t_quantile(0.95, n - 1) * statistics.stdev(log_ratios) / n**0.5
    low, high = mean - half, mean + half
    if low > 0 and mean > HALF:
        outcome, reason = REGRESSION, "slower than the base"
    elif high < 0 and mean < -HALF:
        outcome, reason = IMPROVEMENT, "faster than the base"
    elif high < SLOWER:
        outcome, reason = OK, "a slow-down of 5 % is excluded"
    else:
        outcome, reason = INCONCLUSIVE, "the pairs scatter too much: a slow-down of 5 % is neither shown nor excluded"
    return GateVerdict(outcome=outcome, reason=reason, estimate=mean, low=low, high=high, pairs=n)


# -------------------------------------------------------------------------------- timing


Side = tuple[Path, int]  # the folder that holds harness/, and training steps per round


def time_groups(sides: Sequence[Side], rounds: int, device: str = "cpu", compiled: bool = False) -> Generator[np.ndarray]:
    """Groups of fresh processes without end, one process per side: seconds, (rounds, sides). `compiled`: the step as one program.

    Raises:
        UserError: a side's code does not run. MachineError: the processes died.
    """
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as scratch:
        images, said = Path(scratch) / "images.npy", Path(scratch) / "stderr"
        np.save(images, _images())
        command = [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), str(images), device]
        alone = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # torch's pool of compilers does not outlive a fork
        pipe = subprocess.PIPE
        with said.open("w") as stderr:
            server = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, text=True, start_new_session=True, env=alone)
        assert server.stdin
        assert server.stdout
        try:
            while True:
                asked = [(str(folder), steps) for folder, steps in sides]
                request = {"sides": asked, "rounds": rounds, "seed": random.SystemRandom().randrange(2**32), "compiled": compiled}
                with suppress(BrokenPipeError):
                    server.stdin.write(json.dumps(request) + "\n")
                    server.stdin.flush()
                line = server.stdout.readline()
                if not line:
                    raise MachineError(f"the timing process died, exit code {server.wait()}\n{said.read_text()[-2000:]}")
                answer = json.loads(line)
                if "died" in answer:
                    raise MachineError(f"no verdict: a process died while being timed ({answer['died']})")
                if "fault" in answer:
                    raise UserError(f"no verdict: the code to time does not run {answer['fault'].strip()}")
                yield np.array(answer["seconds"])
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.communicate()


def pair(seconds: np.ndarray, heads: tuple[int, int] = (1, 2)) -> tuple[float, float]:
    """What a group says, medians over rounds of log(head / base), the mean of both heads, and of log(head / head again)."""
    log = np.log(seconds)
    first, again = log[:, heads[0]], log[:, heads[1]]
    return float(np.median((first + again) / 2 - log[:, 0])), float(np.median(first - again))


def _images() -> np.ndarray:
    """Grey levels for both sides: MNIST's first images where it is here, else noise."""
    raw = paths.data() / "MNIST" / "raw"
    if all((raw / f).exists() for f in download.FILES):
        return data.load_dataset("mnist").train.levels[:IMAGES].numpy()
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 784), dtype=np.uint8)


# -------------------------------------------------------------------------------- the base


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", "-C", str(paths.PROJECT), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MachineError("git is not installed\ninstall it: the base of a comparison is a commit") from None


@contextmanager
def checkout(base: str) -> Iterator[Path]:
    """The project at revision `base`, in a worktree that is gone afterwards.

    Raises:
        UserError: no git checkout, no such revision, or one from before there was a cohort to time.
    """
    inside = _git("rev-parse", "--show-prefix")
    if inside.returncode:
        raise UserError(
            f"{paths.PROJECT} is not a git checkout, so there is no base to compare with\nrun this in a clone of the project"
        )
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
    if found.returncode or not base:
        newest = _git("log", "--oneline", "--no-decorate", "-3").stdout
        raise UserError(
            f"unknown revision {base!r}\nname a branch, a tag or a commit, such as one of the newest:\n{newest.rstrip()}"
        )
    with tempfile.TemporaryDirectory(prefix="harness-base-") as scratch:
        tree = Path(scratch) / "tree"
        before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that what follows is undone
        try:
            added = _git("worktree", "add", "--detach", str(tree), found.stdout.strip())
            if added.returncode:
                raise MachineError(f"git worktree add failed: {added.stderr.strip()}")
            folder = tree / inside.stdout.strip()
            if not any((folder / "harness" / place / "cohort.py").exists() for place in ("training", ".")):
                raise UserError(f"revision {base!r} has no cohort to time\nname a later commit")
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(tree))
            signal.signal(signal.SIGTERM, before)


# -------------------------------------------------------------------------------- the gate


def compare(
    base: str,
    console: Console,
    *,
    device: str = "cpu",
    pairs: int = PAIRS,
    rounds: int = ROUNDS,
    budget_s: float = BUDGET_S,
) -> int:
    """Hold the working tree against revision `base`, and its counts against their file.

    Returns the exit code: 1 for a REGRESSION or changed counts, else 0; INCONCLUSIVE after `budget_s` is said, and fails nothing.
    """
    device = str(devices.device(device))
    compiler = devices.compiler(devices.device(device))
    slower = False
    with checkout(base) as folder:
        changed = counts.report(console, device)
        for compiled in (False, True) if compiler else (False,):
            words = f"{'compiled step' if compiled else 'step by operations'} against {base}"
            head, steps = paths.PROJECT, STEPS[compiled]
            with closing(time_groups([(folder, steps), (head, steps), (head, steps)], rounds, device, compiled)) as groups:
                found = _judge_until_clear(groups, console, words, pairs, budget_s)
            console.print(f"{words}: {found}", highlight=False, markup=False, soft_wrap=True)
            slower |= found.outcome == REGRESSION
    if not compiler:
        console.print("compiled step: NOT TIMED, no C compiler here", highlight=False, markup=False)
    return int(changed or slower)


def _judge_until_clear(groups: Iterator[np.ndarray], console: Console, words: str, pairs: int, budget_s: float) -> GateVerdict:
    """The verdict from `pairs` groups of base, head, head; while it is open and time is left, from more."""
    ratios: list[float] = []
    control: list[float] = []
    started = said = time.monotonic()
    with console.status(f"{words}: starting") as status:
        for done, seconds in enumerate(groups, 1):
            ratio, equal = pair(seconds)
            ratios.append(ratio)
            control.append(equal)
            spent = time.monotonic() - started
            over = spent > budget_s and done >= FEWEST_PAIRS
            if over or (done >= pairs and (done - pairs) % MORE_PAIRS == 0):
                found = verdict(ratios, control)
                if over or found.outcome != INCONCLUSIVE:
                    return found
                console.print(f"{words}: so far {found}; going on", highlight=False, markup=False, soft_wrap=True)
            left = clock(spent / done * (pairs - done) if done < pairs else budget_s - spent)
            line = f"{words}: {done} of {max(done, pairs)} process groups, {'about' if done < pairs else 'at most'} {left} left"
            status.update(line)
            if not console.is_terminal and time.monotonic() - said > PLAIN_EVERY_S:
                console.print(line, highlight=False, markup=False)
                said = time.monotonic()
    raise MachineError("nothing to judge: the timing ended early")


def calibrate(
    console: Console, verdicts: int = 20, pairs: int = PAIRS, rounds: int = ROUNDS, plant: float = 0.1, compiled: bool = False
) -> dict[str, Counter[str]]:
    """How often the gate is wrong on this machine: verdicts on equal code, and on a head that trains `plant` more steps per round.

    Each verdict has groups of its own; the two kinds share the base.
    """
    steps = STEPS[compiled]
    head, slow = (paths.PROJECT, steps), (paths.PROJECT, round(steps * (1 + plant)))
    outcomes: dict[str, Counter[str]] = {"equal": Counter(), "planted": Counter()}
    with closing(time_groups([head, head, head, slow, slow], rounds, compiled=compiled)) as groups:
        for n in range(verdicts):
            timed = list(itertools.islice(groups, pairs))
            for kind, heads in (("equal", (1, 2)), ("planted", (3, 4))):
                ratios, control = zip(*(pair(seconds, heads) for seconds in timed), strict=True)
                found = verdict(ratios, control)
                outcomes[kind][found.outcome] += 1
                console.print(f"{n + 1}/{verdicts} {kind}: {found}", highlight=False, soft_wrap=True)
    return outcomes
