"""The Ray worker, which trains one job after another in a process of its own on any node, and leaves no result there."""

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
from harness.data.own import plain_name
from harness.errors import MachineError
from harness.executors.interrupts import INTERRUPTS, Stop
from harness.executors.jobs import Epoch, Event, Finished, Job, Notice
from harness.executors.parts import Saving
from harness.executors.ray.mailbox import Command
from harness.executors.training import DeviceLostError, train
from harness.metrics.features import PACKAGED
from harness.spec import TrialSpec
from harness.training.checkpoints import CheckpointError

SEND_S = 0.2  # seconds between two sendings; also the most by which a command to a job that does not wait for pruning is late


@dataclass(frozen=True)
class PackedCheckpoint:
    """A checkpoint as a message to the driver; `state` is the content of its file."""

    spec: TrialSpec
    epoch: int
    state: bytes


@dataclass(frozen=True)
class PackedResult:
    """A result as a message to the driver, with the content of its files by their names within its folder."""

    event: Finished
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class DriverEnvironment:
    """The code and the data folder of a driver, which its workers are checked against.

    Attributes:
        code: the digest of the harness's code.
        torch: the version of torch.
        data: the data folder, which a worker uses too if it sees it.
    """

    code: str
    torch: str
    data: Path

    @classmethod
    def current(cls) -> "DriverEnvironment":
        """Return that of this process."""
        return cls(provenance.code(), str(torch.__version__), paths.data())

    def features(self, dataset: str) -> dict[str, bytes]:
        """Return the files of a data set's feature networks by name, with which the driver's results are scored.

        A classifier that is trained on another machine may differ.
        """
        folders = (PACKAGED, self.data / "features")  # the latter go first, as they do where features are computed
        return {f.name: f.read_bytes() for folder in folders for f in folder.glob(f"{plain_name(dataset)}-*.pt")}


@dataclass(frozen=True)
class Introduction:
    """The place where a worker runs.

    Attributes:
        node: the id of its node.
        host: the name of the machine.
        pid: the id of its process.
        gpus: the ids of the GPUs that Ray gave it.
        device: the device that it trains on, in words.
    """

    node: str
    host: str
    pid: int
    gpus: tuple[str, ...]
    device: str


class Worker:
    """The actor of a worker, whose process keeps what it has loaded and compiled from job to job.

    SIGTERM, which `ray stop` sends to a node's processes, makes it send the end of its newest epoch as a checkpoint, and end.

    Attributes:
        device: the kind of device to train on.
        driver: the code and data folder of the driver.
        saving: how often checkpoints are sent.
    """

    def __init__(self, device: str, driver: DriverEnvironment, saving: Saving) -> None:
        INTERRUPTS.listen()
        devices.one_thread()
        self.device, self.driver, self.saving = device, driver, saving
        if driver.data.is_dir():  # this is the driver's machine, or they share the folder
            os.environ["HARNESS_DATA"] = str(driver.data)

    def introduce(self) -> Introduction:
        """Return where this worker runs, after checking that it can train for the driver.

        Raises:
            MachineError: it has other code than the driver, or not the device.
        """
        import ray

        host, own = socket.gethostname(), DriverEnvironment.current()
        if (own.code, own.torch) != (self.driver.code, self.driver.torch):
            raise MachineError(
                f"the Ray node {host} has other code than the driver\nthere: {own.code}, torch {own.torch}\n"
                f"here: {self.driver.code}, torch {self.driver.torch}\ngive all nodes the same checkout and the same torch"
            )
        context = ray.get_runtime_context()
        gpus = tuple(map(str, context.get_accelerator_ids().get("GPU", ())))
        return Introduction(context.get_node_id(), host, os.getpid(), gpus, devices.describe(devices.named(self.device)))

    def train(self, mailbox: Any, number: int, job: Job, states: Mapping[str, bytes], features: Mapping[str, bytes]) -> None:
        """Train a job and send its events, files and checkpoints to the mailbox.

        Args:
            mailbox: Ray's handle of the actor `Mailbox`.
            number: the number of the job.
            job: the job.
            states: the content of the checkpoints that it starts from, by spec id.
            features: the driver's feature classifiers by file name.
        """
        import ray

        _take_over(features)
        with TemporaryDirectory(prefix="harness-") as folder, _channel(mailbox, number) as channel:
            events = train(job, self.device, Path(folder), _SentCheckpoints(states, channel.put), channel.pruned, self.saving)
            lost = False
            try:
                with suppress(Stop), closing(events):
                    for event in events:
                        channel.put(_packed(event))
                        if job.waits_for_pruning and isinstance(event, Epoch) and event.last:
                            channel.await_command()
            except DeviceLostError as fault:
                channel.put(Notice(job.specs[0].id, str(fault).partition("\n")[0]))
                lost = True
        if INTERRUPTS.stop_requested or lost:  # such a process takes no further job; the driver starts another
            ray.actor.exit_actor()


def _take_over(features: Mapping[str, bytes]) -> None:
    """Write the driver's feature classifiers to the data folder of this node, over any that it had trained itself."""
    for name, content in features.items():
        file = paths.data() / "features" / name
        if not file.exists() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch = file.with_suffix(f".{os.getpid()}")
            scratch.write_bytes(content)
            scratch.replace(file)


def _packed(event: Event) -> Event | PackedResult:
    """Return an event as a message: a result with the content of its files, which are deleted, others as they are."""
    if not isinstance(event, Finished):
        return event
    files = {str(f.relative_to(event.files)): f.read_bytes() for f in event.files.rglob("*") if f.is_file()}
    rmtree(event.files)
    return PackedResult(event, files)


@dataclass(frozen=True)
class _SentCheckpoints:
    """A `CheckpointStore` that loads the checkpoints that came with the job, and saves by sending them to the driver.

    Attributes:
        states: the content of the checkpoints that came with the job, by spec id.
        put: the function that sends a message.
    """

    states: Mapping[str, bytes]
    put: Callable[[object], None]

    def save(self, spec: TrialSpec, epoch: int, state: dict[str, Any]) -> None:
        """Send the state of a trial after `epoch` epochs to the driver."""
        content = io.BytesIO()
        torch.save(state, content)
        self.put(PackedCheckpoint(spec, epoch, content.getvalue()))

    def load(self, spec: TrialSpec, epoch: int) -> dict[str, Any]:
        """Return the state of a trial that came with the job; raise CheckpointError if none came."""
        if spec.id not in self.states:
            raise CheckpointError(f"the checkpoint of {spec.id} after {epoch} epochs could not be read where the study was started")
        state: dict[str, Any] = torch.load(io.BytesIO(self.states[spec.id]), map_location="cpu", weights_only=True)
        return state


class _Channel:
    """A job's connection to the mailbox: a thread sends messages and receives commands while the main thread trains.

    Attributes:
        mailbox: Ray's handle of the actor `Mailbox`.
        number: the number of the job.
        pruned: the ids of the trials to prune.
        unsent: the messages to send, pickled.
        sending: the lock of the thread that sends, which keeps messages in order.
        closed: an event that ends the thread.
    """

    def __init__(self, mailbox: Any, number: int) -> None:
        self.mailbox, self.number = mailbox, number
        self.pruned: set[str] = set()
        self.unsent: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.sending = threading.Lock()
        self.closed = threading.Event()

    def put(self, message: object) -> None:
        """Add a message to those to send."""
        self.unsent.put(pickle.dumps(message))

    def await_command(self) -> None:
        """Wait until the driver has handled all messages, and obey its command."""
        import ray

        self.send()
        self._obey(ray.get(self.mailbox.await_command.remote(self.number)))

    def send_regularly(self) -> None:
        """Send messages every SEND_S until the channel is closed. The function of the thread."""
        while not self.closed.wait(SEND_S):
            self.send()

    def send(self) -> None:
        """Send all messages that are unsent, and obey the command that comes back."""
        import ray

        with self.sending:
            messages = [self.unsent.get() for _ in range(self.unsent.qsize())]
            self._obey(ray.get(self.mailbox.send.remote(self.number, messages)))

    def _obey(self, command: Command) -> None:
        """Take over the trials to prune, and send this process SIGTERM if it is to stop."""
        self.pruned |= command.prune
        if command.stop and not INTERRUPTS.stop_requested:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


@contextmanager
def _channel(mailbox: Any, number: int) -> Iterator[_Channel]:
    """Open a job's channel and its thread; at the end send the last messages."""
    channel = _Channel(mailbox, number)
    thread = threading.Thread(target=channel.send_regularly, daemon=True)
    thread.start()
    try:
        yield channel
    finally:
        channel.closed.set()
        thread.join()
        channel.send()
