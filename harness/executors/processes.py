"""Training in worker processes of this machine."""

import multiprocessing as mp
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait

from harness import devices, provenance
from harness.errors import MachineError
from harness.executors.interrupts import INTERRUPTS, Stop
from harness.executors.jobs import Epoch, Event, Failed, Job, OutputDirs
from harness.executors.training import train
from harness.training.checkpoints import Checkpoints


@dataclass
class _Worker:
    """A worker process and its job.

    Attributes:
        device: the name of its device.
        process: the process.
        pipe: the driver's end of the pipe to it.
        left: the ids of its job's trials that have not ended yet.
        waits_for_pruning: True if its job waits after every epoch to be told which trials to prune.
        waiting: True while it waits for that.
        pruned: the ids of its job's trials to prune.
    """

    device: str
    process: mp.process.BaseProcess
    pipe: Connection
    left: set[str] = field(default_factory=set)
    waits_for_pruning: bool = False
    waiting: bool = False
    pruned: set[str] = field(default_factory=set)


class Processes:
    """An executor with a pool of worker processes of one thread each. A worker that dies loses its trials only, and is replaced.

    `devices` has the name of a device per worker. The driver sends a worker a `Job` or, during a job, a set of ids to prune; in a
    job that waits for pruning one set, which may be empty, after each row. A worker sends events, or the digest of its code if that
    is not the driver's.

    Attributes:
        dirs: the folders to write to.
        code: the digest of the driver's code; by default this process's.
        context: the way in which processes are started.
        workers: the workers.
    """

    def __init__(self, devices: Sequence[str], dirs: OutputDirs, code: str | None = None) -> None:
        self.dirs, self.code = dirs, code or provenance.code()
        self.context = mp.get_context("spawn")
        self.workers = [self._start(device) for device in devices]

    def _start(self, device: str) -> _Worker:
        """Start a worker process on this device."""
        driver_end, worker_end = self.context.Pipe()
        with _environment(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TORCHINDUCTOR_COMPILE_THREADS="1"), _no_interrupts():
            process = self.context.Process(target=_work, args=(worker_end, device, self.dirs, self.code), daemon=True)
            process.start()
        worker_end.close()
        return _Worker(device, process, driver_end)

    def free(self) -> int:
        """Return the number of workers without a job."""
        return sum(not w.left for w in self.workers)

    def submit(self, job: Job) -> None:
        """Send a job to a worker without one."""
        worker = next(w for w in self.workers if not w.left)
        worker.left, worker.waits_for_pruning, worker.waiting, worker.pruned = (
            {s.id for s in job.specs},
            job.waits_for_pruning,
            False,
            set(),
        )
        _send(worker, job)

    def events(self) -> Iterator[Event]:
        """Yield an event of each worker that has one; wait for the first.

        Raises:
            MachineError: a worker has other code than the driver.
        """
        for worker in self.workers:  # the caller has dealt with the rows of the call before
            if worker.waiting and worker.left:
                worker.waiting = False
                _send(worker, frozenset(worker.pruned))
        busy = {w.pipe: w for w in self.workers if w.left}
        for pipe in wait(list(busy)):
            worker = busy[pipe]  # type: ignore[index]  # wait() is typed to return sockets and handles too
            try:
                event = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                yield from self._replace(worker)
                continue
            if isinstance(event, str):
                raise MachineError(
                    f"the code has changed since the study was started: {self.code}, now {event}\n"
                    "start it again: the same command goes on"
                )
            if isinstance(event, Epoch):
                worker.waiting = worker.waits_for_pruning
            else:
                worker.left.remove(event.spec)
            yield event

    def _replace(self, worker: _Worker) -> Iterator[Failed]:
        """Start a new worker in the place of one that has died. Return the failures of the dead one's trials."""
        worker.process.join()
        self.workers[self.workers.index(worker)] = self._start(worker.device)
        why = f"its worker process ended ({_exit(worker.process.exitcode)})"
        return (Failed(spec, why, final=False) for spec in worker.left)

    def prune(self, ids: Collection[str]) -> None:
        """End these trials at the end of an epoch."""
        for worker in self.workers:
            own = worker.left & set(ids)
            worker.pruned |= own
            if own and not worker.waits_for_pruning:
                _send(worker, frozenset(own))

    def close(self, patience_s: float = 8.0) -> None:
        """Ask all workers to save the end of their newest epoch and to end; kill those that take longer than `patience_s`."""
        workers, self.workers = self.workers, []
        for worker in workers:
            worker.process.terminate()
            worker.pipe.close()  # a worker must not wait for ever for its message to be read
        deadline = time.monotonic() + patience_s
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()
            worker.process.join()


def _send(worker: _Worker, message: Job | frozenset[str]) -> None:
    """Send a message to a worker, unless it is dead."""
    with suppress(OSError):  # `events` replaces a dead worker
        worker.pipe.send(message)


def _exit(code: int | None) -> str:
    """Return the exit code of a process in words."""
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables for the block and for processes that are started in it, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Block SIGINT: processes started in the block never see it, not even while they import; this process sees it afterwards."""
    with _environment(PYTHONWARNINGS="ignore:resource_tracker:UserWarning"):  # about resources that ended workers leave behind
        resource_tracker.ensure_running()  # else it would start within the block, and it unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, device: str, dirs: OutputDirs, code: str) -> None:
    """Run a worker: take jobs and send their events until the process is asked to end or the driver is gone."""
    INTERRUPTS.listen()
    threading.Thread(target=_end_with, args=(mp.parent_process(),), daemon=True).start()
    devices.one_thread()
    checkpoints = Checkpoints(dirs.checkpoints)
    try:
        if checkpoints.code != code:
            pipe.send(checkpoints.code)
            return
        while True:
            with INTERRUPTS.cutting_short():
                message = pipe.recv()
            if isinstance(message, Job):  # a set of ids to prune is of trials that have ended already
                _train(message, pipe, device, dirs, checkpoints)
    except (EOFError, OSError):  # the driver closed the pipe
        return
    except Stop:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)  # end by the signal, now that all is saved


def _train(job: Job, pipe: Connection, device: str, dirs: OutputDirs, checkpoints: Checkpoints) -> None:
    """Train a job, send its events, and receive the ids of trials to prune after every row."""
    pruned: set[str] = set()
    with closing(train(job, device, dirs.scratch, checkpoints, pruned)) as events:
        for event in events:
            pipe.send(event)
            if isinstance(event, Epoch):
                with INTERRUPTS.cutting_short():
                    if job.waits_for_pruning:
                        pruned |= pipe.recv()
                    while not job.waits_for_pruning and pipe.poll():
                        pruned |= pipe.recv()


def _end_with(driver: mp.process.BaseProcess) -> None:
    """Wait for the driver to end, then end this process at once.

    A new driver may train the same trial, whose files this process must not write then.
    """
    driver.join()
    os._exit(1)
