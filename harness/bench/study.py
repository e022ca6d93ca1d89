"""What a trial of a whole study costs, beside as many steps of the loop that everybody writes on the same cores.

Everything counts: starting, compiling with nothing kept from before, validation, scores, figures, both databases and the report.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console

from harness import engine, paths, study
from harness.bench import rungs
from harness.bench.rungs import REFERENCE
from harness.data import load
from harness.errors import MachineError
from harness.study import Ablation

STUDY, BUDGET = "learning_rate", "long"
ROUNDS = 12  # of the reference loop, before the study and again after it
FASTER_AT_LEAST = 6.0


def compare(console: Console, name: str = STUDY, budget: str = BUDGET) -> int:
    """Time an ablation of the reference model on this CPU; returns 1 where a trial is less than 6 times faster than the loop.

    Raises:
        MachineError: the study did not end well.
    """
    plan = study.load(name)
    assert isinstance(plan, Ablation)
    trials, epochs = len(plan.cells(budget)), plan.budgets[budget].epochs
    steps = epochs * -(-len(load(plan.base.dataset).fit_on(plan.base.fit_on)) // plan.base.batch_size)
    threads = engine.cores()
    before = _reference_ms(threads)
    console.print(f"{REFERENCE}, {threads} threads: {before:.1f} ms a step; now {name}, {budget} budget", highlight=False)
    each = _seconds(name, budget) / trials
    after = _reference_ms(threads)
    usual = steps * statistics.fmean((before, after)) / 1e3
    ok = usual >= FASTER_AT_LEAST * each
    console.print(
        f"{'ok    ' if ok else 'MISSED'} {trials} trials of {epochs} epochs, {steps:,} steps: {each:.1f} s each, all included;\n"
        f"       {REFERENCE}, {threads} threads: {before:.1f} ms before, {after:.1f} after: {usual:.0f} s for so many steps;\n"
        f"       a trial is {usual / each:.1f} times faster, {FASTER_AT_LEAST:g} are asked for",
        highlight=False,
        soft_wrap=True,
    )
    return int(not ok)


def _reference_ms(threads: int) -> float:
    """Milliseconds on the wall of a step of the reference loop with so many threads, median."""
    own = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        loop = rungs.usual(REFERENCE, torch.device("cpu"))
        loop.call()
        return 1e3 * statistics.median(loop.call().wall for _ in range(ROUNDS)) / loop.steps
    finally:
        torch.set_num_threads(own)


def _seconds(name: str, budget: str) -> float:
    """From the command to its end, in a new home and without what torch has compiled before."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = str(Path(folder, "compiled"))
        new = {"HARNESS_HOME": folder, "TORCHINDUCTOR_CACHE_DIR": compiled, "HARNESS_DATA": str(paths.data())}
        started = time.perf_counter()
        command = [sys.executable, "-m", "harness.cli", "study", name, "--budget", budget, "--device", "cpu"]
        ended = subprocess.run(command, env=os.environ | new, check=False)
        took = time.perf_counter() - started
    if ended.returncode:
        raise MachineError(f"the study ended with exit code {ended.returncode}: nothing to compare")
    return took
