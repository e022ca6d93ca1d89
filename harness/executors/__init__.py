"""Executors, which train jobs: in this process, in worker processes, on a Ray cluster or in SLURM jobs.

In come jobs, each with the trials of one program; out come events: epochs, results, failures. All executors call the same function
(training.py). The choice of what to train is a queue's; Optuna and MLflow must not enter.
"""

from collections.abc import Sequence

from harness import paths
from harness.errors import MachineError, unknown
from harness.executors.jobs import Epoch, Event, Executor, Failed, Finished, Job, Notice, OutputDirs, Pruned, ends_trial
from harness.executors.local import InProcess
from harness.executors.parts import Saving
from harness.executors.processes import Processes
from harness.executors.training import train
from harness.resources import EXECUTORS

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
    "ends_trial",
    "make",
    "train",
]


def make(name: str, devices: Sequence[str], dirs: OutputDirs) -> Executor:
    """Return the executor called `name`, with one worker per entry of `devices`; `local` has one, on the first of them.

    Raises:
        UserError: the name is unknown.
        MachineError: a package that the executor needs is not installed.
    """
    try:
        match name:
            case "local":
                return InProcess(dirs, devices[0])
            case "processes":
                return Processes(devices, dirs)
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
