"""What a trial of a whole study costs, beside as many steps of the usual loop on the same cores.

Everything counts: starting, compiling with nothing kept from before, validation, scores, figures, both databases and the report.
A machine that has worked for a while is slower than a rested one, so the study is stopped every minute for rounds of the loop.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from harness import devices, paths, study
from harness.bench import rungs
from harness.bench.rungs import REFERENCE
from harness.data import load_dataset
from harness.errors import MachineError
from harness.study import Ablation

STUDY, BUDGET = "learning_rate", "long"
EVERY_S = 60.0  # of the study between two measurements of the reference loop
ROUNDS = 9  # of a measurement; the first warms up
FASTER_AT_LEAST = 6.0
Interleave = Callable[[Sequence[str], Callable[[], float]], tuple[float, list[float]]]  # as `interleaved`


def compare(console: Console, name: str = STUDY, budget: str = BUDGET, interleave: Interleave | None = None) -> int:
    """Time an ablation of the reference model on this CPU. Return 1 if a trial is less than 6 times faster than the loop, else 0.

    Raises:
        MachineError: the study failed, or ended before the loop was measured once.
    """
    plan = study.load_study(name)
    assert isinstance(plan, Ablation)
    trials, epochs = len(plan.cells(budget)), plan.budgets[budget].epochs
    images = load_dataset(plan.base.dataset, arguments=plan.base.dataset_args).fit_on(plan.base.fit_on)
    steps = epochs * -(-len(images) // plan.base.batch_size)
    threads = devices.cores()
    console.print(
        f"{name}, {budget} budget; every {EVERY_S:g} s it stands still for {REFERENCE}, {threads} threads",
        highlight=False,
        soft_wrap=True,
    )
    with _reference(threads) as step_ms:
        study_s, reference_ms = (interleave or interleaved)(command(name, budget), step_ms)
    trial_s, ms = study_s / trials, statistics.median(reference_ms)
    loop_s = steps * ms / 1e3
    ok = loop_s >= FASTER_AT_LEAST * trial_s
    spread = f"{min(reference_ms):.1f} to {max(reference_ms):.1f}, {len(reference_ms)} looks"
    console.print(
        f"{'ok    ' if ok else 'MISSED'} {trials} trials of {epochs} epochs, {steps:,} steps: {trial_s:.1f} s each, all included;\n"
        f"       {REFERENCE}, {threads} threads: {ms:.1f} ms ({spread}): "
        f"{loop_s:.0f} s for so many steps;\n"
        f"       a trial is {loop_s / trial_s:.1f} times faster, {FASTER_AT_LEAST:g} are asked for",
        highlight=False,
        soft_wrap=True,
    )
    return int(not ok)


@contextmanager
def _reference(threads: int) -> Iterator[Callable[[], float]]:
    """Provide a function that returns the milliseconds on the wall of a step of the reference loop with these threads, a median."""
    previous = torch.get_num_threads()
    torch.set_num_threads(threads)
    loop = rungs.usual_loop(REFERENCE, torch.device("cpu"))
    try:
        yield lambda: 1e3 * statistics.median([loop.call().wall for _ in range(ROUNDS)][1:]) / loop.steps
    finally:
        torch.set_num_threads(previous)


def command(name: str, budget: str) -> list[str]:
    """Return the command that trains a study on this CPU."""
    return [sys.executable, "-m", "harness.cli", "study", name, "--budget", budget, "--device", "cpu"]


def interleaved(command: Sequence[str], reference_step: Callable[[], float], every_s: float = EVERY_S) -> tuple[float, list[float]]:
    """Run a study in a new home and without what torch has compiled before, and stop it every `every_s` for the loop.

    Return the seconds that the study ran, from the command to its end, and what `reference_step` returned at each stop.

    Raises:
        MachineError: the study failed, or ended before the first stop.
    """
    with tempfile.TemporaryDirectory() as folder:
        compiled = str(Path(folder, "compiled"))
        variables = {"HARNESS_HOME": folder, "TORCHINDUCTOR_CACHE_DIR": compiled, "HARNESS_DATA": str(paths.data())}
        study_s, reference_ms = 0.0, []
        started = time.perf_counter()
        # A process group of its own, so that it can be stopped as a whole.
        process = subprocess.Popen(command, env=os.environ | variables, start_new_session=True)
        try:
            while not _ended(process, every_s):
                os.killpg(process.pid, signal.SIGSTOP)
                study_s += time.perf_counter() - started
                reference_ms.append(reference_step())
                started = time.perf_counter()
                os.killpg(process.pid, signal.SIGCONT)
            study_s += time.perf_counter() - started
        finally:
            if process.poll() is None:
                for number in (signal.SIGCONT, signal.SIGTERM):  # a shell's background job ignores SIGINT
                    os.killpg(process.pid, number)
                process.wait()
    if process.returncode:
        raise MachineError(f"the study ended with exit code {process.returncode}: nothing to compare")
    if not reference_ms:
        raise MachineError(f"the study ended within {every_s:g} s: too short to compare")
    return study_s, reference_ms


def _ended(process: subprocess.Popen[bytes], within_s: float) -> bool:
    """Return whether the process ends within these seconds."""
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True
