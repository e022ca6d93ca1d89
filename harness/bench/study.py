"""What a trial of a whole study costs, beside as many steps of the usual loop on the same cores.

Everything counts: starting, compiling with nothing kept from before, the network of the scores if the package has none, validation,
scores, figures, both databases and the report. A machine that has worked for a while is slower than a rested one, so the study is
stopped again and again for rounds of the loop.
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
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from harness import devices, paths, study
from harness.bench import rungs
from harness.bench.rungs import REFERENCE
from harness.data import load_dataset
from harness.errors import MachineError, UserError, look_up
from harness.runner.board import clock
from harness.study import Ablation

ROUNDS = 9  # of a measurement of the reference loop; the first warms up
KEPT = "features"  # among the data sets: the classifiers of the scores, trained once per data set


@dataclass(frozen=True, kw_only=True)
class StudyCase:
    """A budget that is compared.

    Attributes:
        study: the ablation of the reference model, unless another one is named.
        every_s: seconds of the study between two measurements of the reference loop.
        at_least: how many times faster a trial is to be.
    """

    study: str
    every_s: float
    at_least: float


CASES = {
    "default": StudyCase(study="loss_ablation", every_s=30.0, at_least=4.5),
    "long": StudyCase(study="learning_rate", every_s=60.0, at_least=8.0),
}
LONG = "long"
Interleave = Callable[[Sequence[str], Callable[[], float], float], tuple[float, list[float]]]  # as `interleaved`


def compare(console: Console, name: str = "", budget: str = LONG, interleave: Interleave | None = None) -> int:
    """Time an ablation of the reference model on this CPU. Return 1 if a trial is not as many times faster as asked for, else 0.

    Args:
        console: for the results.
        name: of the study; the budget's own unless said.
        budget: a key of `CASES`.
        interleave: in the place of `interleaved`.

    Raises:
        UserError: another budget, or a study that is no ablation or lacks it.
        MachineError: the study failed, or ended before the loop was measured once.
    """
    case = look_up(CASES, budget, "budget of this benchmark")
    plan = study.load_study(name := name or case.study)
    if not isinstance(plan, Ablation) or budget not in plan.budgets:
        raise UserError(f"{name} is no ablation with a {budget} budget\nname another study, such as {case.study}")
    trials, epochs = len(plan.cells(budget)), plan.budgets[budget].epochs
    images = load_dataset(plan.base.dataset, arguments=plan.base.dataset_args).fit_on(plan.base.fit_on)
    steps = epochs * -(-len(images) // plan.base.batch_size)
    threads = devices.cores()
    console.print(
        f"{name}, {budget} budget; every {case.every_s:g} s it stands still for {REFERENCE}, {threads} threads",
        highlight=False,
        soft_wrap=True,
    )
    with _reference(threads) as step_ms:
        study_s, reference_ms = (interleave or interleaved)(command(name, budget), step_ms, case.every_s)
    trial_s, ms = study_s / trials, statistics.median(reference_ms)
    loop_s = steps * ms / 1e3
    ok = loop_s >= case.at_least * trial_s
    spread = f"{min(reference_ms):.1f} to {max(reference_ms):.1f}, {len(reference_ms)} looks"
    console.print(
        f"{'ok    ' if ok else 'MISSED'} {trials} trials of {epochs} epochs, {steps:,} steps: {trial_s:.1f} s each, all included; "
        f"{clock(study_s)} in all;\n"
        f"       {REFERENCE}, {threads} threads: {ms:.1f} ms ({spread}): "
        f"{loop_s:.0f} s for so many steps;\n"
        f"       a trial is {loop_s / trial_s:.1f} times faster, {case.at_least:g} are asked for",
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


def interleaved(command: Sequence[str], reference_step: Callable[[], float], every_s: float) -> tuple[float, list[float]]:
    """Run a study in a new home, and stop it every `every_s` for the loop. Nothing was compiled and no network trained before.

    Return the seconds that the study ran, from the command to its end, and what `reference_step` returned at each stop.

    Raises:
        MachineError: the study failed, or ended before the first stop.
    """
    with tempfile.TemporaryDirectory() as folder:
        compiled = str(Path(folder, "compiled"))
        variables = {"HARNESS_HOME": folder, "TORCHINDUCTOR_CACHE_DIR": compiled, "HARNESS_DATA": str(_data_sets(Path(folder)))}
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


def _data_sets(home: Path) -> Path:
    """Return a folder of data sets in `home` with those on this machine, but none of the classifiers trained on them."""
    folder = home / "data"
    folder.mkdir()
    for entry in paths.data().iterdir() if paths.data().is_dir() else ():
        if entry.name != KEPT:
            (folder / entry.name).symlink_to(entry)
    return folder


def _ended(process: subprocess.Popen[bytes], within_s: float) -> bool:
    """Return whether the process ends within these seconds."""
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True
