"""Executors, which train jobs: in this process, in worker processes, on a Ray cluster or in SLURM jobs.

In come jobs, each with the trials of one program; out come events: epochs, results, failures. All executors call the same function
(training.py). The choice of what to train is a queue's; Optuna and MLflow must not enter. What trains is loaded on first use, with
torch, which jobs and spare processes do without.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness import paths
from harness.errors import MachineError, unknown
from harness.executors.jobs import Epoch, Event, Executor, Failed, Finished, Job, Notice, OutputDirs, Pruned, ends_trial
from harness.executors.spares import Spares
from harness.resources import EXECUTORS

if TYPE_CHECKING:
    from harness.executors.local import InProcess
    from harness.executors.parts import Saving
    from harness.executors.processes import Processes
    from harness.executors.training import train

__all__ = [
    "Epoch",
    "Event",
    "Executor",
    "Failed",
    "Finished",
    "InProcess",
    "Job",
    "Notice",
    "OutputDirs",
    "Processes",
    "Pruned",
    "Saving",
    "Spares",
    "ends_trial",
    "make",
    "train",
]

_WITH_TORCH = {"InProcess": "local", "Processes": "processes", "Saving": "parts", "train": "training"}


def __getattr__(name: str) -> Any:
    """Return a name of this room, from the module that defines it."""
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"harness.executors.{_WITH_TORCH[name]}"), name)


def make(name: str, devices: Sequence[str], dirs: OutputDirs, spares: Spares | None = None) -> Executor:
    """Return the executor called `name`, with one worker per entry of `devices`; `local` has one, on the first of them.

    Processes in `spares` become workers of `processes` first.

    Raises:
        UserError: the name is unknown.
        MachineError: a package that the executor needs is not installed.
    """
    try:
        match name:
            case "local":
                from harness.executors.local import InProcess

                return InProcess(dirs, devices[0])
            case "processes":
                from harness.executors.processes import Processes

                return Processes(devices, dirs, spares=spares)
            case "ray":
                from harness.executors.ray.executor import Ray

                return Ray(devices, dirs)
            case "slurm":
                from harness.executors.slurm.executor import Slurm

                return Slurm(devices, dirs)
    except ModuleNotFoundError as fault:
        extra = f"-e '.[{name}]'" if paths.in_clone() else f"'vae-harness[{name}]'"
        raise MachineError(f"executor {name!r} needs {fault.name}, which is not installed\npip install {extra}") from fault
    raise unknown("executor", name, EXECUTORS)
