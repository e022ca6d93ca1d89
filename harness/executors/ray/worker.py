"""A Ray worker: trains one job after another in a process of its own, on whatever node, and leaves no result there."""

import io
import os
import pickle
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

import torch

from harness import devices, paths, provenance
from harness.errors import MachineError
from harness.executors.interrupts import INTERRUPTS, Stop
from harness.executors.jobs import Event, Finished, Job
from harness.executors.ray.mailbox import Command
from harness.executors.remote import epoch_ends
from harness.executors.training import train
from harness.spec import TrialSpec
from harness.training.checkpoints import CheckpointError

SEND_S = 0.2  # seconds between two letters; also how late an order to a job that is not heeded may come


@dataclass(frozen=True)
class PackedCheckpoint:
    """A checkpoint on its way to the driver's machine."""

    spec: TrialSpec
    epoch: int
    state: bytes


@dataclass(frozen=True)
class PackedResult:
    """A result with the content of its files, by their names within its folder."""

    event: Finished
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class DriverEnvironment:
    """What workers must have in common with the driver: the code, and its data folder where they see it."""

    code: str
    torch: str
    data: Path

    @classmethod
    def here(cls) -> "DriverEnvironment":
        return cls(provenance.code(), str(torch.__version__), paths.data())

    def features(self, dataset: str) -> dict[str, bytes]:
        """The feature classifier that the driver's results are scored with. Trained on another machine it may differ."""
        return {f.name: f.read_bytes() for f in (self.data / "features").glob(f"{dataset}-*.pt")}


@dataclass(frozen=True)
class Introduction:
    """Where a worker runs: its node's id, the machine, its process there, the GPUs that Ray gave it, and the device it found."""

    node: str
    host: str
    pid: int
    gpus: tuple[str, ...]
    device: str


class Worker:
    """The actor. Its process keeps what it has loaded and compiled from job to job.

    SIGTERM, which `ray stop` sends to a node's processes, makes it send its newest epoch ends_epoch to the driver and end.
    """

    def __init__(self, device: str, driver: DriverEnvironment) -> None:
        INTERRUPTS.listen()
        devices.one_thread()
        self.device, self.driver = device, driver
        if driver.data.is_dir():  # this is the driver's machine, or they share the folder
            os.environ["HARNESS_DATA"] = str(driver.data)

    def introduce(self) -> Introduction:
        """Say hello, once sure to be of use.

        Raises:
            MachineError: other code than the driver's, or no such device here.
        """
        import ray

        host, here = socket.gethostname(), DriverEnvironment.here()
        if (here.code, here.torch) != (self.driver.code, self.driver.torch):
            raise MachineError(
                f"the Ray node {host} has other code than the driver\nthere: {here.code}, torch {here.torch}\n"
                f"here: {self.driver.code}, torch {self.driver.torch}\ngive all nodes the same checkout and the same torch"
            )
        context = ray.get_runtime_context()
        gpus = tuple(map(str, context.get_accelerator_ids().get("GPU", ())))
        return Introduction(context.get_node_id(), host, os.getpid(), gpus, devices.describe(devices.device(self.device)))

    def train(self, post: Any, number: int, job: Job, states: Mapping[str, bytes], features: Mapping[str, bytes]) -> None:
        """Train a job. `states` are the checkpoints that it starts from, by spec id."""
        import ray

        _take_over(features)
        with TemporaryDirectory(prefix="harness-") as folder, _line(post, number) as line:
            events = train(job, self.device, Path(folder), _Sent(states, line.say), line.pruned)
            with suppress(Stop), closing(events):
                for event, ends_epoch in epoch_ends(job, events):
                    line.say(_packed(event))
                    if job.waits_for_pruning and ends_epoch:
                        line.await_command()
        if INTERRUPTS.asked:  # a process that was asked to stop takes no further job
            ray.actor.exit_actor()


def _take_over(features: Mapping[str, bytes]) -> None:
    """Use the driver's feature classifier from now on, also where this node had trained one of its own."""
    for name, content in features.items():
        file = paths.data() / "features" / name
        if not file.exists() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch = file.with_suffix(f".{os.getpid()}")
            scratch.write_bytes(content)
            scratch.replace(file)


def _packed(event: Event) -> Event | PackedResult:
    if not isinstance(event, Finished):
        return event
    files = {str(f.relative_to(event.files)): f.read_bytes() for f in event.files.rglob("*") if f.is_file()}
    rmtree(event.files)
    return PackedResult(event, files)


@dataclass(frozen=True)
class _Sent:
    """Stands for `Checkpoints` here: loads what came with the job, saves by sending."""

    states: Mapping[str, bytes]
    say: Callable[[object], None]

    def save(self, spec: TrialSpec, epoch: int, state: dict[str, Any]) -> None:
        content = io.BytesIO()
        torch.save(state, content)
        self.say(PackedCheckpoint(spec, epoch, content.getvalue()))

    def load(self, spec: TrialSpec, epoch: int) -> dict[str, Any]:
        if spec.id not in self.states:
            raise CheckpointError(f"the checkpoint of {spec.id} after {epoch} epochs could not be read where the study was started")
        return torch.load(io.BytesIO(self.states[spec.id]), map_location="cpu", weights_only=True)


class _Line:
    """A job's line to the driver: a thread sends what is said and hears the command, while this one trains."""

    def __init__(self, post: Any, number: int) -> None:
        self.post, self.number = post, number
        self.pruned: set[str] = set()
        self.unsent: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.turn = threading.Lock()
        self.over = threading.Event()

    def say(self, message: object) -> None:
        self.unsent.put(pickle.dumps(message))

    def await_command(self) -> None:
        """Wait until the driver has dealt with all that was said, and hear what it wants."""
        import ray

        self.send()
        self._obey(ray.get(self.post.await_command.remote(self.number)))

    def carry(self) -> None:
        while not self.over.wait(SEND_S):
            self.send()

    def send(self) -> None:
        import ray

        with self.turn:
            messages = [self.unsent.get() for _ in range(self.unsent.qsize())]
            self._obey(ray.get(self.post.tell.remote(self.number, messages)))

    def _obey(self, command: Command) -> None:
        self.pruned |= command.prune
        if command.stop and not INTERRUPTS.asked:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


@contextmanager
def _line(post: Any, number: int) -> Iterator[_Line]:
    line = _Line(post, number)
    thread = threading.Thread(target=line.carry, daemon=True)
    thread.start()
    try:
        yield line
    finally:
        line.over.set()
        thread.join()
        line.send()
