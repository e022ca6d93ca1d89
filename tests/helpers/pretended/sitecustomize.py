"""GPUs that are the CPU, for programs that are started with this folder on PYTHONPATH: PRETENDED_GPUS says how many.

The driver sees that many GPUs. A worker of one trains on the CPU, and writes its process and the name of its device to the file
PRETENDED_LOG. While a file PRETENDED_FAULT exists, the next epoch on a GPU takes it away and fails as it says: with its first line
as the name of an exception of torch, and the second as its message.
"""

import importlib.abc
import multiprocessing as mp
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType, SimpleNamespace


class Hook(importlib.abc.MetaPathFinder):
    """An import hook that changes modules right after their import."""

    def __init__(self) -> None:
        self.changes = {"harness.devices": pretend, "harness.training.cohort": fail_when_asked, "matplotlib.figure": unpaint}

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        if name not in self.changes:
            return None
        spec, change = PathFinder.find_spec(name, path), self.changes[name]
        run = spec.loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            run(module)
            change(module)

        spec.loader.exec_module = run_and_change
        return spec


def pretend(devices: ModuleType) -> None:
    import torch

    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: int(os.environ["PRETENDED_GPUS"])
    torch.cuda.get_device_name = lambda device: "a pretended GPU"
    torch.cuda.get_device_properties = lambda device: SimpleNamespace(total_memory=80 * 2**30)
    named = devices.named

    def in_a_worker(name: str) -> torch.device:
        device = named(name)
        if device.type == "cpu" or mp.parent_process() is None:
            return device
        with Path(os.environ["PRETENDED_LOG"]).open("a") as log:
            log.write(f"{os.getpid()} {device}\n")
        return torch.device("cpu")

    devices.named = in_a_worker


def unpaint(figure: ModuleType) -> None:
    """As the fixture `unpainted`."""
    figure.Figure.draw = lambda self, renderer: None


def fail_when_asked(cohort: ModuleType) -> None:
    import torch

    run_epoch, fault = cohort.Cohort.run_epoch, Path(os.environ.get("PRETENDED_FAULT", "/nonexistent"))

    def or_fail(self: object) -> object:
        if not self.epoch:  # after the first, there is something to go on from
            return run_epoch(self)
        try:
            taken = fault.rename(fault.with_name(f"fault of {os.getpid()}"))
        except FileNotFoundError:  # there is none, or another worker has it
            return run_epoch(self)
        kind, message = taken.read_text().splitlines()
        raise getattr(torch, kind)(message)

    cohort.Cohort.run_epoch = or_fail


if os.environ.get("PRETENDED_GPUS"):
    sys.meta_path.insert(0, Hook())
