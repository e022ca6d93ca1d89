"""What times both sides of a comparison. A script: it imports torch once and forks a process per side.

Only those processes import the project, each from its own folder, so that two versions run side by side. Requests come on stdin, a
line of JSON each, and are answered on stdout:

    {"sides": [[folder, steps], ...], "rounds": n, "seed": s, "compiled": whether the step is one program}
    {"seconds": n lists, one time per side}  or  {"fault": traceback}  or  {"died": words}
"""

import gc
import json
import multiprocessing as mp
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

WARM_UP_ROUNDS = 2


def workload(levels: Tensor, steps: int, device: torch.device, compiled: bool) -> Callable[[], None]:
    """A round: `steps` training steps of the reference model, all costs of a step included."""
    from harness.data import Data, Split
    from harness.spec import TrialSpec

    try:
        cohorts = import_module("harness.training.cohort")
    except ModuleNotFoundError:  # a revision from before training had a folder
        cohorts = import_module("harness.cohort")
    train, validation, test = (Split(n, levels, torch.zeros(len(levels)).long()) for n in ("train", "validation", "test"))
    how = {"compiled": True} if compiled else {}  # older revisions cannot compile, but their operations can be timed
    data = Data(name="bench", side=28, train=train, validation=validation, test=test, digest="")
    cohort = cohorts.Cohort([TrialSpec()], data, device, **how)
    if not hasattr(cohort, "run_steps"):  # an older revision
        cohort.steps_per_epoch, cohort.validation = steps, None

    def run() -> None:
        if not (cohort.run_steps(steps) if hasattr(cohort, "run_steps") else cohort.run_epoch()):
            raise RuntimeError("training met a value that is not finite")

    return run


def stopwatch(device: torch.device) -> Callable[[Callable[[], None]], float]:
    """A function that times a round: this thread's CPU time, blind to pre-emption, or the device's own events. Seconds."""

    def on_cpu(run: Callable[[], None]) -> float:
        started = time.thread_time()
        run()
        return time.thread_time() - started

    def on_device(run: Callable[[], None]) -> float:
        first, last = (torch.Event(device, enable_timing=True) for _ in range(2))
        first.record()
        run()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3

    return on_cpu if device.type == "cpu" else on_device


def side(link: Connection, folder: str, steps: int, levels: Tensor, device: torch.device, compiled: bool) -> None:
    """A process of one side: ready, then a time for every round that it is asked for."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # stdout carries the answers
    sys.path.insert(0, folder)
    try:
        run, timed = workload(levels, steps, device, compiled), stopwatch(device)
        _no_strays(folder)
        for _ in range(WARM_UP_ROUNDS):
            run()
        gc.collect()
        gc.freeze()
        gc.disable()
        link.send(None)
        while link.recv():
            link.send(timed(run))
    except Exception:  # whatever the side raises goes to the gate, which names the side and shows it
        link.send(traceback.format_exc())


def _no_strays(folder: str) -> None:
    """An installed copy of the project must not lend this side a module that it lacks."""
    modules = [m for name, m in sys.modules.items() if name.partition(".")[0] == "harness" and m.__file__]
    strays = [str(m.__file__) for m in modules if not Path(str(m.__file__)).resolve().is_relative_to(Path(folder).resolve())]
    if strays:
        raise ImportError(f"harness came from elsewhere: {', '.join(strays)}")


def group(
    sides: list[tuple[str, int]], rounds: int, seed: int, compiled: bool, levels: Tensor, device: torch.device
) -> dict[str, Any]:
    """Fresh processes, one per side, and their times, interleaved: one at work at a time, in random order."""
    draw, fork = random.Random(seed), mp.get_context("fork")
    links: dict[int, Connection] = {}
    processes: dict[int, BaseProcess] = {}
    here = 0
    try:
        for here in draw.sample(range(len(sides)), len(sides)):
            links[here], theirs = fork.Pipe()
            processes[here] = fork.Process(target=side, args=(theirs, *sides[here], levels, device, compiled), daemon=True)
            processes[here].start()
            theirs.close()
            if (fault := links[here].recv()) is not None:
                return {"fault": f"in {sides[here][0]}:\n{fault}"}
        seconds = []
        for _ in range(rounds):
            times = [0.0] * len(sides)
            for here in draw.sample(range(len(sides)), len(sides)):
                links[here].send(True)
                answer = links[here].recv()
                if isinstance(answer, str):
                    return {"fault": f"in {sides[here][0]}:\n{answer}"}
                times[here] = answer
            seconds.append(times)
        return {"seconds": seconds}
    except (EOFError, OSError):
        processes[here].join()
        return {"died": f"exit code {processes[here].exitcode}, in {sides[here][0]}"}
    finally:
        for process in processes.values():
            process.kill()
            process.join()


def main(images: str, device: str) -> None:
    """Answer requests until stdin ends."""
    torch.set_num_threads(1)
    levels, where = torch.from_numpy(np.load(images)), torch.device(device)
    for line in sys.stdin:
        request = json.loads(line)
        if request["compiled"] and where.type == "cpu":
            import_module("torch._inductor.compile_fx")  # here once, not for seconds in every process
        print(json.dumps(group(**request, levels=levels, device=where)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
