"""The process that times both sides of a comparison. It is a script that imports torch once and forks a process per side.

Only those processes import the project, each from its own folder, so that two versions run side by side. Requests come on stdin, a
line of JSON each, and are answered on stdout:

    {"sides": [[folder, steps], ...], "rounds": n, "seed": s, "as_studied": true or false}
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
from inspect import signature
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

WARM_UP_ROUNDS = 2


def workload(levels: Tensor, steps: int, device: torch.device, as_studied: bool) -> Callable[[], None]:
    """Return a function that takes `steps` training steps of the reference model, with all costs of a step.

    It raises RuntimeError if training meets a value that is not finite.

    Args:
        levels: grey levels of the images, uint8 (N, P).
        steps: of a round.
        device: to train on.
        as_studied: True to take steps as studies do: by hand on a CPU if the project can, else compiled to one program.
    """
    import harness
    from harness.data import Data, Split
    from harness.spec import TrialSpec

    # Asked of the folder, not of the import: an installed copy of the project would lend an older revision the newer module.
    folder = Path(str(harness.__file__)).parents[1]
    rooms = (folder / "harness" / "training").is_dir()
    cohorts = import_module("harness.training.cohort" if rooms else "harness.cohort")
    train, validation, test = (Split(n, levels, torch.zeros(len(levels)).long()) for n in ("train", "validation", "test"))
    # Older revisions have a flag in the place of `execution`; still older ones cannot compile, and are timed by operations.
    by_name = "execution" in signature(cohorts.Cohort).parameters
    execution = "manual" if by_hand(folder, device) and import_module("harness.kernels.library").load() else "compiled"
    options: dict[str, Any] = ({"execution": execution} if by_name else {"compiled": True}) if as_studied else {}
    # Revisions before images of any shape have the side of a square one.
    shape: dict[str, Any] = {"image_shape": (1, 28, 28)} if "image_shape" in signature(Data).parameters else {"side": 28}
    data = Data(name="bench", train=train, validation=validation, test=test, digest="", **shape)
    cohort = cohorts.Cohort([TrialSpec()], data, device, **options)
    if not hasattr(cohort, "run_steps"):  # an older revision, whose epochs are shortened instead
        cohort.steps_per_epoch, cohort.validation = steps, None

    def run() -> None:
        if not (cohort.run_steps(steps) if hasattr(cohort, "run_steps") else cohort.run_epoch()):
            raise RuntimeError("training met a value that is not finite")

    return run


def by_hand(folder: Path, device: torch.device) -> bool:
    """Return whether the project in a folder has a step on this device whose backward pass is written out."""
    return device.type == "cpu" and (folder / "harness" / "training" / "manual.py").exists()


def stopwatch(device: torch.device) -> Callable[[Callable[[], None]], float]:
    """Return a function that times a round in seconds.

    On a CPU it reads this thread's CPU time, which leaves out the time in which other processes run; elsewhere the device's events.
    """

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
        return float(first.elapsed_time(last)) / 1e3

    return on_cpu if device.type == "cpu" else on_device


def side(link: Connection, folder: str, steps: int, levels: Tensor, device: torch.device, as_studied: bool) -> None:
    """Run the process of one side: send None when it is ready, then a time for every request; send a traceback if it fails."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # stdout is for the answers
    sys.path.insert(0, folder)
    try:
        run, timed = workload(levels, steps, device, as_studied), stopwatch(device)
        _check_origin(folder)
        for _ in range(WARM_UP_ROUNDS):
            run()
        gc.collect()
        gc.freeze()
        gc.disable()
        link.send(None)
        while link.recv():
            link.send(timed(run))
    except Exception:  # the gate names the side and shows the traceback, whatever was raised
        link.send(traceback.format_exc())


def _check_origin(folder: str) -> None:
    """Raise an error if modules of the project come from another folder.

    An installed copy of the project could otherwise supply a module that this side lacks.

    Raises:
        ImportError: such modules were imported.
    """
    modules = [m for name, m in sys.modules.items() if name.partition(".")[0] == "harness" and m.__file__]
    elsewhere = [str(m.__file__) for m in modules if not Path(str(m.__file__)).resolve().is_relative_to(Path(folder).resolve())]
    if elsewhere:
        raise ImportError(f"harness came from elsewhere: {', '.join(elsewhere)}")


def group(
    sides: list[tuple[str, int]], rounds: int, seed: int, as_studied: bool, levels: Tensor, device: torch.device
) -> dict[str, Any]:
    """Return the times of fresh processes, one per side, which take turns in random order.

    Only one of them works at a time.
    """
    rng, fork = random.Random(seed), mp.get_context("fork")
    links: dict[int, Connection] = {}
    processes: dict[int, BaseProcess] = {}
    index = 0
    try:
        for index in rng.sample(range(len(sides)), len(sides)):
            links[index], child_end = fork.Pipe()
            processes[index] = fork.Process(target=side, args=(child_end, *sides[index], levels, device, as_studied), daemon=True)
            processes[index].start()
            child_end.close()
            if (fault := links[index].recv()) is not None:
                return {"fault": f"in {sides[index][0]}:\n{fault}"}
        seconds = []
        for _ in range(rounds):
            times = [0.0] * len(sides)
            for index in rng.sample(range(len(sides)), len(sides)):
                links[index].send(True)
                answer = links[index].recv()
                if isinstance(answer, str):
                    return {"fault": f"in {sides[index][0]}:\n{answer}"}
                times[index] = answer
            seconds.append(times)
        return {"seconds": seconds}
    except (EOFError, OSError):
        processes[index].join()
        return {"died": f"exit code {processes[index].exitcode}, in {sides[index][0]}"}
    finally:
        for process in processes.values():
            process.kill()
            process.join()


def main(images: str, device: str) -> None:
    """Answer requests until stdin ends."""
    torch.set_num_threads(1)
    levels, torch_device = torch.from_numpy(np.load(images, allow_pickle=False)), torch.device(device)
    for line in sys.stdin:
        request = json.loads(line)
        on_cpu = torch_device.type == "cpu"
        if request["as_studied"] and on_cpu and not all(by_hand(Path(folder), torch_device) for folder, _ in request["sides"]):
            import_module("torch._inductor.compile_fx")  # takes seconds, here once instead of in every process
        print(json.dumps(group(**request, levels=levels, device=torch_device)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
