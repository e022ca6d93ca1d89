"""What a trial of a whole study costs, beside as many steps of the loop that everybody writes on the same cores.

Everything counts: starting, compiling with nothing kept from before, validation, scores, figures, both databases and the report.
A machine that has worked for a while is slower than a rested one, so the study stands still every minute for rounds of the loop.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
EVERY_S = 60.0  # of the study there is a look at the reference loop
ROUNDS = 9  # of it then; the first warms up
FASTER_AT_LEAST = 6.0


def compare(console: Console, name: str = STUDY, budget: str = BUDGET) -> int:
    """Time an ablation of the reference model on this CPU; returns 1 where a trial is less than 6 times faster than the loop.

    Raises:
        MachineError: the study did not end well, or before it was once held still.
    """
    plan = study.load_study(name)
    assert isinstance(plan, Ablation)
    trials, epochs = len(plan.cells(budget)), plan.budgets[budget].epochs
    steps = epochs * -(-len(load_dataset(plan.base.dataset).fit_on(plan.base.fit_on)) // plan.base.batch_size)
    threads = devices.cores()
    console.print(
        f"{name}, {budget} budget; every {EVERY_S:g} s it stands still for {REFERENCE}, {threads} threads",
        highlight=False,
        soft_wrap=True,
    )
    with _reference(threads) as step_ms:
        took, looks = _interleaved(name, budget, step_ms)
    each, ms = took / trials, statistics.median(looks)
    usual = steps * ms / 1e3
    ok = usual >= FASTER_AT_LEAST * each
    console.print(
        f"{'ok    ' if ok else 'MISSED'} {trials} trials of {epochs} epochs, {steps:,} steps: {each:.1f} s each, all included;\n"
        f"       {REFERENCE}, {threads} threads: {ms:.1f} ms ({min(looks):.1f} to {max(looks):.1f}, {len(looks)} looks): "
        f"{usual:.0f} s for so many steps;\n"
        f"       a trial is {usual / each:.1f} times faster, {FASTER_AT_LEAST:g} are asked for",
        highlight=False,
        soft_wrap=True,
    )
    return int(not ok)


@contextmanager
def _reference(threads: int) -> Iterator[Callable[[], float]]:
    """What tells the milliseconds on the wall of a step of the reference loop with so many threads, a median."""
    own = torch.get_num_threads()
    torch.set_num_threads(threads)
    loop = rungs.usual(REFERENCE, torch.device("cpu"))
    try:
        yield lambda: 1e3 * statistics.median([loop.call().wall for _ in range(ROUNDS)][1:]) / loop.steps
    finally:
        torch.set_num_threads(own)


def _interleaved(name: str, budget: str, look: Callable[[], float]) -> tuple[float, list[float]]:
    """Seconds that the study ran, from the command to its end, and what `look` said whenever it stood still.

    In a new home and without what torch has compiled before.
    """
    with tempfile.TemporaryDirectory() as folder:
        compiled = str(Path(folder, "compiled"))
        new = {"HARNESS_HOME": folder, "TORCHINDUCTOR_CACHE_DIR": compiled, "HARNESS_DATA": str(paths.data())}
        command = [sys.executable, "-m", "harness.cli", "study", name, "--budget", budget, "--device", "cpu"]
        took, looks = 0.0, []
        started = time.perf_counter()
        running = subprocess.Popen(command, env=os.environ | new, start_new_session=True)  # a group, to be stopped as one
        try:
            while not _ended(running, EVERY_S):
                os.killpg(running.pid, signal.SIGSTOP)
                took += time.perf_counter() - started
                looks.append(look())
                started = time.perf_counter()
                os.killpg(running.pid, signal.SIGCONT)
            took += time.perf_counter() - started
        finally:
            if running.poll() is None:
                for sent in (signal.SIGCONT, signal.SIGINT):
                    os.killpg(running.pid, sent)
                running.wait()
    if running.returncode:
        raise MachineError(f"the study ended with exit code {running.returncode}: nothing to compare")
    if not looks:
        raise MachineError(f"the study ended within {EVERY_S:g} s: too short to compare")
    return took, looks


def _ended(running: subprocess.Popen, within_s: float) -> bool:
    try:
        running.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True
