"""The training of a job, from its start or its checkpoints to its results: the one function behind all executors."""

import traceback
from collections.abc import Collection, Generator
from contextlib import suppress
from pathlib import Path

import torch

from harness import devices
from harness.errors import DataError, MachineError
from harness.executors.interrupts import INTERRUPTS
from harness.executors.jobs import Event, Failed, Job, Notice, ends_trial
from harness.executors.parts import SAVING, CheckpointStore, Part, PartTraining, Saving
from harness.stores.space import is_full
from harness.training.checkpoints import CheckpointError

# Faults of the machine, not of the trial.
TRY_AGAIN = (MemoryError, OSError, DataError, CheckpointError, devices.CaptureError)


class DeviceLostError(MachineError):
    """Raised when a GPU has failed so that every later call of this process fails too; another process can go on."""


def train(
    job: Job,
    device: str,
    scratch: Path,
    checkpoints: CheckpointStore,
    pruned: Collection[str] = frozenset(),
    saving: Saving = SAVING,
) -> Generator[Event]:
    """Train a job's trials and yield the events. The trials' files are written to `scratch`/<spec id>.

    A job that goes on from checkpoints first yields the rows of all epochs before again, so that a reader that has lost some gets
    them. If the generator is closed, or ended by anything but an `Exception`, it first saves the end of the newest epoch. An
    exception fails all trials that have not ended yet. If the trials do not fit in the device's memory together, each half of them
    goes on from the newest epoch without the other.

    Results are a function of the specs alone, to rounding: how steps are taken and the trials beside one change the order of sums.

    Args:
        job: the trials.
        device: the name of the device to train on.
        scratch: the folder for the results' files.
        checkpoints: the store of checkpoints, to go on from and to save to.
        pruned: the ids of trials to prune, which the reader of the events may add to. They are read between the last row of an
            epoch and the next epoch.
        saving: how often to save checkpoints.

    Raises:
        DeviceLostError: the GPU has failed; no trial that has not ended yet has failed by that.
    """
    left = {s.id: s for s in job.specs}
    parts = [Part(job)]
    training = None
    try:
        torch_device = _usable(device)
        while parts:
            try:
                with INTERRUPTS.cutting_short():
                    training = PartTraining(parts[0], torch_device, checkpoints, saving)
                for event in training.events(scratch, pruned):
                    if ends_trial(event):
                        del left[event.spec]
                    yield event
            except RuntimeError as fault:
                if not devices.is_out_of_memory(fault):
                    raise
                together = [s for s in parts[0].job.specs if s.id in left]
                states = training.states(together) if training else {}
                held, message = f"{devices.peak_memory_mib(torch_device):,.0f} MiB held", str(fault).partition("\n")[0]
            else:
                parts, training = parts[1:], None
                continue
            training = None
            devices.release_memory(torch_device)
            first = together[0].id
            if len(together) == 1:
                del left[first]
                parts = parts[1:]
                yield Failed(first, f"out of memory with one trial alone (at most {held}): {message}", final=False)
                continue
            half = len(together) // 2
            halves = (together[:half], together[half:])
            parts = [*(parts[0].of(specs, states) for specs in halves), *parts[1:]]
            sizes = f"{half} and {len(together) - half}"
            yield Notice(first, f"out of memory with {len(together)} trials in a program (at most {held}): going on with {sizes}")
    except Exception as fault:  # fails the trials; the study goes on
        frame = traceback.extract_tb(fault.__traceback__)[-1]
        data, where = isinstance(fault, DataError), f"({Path(frame.filename).name}:{frame.lineno})"
        why = str(fault) if data else f"{type(fault).__name__}: {fault} {where}"
        if isinstance(fault, DeviceLostError):
            raise
        if devices.is_lost(fault):
            raise DeviceLostError(_lost(device, fault)) from fault
        full = is_full(fault)
        final = not (full or isinstance(fault, TRY_AGAIN))
        yield from (Failed(trial, why, final=final, data=data, full=full) for trial in left)
    except BaseException:  # the reader closed the generator, or a signal ends the process
        with suppress(OSError):  # a full disk must not keep the process from ending; the checkpoint before stays
            if training is not None:
                cohort = training.cohort
                unfinished = (*cohort.specs, *cohort.patience.stopped)
                training.save([s for s in unfinished if s.id in left and s.id not in pruned])
            for part in parts[1 if training else 0 :]:
                for trial, state in part.states.items():
                    if trial in left and trial not in pruned:
                        checkpoints.save(left[trial], part.job.start, state)
        raise


def _usable(name: str) -> torch.device:
    """Return the device of this name, made the current one of this process.

    Raises:
        DeviceLostError: it is a GPU that cannot be used, though it could when the study was started.
    """
    try:
        device = devices.named(name)
        devices.use(device)
        devices.keep_freed_memory()
    except (MachineError, RuntimeError) as fault:
        if devices.is_gpu(name):
            raise DeviceLostError(_lost(name, fault)) from fault
        raise
    return device


def _lost(device: str, fault: BaseException) -> str:
    """Return what to say of a GPU that has failed."""
    why = str(fault).partition("\n")[0]
    return f"{device} has failed: {type(fault).__name__}: {why}\nstart it again: the same command goes on from the checkpoints"
