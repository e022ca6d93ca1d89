"""Worker processes of this machine that were started before it is known what for. Torch is not imported here.

A worker takes as long to import torch as a driver takes to import MLflow and to open its stores, so both should do so at a time.
"""

import gc
import multiprocessing as mp
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from harness.training.children import end_with_parent, environment, no_interrupts

THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # of a worker, read while torch is imported


@dataclass(frozen=True)
class Spare:
    """A process that waits to be told its work.

    Attributes:
        process: the process.
        pipe: the driver's end of the pipe to it, on which it takes the arguments of `processes.work` first.
        device: the name of the device that it has worked on before; empty if it has not worked.
    """

    process: mp.process.BaseProcess
    pipe: Connection
    device: str = ""

    @classmethod
    def start(cls) -> "Spare":
        """Start a process."""
        context = mp.get_context("spawn")
        driver_end, worker_end = context.Pipe()
        with environment(**THREADS), no_interrupts():
            process = context.Process(target=_wait, args=(worker_end,), daemon=True)
            process.start()
        worker_end.close()
        return cls(process, driver_end)


@dataclass
class Spares:
    """The spare processes of a driver.

    Attributes:
        waiting: those that nobody has taken.
    """

    waiting: list[Spare] = field(default_factory=list)

    def start(self, count: int) -> None:
        """Start so many processes more."""
        for _ in range(count):
            self.waiting.append(Spare.start())  # at once: an interrupt may come between two

    def take(self, device: str) -> Spare:
        """Return a process that waits and has worked on no other device, or start one."""
        for spare in [s for s in self.waiting if s.device in ("", device)]:
            self.waiting.remove(spare)
            if spare.process.is_alive():
                return spare
            spare.pipe.close()
        return Spare.start()

    def keep(self, spare: Spare) -> None:
        """Take back a process that has nothing to do, for the next executor."""
        self.waiting.append(spare)

    def close(self) -> None:
        """End those that nobody has taken; they hold nothing that could be lost. More may be started or kept after that."""
        for spare in self.waiting:
            spare.process.kill()
            spare.pipe.close()
        for spare in self.waiting:
            spare.process.join()
        self.waiting.clear()


def _wait(pipe: Connection) -> None:
    """Import what trains, then do the work that the driver sends; end if it sends none."""
    end_with_parent()
    gc.disable()  # a fifth of the time that imports take
    from harness.executors import processes  # takes seconds, most of them torch's

    gc.freeze()  # modules stay, so that no collection need look at them again
    gc.enable()
    work: Callable[..., None] = processes.work
    try:
        arguments = pipe.recv()
    except (EOFError, OSError):  # the driver needs no worker
        return
    work(pipe, *arguments)
