"""The gate: is this working tree slower than another commit? By deterministic counts, then by paired timing.

The step is timed by operations and then as studies take it. Process groups of base, head and head again, forked afresh, take turns
round by round. A group gives one number, the median over rounds of log(head / base). The verdict rests on these numbers, because
processes of equal code differ by more than rounds do. The two heads are also each other's control: if they differ, the machine is
unfit and there is no verdict.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from harness import data, devices, paths
from harness.bench import counts, gate_page
from harness.bench.gate_rule import FEWEST_PAIRS, INCONCLUSIVE, GateVerdict, verdict
from harness.data import published
from harness.errors import MachineError, UserError
from harness.runner.board import PLAIN_EVERY_S, clock

PAIRS, ROUNDS = 24, 15
STEPS = {False: 10, True: 20}  # of a round, by whether they are taken as in studies; the last step is by operations in either case
MORE_PAIRS = 4  # between two verdicts, while the verdict is open
BUDGET_S = 400.0  # for each of the two ways of taking the step
IMAGES = 4096


# -------------------------------------------------------------------------------- timing


Side = tuple[Path, int]  # the folder that holds harness/, and training steps per round


def time_groups(sides: Sequence[Side], rounds: int, device: str = "cpu", as_studied: bool = False) -> Generator[np.ndarray]:
    """Yield the seconds of groups of fresh processes, one process per side, (rounds, sides), without end.

    Args:
        sides: the folder and the steps per round of each.
        rounds: of a group.
        device: by name.
        as_studied: True to time the step as studies take it: by hand if the side can, else as one program.

    Raises:
        UserError: a side's code does not run.
        MachineError: the processes died.
    """
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as scratch:
        images, stderr_file = Path(scratch) / "images.npy", Path(scratch) / "stderr"
        np.save(images, _images())
        command = [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), str(images), device]
        environment = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # torch's pool of compilers does not survive a fork
        pipe = subprocess.PIPE
        with stderr_file.open("w") as stderr:
            server = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=stderr, text=True, start_new_session=True, env=environment
            )
        assert server.stdin
        assert server.stdout
        try:
            while True:
                side_list = [(str(folder), steps) for folder, steps in sides]
                request = {
                    "sides": side_list,
                    "rounds": rounds,
                    "seed": random.SystemRandom().randrange(2**32),
                    "as_studied": as_studied,
                }
                with suppress(BrokenPipeError):
                    server.stdin.write(json.dumps(request) + "\n")
                    server.stdin.flush()
                line = server.stdout.readline()
                if not line:
                    raise MachineError(f"the timing process died, exit code {server.wait()}\n{stderr_file.read_text()[-2000:]}")
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


Timing = Callable[[Sequence[Side], int, str, bool], Generator[np.ndarray]]  # as `time_groups`


def pair(seconds: np.ndarray, heads: tuple[int, int] = (1, 2)) -> tuple[float, float]:
    """Return the two numbers that a group gives, from its seconds (rounds, sides).

    They are medians over rounds: of log(head / base), the mean of both heads, and of log(head / head again). `heads` are the
    indices of the heads among the sides; the base is the first one.
    """
    log = np.log(seconds)
    first, second = log[:, heads[0]], log[:, heads[1]]
    return float(np.median((first + second) / 2 - log[:, 0])), float(np.median(first - second))


def _images() -> np.ndarray:
    """Return grey levels for both sides, uint8 (N, 784): MNIST's first images if they are on this machine, else noise."""
    raw = paths.data() / "MNIST" / "raw"
    if all((raw / f).exists() for f in published.FILES):
        return data.load_dataset("mnist").train.levels[:IMAGES].numpy()
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 784), dtype=np.uint8)


# -------------------------------------------------------------------------------- the base


def _git(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in a project's folder.

    Raises:
        MachineError: git is not installed.
    """
    try:
        return subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MachineError("git is not installed\ninstall it: the base of a comparison is a commit") from None


@contextmanager
def checkout(base: str, project: Path = paths.PROJECT) -> Iterator[Path]:
    """Provide the project at revision `base` in a worktree, which is removed afterwards.

    Raises:
        UserError: this is no git checkout, there is no such revision, or the revision has no cohort to time.
        MachineError: git could not add the worktree.
    """
    prefix = _git(project, "rev-parse", "--show-prefix")
    if prefix.returncode:
        raise UserError(f"{project} is not a git checkout, so there is no base to compare with\nrun this in a clone of the project")
    commit = _git(project, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
    if commit.returncode or not base:
        newest = _git(project, "log", "--oneline", "--no-decorate", "-3").stdout
        raise UserError(
            f"unknown revision {base!r}\nname a branch, a tag or a commit, such as one of the newest:\n{newest.rstrip()}"
        )
    with tempfile.TemporaryDirectory(prefix="harness-base-") as scratch:
        tree = Path(scratch) / "tree"
        previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that the worktree is removed
        try:
            added = _git(project, "worktree", "add", "--detach", str(tree), commit.stdout.strip())
            if added.returncode:
                raise MachineError(f"git worktree add failed: {added.stderr.strip()}")
            folder = tree / prefix.stdout.strip()
            if not any((folder / "harness" / place / "cohort.py").exists() for place in ("training", ".")):
                raise UserError(f"revision {base!r} has no cohort to time\nname a later commit")
            yield folder
        finally:
            _git(project, "worktree", "remove", "--force", str(tree))
            signal.signal(signal.SIGTERM, previous)


# -------------------------------------------------------------------------------- the gate


def compare(
    base: str,
    console: Console,
    *,
    device: str = "cpu",
    pairs: int = PAIRS,
    rounds: int = ROUNDS,
    budget_s: float = BUDGET_S,
    project: Path = paths.PROJECT,
    time_groups: Timing = time_groups,
    with_counts: bool = True,
    markdown: Path | None = None,
) -> int:
    """Compare the working tree to revision `base`, and its counts to their file. Return the exit code.

    It is 1 for a REGRESSION or changed counts, else 0. INCONCLUSIVE after `budget_s` is printed, and fails nothing.

    Args:
        base: a revision.
        console: to print to; what was found is the last that is printed.
        device: by name.
        pairs: groups of processes before the first verdict.
        rounds: of a group.
        budget_s: the seconds for each way of taking the step.
        project: the working tree.
        time_groups: what times.
        with_counts: False to leave out the counts, which need no base.
        markdown: a file to add what was found to.
    """
    torch_device = devices.named(device)
    device, compiler = str(torch_device), devices.compiler(torch_device)
    verdicts: dict[str, GateVerdict] = {}
    with checkout(base, project) as folder:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD").stdout.strip()
        changed = with_counts and counts.report(console, device, counts.file(project))
        for as_studied in (False, True) if compiler else (False,):
            way = "step of a study" if as_studied else "step by operations"
            head, steps = project, STEPS[as_studied]
            with closing(time_groups([(folder, steps), (head, steps), (head, steps)], rounds, device, as_studied)) as groups:
                verdicts[way] = _judge_until_clear(groups, console, f"{way} against {base}", pairs, budget_s)
            console.print(f"{way} against {base}: {verdicts[way]}", highlight=False, markup=False, soft_wrap=True)
    found = gate_page.Comparison(
        base=base,
        commit=commit,
        verdicts=verdicts,
        untimed={} if compiler else {"step of a study": "no C compiler here"},
        counts_changed=changed,
        measured_on=f"{devices.describe(torch_device)}, torch {torch.__version__}",
    )
    gate_page.show(found, console)
    if markdown is not None:
        gate_page.append(found, markdown)
    return int(found.fails)


def _judge_until_clear(groups: Iterator[np.ndarray], console: Console, title: str, pairs: int, budget_s: float) -> GateVerdict:
    """Return the verdict on `pairs` groups of base, head, head; on more while it is open and time is left."""
    ratios: list[float] = []
    control: list[float] = []
    started = printed_at = time.monotonic()
    with console.status(f"{title}: starting") as status:
        for done, seconds in enumerate(groups, 1):
            ratio, control_ratio = pair(seconds)
            ratios.append(ratio)
            control.append(control_ratio)
            spent = time.monotonic() - started
            time_is_up = spent > budget_s and done >= FEWEST_PAIRS
            if time_is_up or (done >= pairs and (done - pairs) % MORE_PAIRS == 0):
                result = verdict(ratios, control)
                if time_is_up or result.outcome != INCONCLUSIVE:
                    return result
                console.print(f"{title}: so far {result}; going on", highlight=False, markup=False, soft_wrap=True)
            left = clock(spent / done * (pairs - done) if done < pairs else budget_s - spent)
            line = f"{title}: {done} of {max(done, pairs)} process groups, {'about' if done < pairs else 'at most'} {left} left"
            status.update(line)
            if not console.is_terminal and time.monotonic() - printed_at > PLAIN_EVERY_S:
                console.print(line, highlight=False, markup=False, soft_wrap=True)
                printed_at = time.monotonic()
    raise MachineError("nothing to judge: the timing ended early")
