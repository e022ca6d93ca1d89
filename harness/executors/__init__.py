"""Where trials train: in this process, in worker processes, on a Ray cluster or in SLURM jobs."""

from collections.abc import Sequence

from harness.errors import MachineError
from harness.executors.jobs import Dropped, Epoch, Event, Executor, Failed, Finished, Job, Places
from harness.executors.local import InProcess
from harness.executors.processes import Processes
from harness.executors.training import train
from harness.tables import unknown

__all__ = [
    "EXECUTORS",
    "Dropped",
    "Epoch",
    "Event",
    "Executor",
    "Failed",
    "Finished",
    "InProcess",
    "Job",
    "Places",
    "Processes",
    "make",
    "train",
]

EXECUTORS = ("local", "processes", "ray", "slurm")


def make(name: str, devices: Sequence[str], places: Places) -> Executor:
    """The executor called `name`, with a place per entry of devices; `local` has one place, on the first of them.

    Raises:
        UserError: an unknown name. MachineError: its package is not installed.
    """
    try:
        match name:
            case "local":
                return InProcess(places, devices[0])
            case "processes":
                return Processes(devices, places)
            case "ray":
                from harness.executors.on_ray import Ray

                return Ray(devices, places)
            case "slurm":
                from harness.executors.on_slurm import Slurm

                return Slurm(devices, places)
    except ModuleNotFoundError as fault:
        raise MachineError(f"executor {name!r} needs {fault.name}, which is not installed\npip install -e '.[{name}]'") from fault
    raise unknown("executor", name, EXECUTORS)
