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
    device: str
    process: mp.process.BaseProcess
    pipe: Connection
    left: set[str] = field(default_factory=set)  # ids of its job's trials that it has not told the end of
    waits_for_pruning: bool = False  # as its job is
    waiting: bool = False  # to hear which trials to prune
    pruned: set[str] = field(default_factory=set)


class Processes:
    """A pool of worker processes, one thread each. A worker that dies loses its trials only, and is replaced.

    `devices` has an entry per worker. The driver's messages to a worker are a `Job` or, in a job, a set of ids to prune: after each
    row of a heeded job one, which may be empty. A worker's are events, or the code that it has where it is not the driver's.
    """

    def __init__(self, devices: Sequence[str], dirs: OutputDirs) -> None:
        self.dirs, self.code = dirs, provenance.code()
        self.context = mp.get_context("spawn")
        self.workers = [self._start(device) for device in devices]

    def _start(self, device: str) -> _Worker:
        ours, theirs = self.context.Pipe()
        with _environment(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TORCHINDUCTOR_COMPILE_THREADS="1"), _no_interrupts():
            process = self.context.Process(target=_work, args=(theirs, device, self.dirs, self.code), daemon=True)
            process.start()
        theirs.close()
        return _Worker(device, process, ours)

    def free(self) -> int:
        return sum(not w.left for w in self.workers)

    def submit(self, job: Job) -> None:
        worker = next(w for w in self.workers if not w.left)
        worker.left, worker.waits_for_pruning, worker.waiting, worker.pruned = (
            {s.id for s in job.specs},
            job.waits_for_pruning,
            False,
            set(),
        )
        _tell(worker, job)

    def events(self) -> Iterator[Event]:
        for worker in self.workers:  # what they told has been heeded
            if worker.waiting and worker.left:
                worker.waiting = False
                _tell(worker, frozenset(worker.pruned))
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
        worker.process.join()
        self.workers[self.workers.index(worker)] = self._start(worker.device)
        why = f"its worker process ended ({_exit(worker.process.exitcode)})"
        return (Failed(spec, why, final=False) for spec in worker.left)

    def prune(self, ids: Collection[str]) -> None:
        for worker in self.workers:
            mine = worker.left & set(ids)
            worker.pruned |= mine
            if mine and not worker.waits_for_pruning:
                _tell(worker, frozenset(mine))

    def close(self, patience_s: float = 8.0) -> None:
        workers, self.workers = self.workers, []
        for worker in workers:
            worker.process.terminate()
            worker.pipe.close()  # one that is sending what nobody reads must not wait for ever
        until = time.monotonic() + patience_s
        for worker in workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            worker.process.kill()
            worker.process.join()


def _tell(worker: _Worker, message: Job | frozenset[str]) -> None:
    with suppress(OSError):  # it is dead: `events` finds out and replaces it
        worker.pipe.send(message)


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Variables that processes started in this block inherit."""
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
    """Processes started in this block never see SIGINT, not even while they import; this process sees it after the block."""
    with _environment(PYTHONWARNINGS="ignore:resource_tracker:UserWarning"):  # of what workers told to end leave to it
        resource_tracker.ensure_running()  # it would start within the block, and lets SIGINT through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, device: str, dirs: OutputDirs, code: str) -> None:
    """A worker's life: take a job, tell what happens, until it is asked to end or the driver is gone."""
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
            if isinstance(message, Job):  # else it asks to prune a trial that has ended already
                _train(message, pipe, device, dirs, checkpoints)
    except (EOFError, OSError):  # the driver hung up
        return
    except Stop:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)  # end as one that was asked to, now that all is saved


def _train(job: Job, pipe: Connection, device: str, dirs: OutputDirs, checkpoints: Checkpoints) -> None:
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
    """End at once when the driver does: a new driver may train the same trial, and this process must not write beside it."""
    driver.join()
    os._exit(1)
