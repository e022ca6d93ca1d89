"""The checks of a GPU: parity, times beside the goals and beside peers, whole studies; ten minutes, step by step.

It is started as `python3 -m harness.bench.gpu --out DIR [--device cuda] [--toy] [--minutes 10] [--only STEP,...]`.

Every step runs in a process of its own with a timeout, so none can end the others. Results are kept in DIR as each case of a step
ends: started again with the same folder, the script takes what is not done. The steps but the studies need torch, torchvision,
numpy, scipy, scikit-learn and rich, and MNIST in the data folder; neither MLflow nor Optuna.
"""

import argparse
import datetime
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from harness import devices, paths, provenance
from harness.bench.gpu import options, record
from harness.bench.gpu.record import DONE, FAILED, LEFT_OUT, LOG, PAGE, TIMED_OUT, Results
from harness.bench.gpu.steps import STEPS, Step
from harness.errors import HarnessError, UserError, look_up

PROGRAM = "harness.bench.gpu.steps"
TOY_PATIENCE = 3  # times the timeouts, for a CPU at toy size
LAST_LINES = 8  # of a step that failed, for the terminal


def check(options: argparse.Namespace, console: Console, steps: Sequence[Step] = STEPS, program: str = PROGRAM) -> int:
    """Take the steps that are not done yet, print the table and keep it as Markdown.

    Args:
        options: those of `options`.
        console: where all is said.
        steps: all steps, in the order in which they are taken.
        program: the module that takes one of them.

    Returns:
        The exit code: 1 if something failed or was missed, else 0.

    Raises:
        UserError: the device is no GPU and this is no toy, or a step is unknown.
    """
    titles, by_name = {step.name: step.title for step in steps}, {step.name: step for step in steps}
    chosen = [look_up(by_name, name, "step") for name in options.only.split(",") if name] or steps
    device = devices.named(options.device)
    if not options.toy and not devices.can_capture(device):
        raise UserError(f"these checks are for a CUDA GPU, got {options.device!r}\nfor a CPU: make bench, or --toy")
    arguments = [str(device), "toy" if options.toy else "full"]
    results, deadline = Results(Path(options.out).resolve()), time.monotonic() + 60 * options.minutes
    results.forget(toy=not options.toy)  # a rehearsal in the same folder stands for nothing

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    for step in chosen:
        result = results.of(step.name)
        result.toy = options.toy
        if result.status == DONE:
            say(f"{step.name}: done on {result.date}, skipped; to take it again, empty {results.out}")
            continue
        left, timeout_s = deadline - time.monotonic(), step.timeout_s * (TOY_PATIENCE if options.toy else 1)
        if timeout_s > left:
            result.status, result.reason = LEFT_OUT, f"for time: it may take {timeout_s:.0f} s, {max(0, left):.0f} s were left"
        else:
            say(f"{step.name}: {step.title} ...")
            _run(step.name, results, [program, step.name, str(results.out)], arguments, timeout_s)
        for line in _outcome(step.name, results):
            say(line)
        results.save()
        (results.out / PAGE).write_text(record.page(results, titles, _caption(options.toy)), encoding="utf-8")
    say("")
    for line in record.lines(results, titles):
        say(line)
    bad = [name for name, r in results.steps.items() if r.missed or r.status in (FAILED, TIMED_OUT)]
    verdict = f"to look at: {', '.join(bad)}" if bad else "nothing failed, nothing missed"
    say(f"{verdict}; {sum(r.seconds for r in results.steps.values()):.0f} s in all; kept in {results.out}")
    return int(bool(bad))


def _run(name: str, results: Results, command: Sequence[str], arguments: Sequence[str], timeout_s: float) -> None:
    """Run a step in a process group of its own, which is killed after `timeout_s`, and move its rows into the results.

    Its output goes to the log as it comes.
    """
    result = results.of(name)
    result.commit, result.date, result.status = provenance.commit(), datetime.date.today().isoformat(), FAILED
    result.reason = "cut off"
    results.save()  # what a run leaves that is killed with this process
    scratch = tempfile.mkdtemp(prefix="harness-gpu-")
    started = time.monotonic()
    with (results.out / LOG).open("a", encoding="utf-8") as log:
        print(f"==== {name}", file=log, flush=True)
        process = subprocess.Popen(
            [sys.executable, "-m", *command, scratch, *arguments],
            env=_environment(scratch),
            cwd=paths.PROJECT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout_s)
            result.status, result.reason = (DONE, "") if code == 0 else (FAILED, f"exit code {code}")
        except subprocess.TimeoutExpired:
            result.status, result.reason = TIMED_OUT, f"after {timeout_s:.0f} s"
        finally:
            with suppress(ProcessLookupError):  # all of the group may have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            shutil.rmtree(scratch, ignore_errors=True)
    result.seconds = round(time.monotonic() - started, 1)
    results.collect()


def _environment(scratch: str) -> Mapping[str, str]:
    """Return the environment of a step: a home of its own, the data sets of this process, and nothing compiled before."""
    known = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "HARNESS_COMMAND")}
    return known | {
        "HARNESS_DATA": str(paths.data()),
        "HARNESS_HOME": scratch,
        "TORCHINDUCTOR_CACHE_DIR": f"{scratch}/inductor",
        "TRITON_CACHE_DIR": f"{scratch}/triton",
        "CUDA_CACHE_PATH": f"{scratch}/driver",
        "PYTHONUNBUFFERED": "1",
    }


def _outcome(name: str, results: Results) -> Iterator[str]:
    """Yield what became of a step, with the end of its output if it failed."""
    result = results.of(name)
    status = f"{result.status} {result.reason}".rstrip()
    yield f"  {status}, {result.seconds:.0f} s, {len(result.rows)} rows, {result.missed} missed"
    if result.status in (FAILED, TIMED_OUT):
        said = (results.out / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
        yield from (f"  | {line[:160]}" for line in said[-LAST_LINES:])


def _caption(toy: bool) -> str:
    """Return what the table is of, for below it."""
    size = "At toy size: no time is judged." if toy else "A time is of at least 1 s of work after 0.3 s of warming up."
    return f"{size} A trial-step is a step of one trial."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks from the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m harness.bench.gpu", description=(__doc__ or "").splitlines()[0])
    options.add(parser)
    try:
        return check(parser.parse_args(arguments), Console())
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        return error.exit_code
