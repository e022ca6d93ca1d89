"""Where the trials of a study train, and how many of them at a time: torch is imported by `place` and `check`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness import resources
from harness.evidence import Witness
from harness.spec import TrialSpec, least_memory

if TYPE_CHECKING:
    import torch

    from harness.data import Data
    from harness.training.footprint import Footprint

NOT_READ: Mapping[str, int] = {}  # images that are not counted yet


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What trials train on, and where: gathering it takes seconds, which a start that finds nothing to train does without.

    Attributes:
        data: what its trials train on.
        device: the kind of device they train on.
        workers: the device of every training that may run at a time.
        witness: of the trials, which writes their manifests.
    """

    data: "Data"
    device: "torch.device"
    workers: Sequence[str]
    witness: Witness = field(default_factory=Witness)


@dataclass
class Room:
    """Where trials are to train.

    Attributes:
        device: by name.
        workers: how many train at a time; None for one per core or GPU.
        per_gpu: how many of them may share a GPU of this machine.
        executor: by name.
        runs: how many there are to train.
    """

    device: str
    workers: int | None
    per_gpu: int
    executor: str
    runs: int

    def place(self) -> tuple["torch.device", list[str]]:
        """Return the kind of device that trials train on, and the device of each that may train at a time.

        Raises:
            HarnessError: there is no such device, or not as many as are asked for.
        """
        from harness import devices  # with torch

        count = 1 if self.executor == "local" and self.workers is None else self.workers
        return devices.named(self.device), devices.worker_devices(self.device, count, self._here, self.per_gpu)

    def check_least(self, specs: Iterable[TrialSpec], images: Mapping[str, int] = NOT_READ, pixels: int = 0) -> None:
        """Raise an error if a trial surely takes more than this machine's memory, as far as that is known without torch.

        Args:
            specs: the trials.
            images: how many there are to train on, by `fit_on`; without them data are not read yet.
            pixels: values of an image; 0 likewise.

        Raises:
            MachineError: one does.
        """
        if self._here and resources.only_cpu(self.device):
            need, words = max((least_memory(spec, images.get(spec.fit_on, 0), pixels) for spec in specs), default=(0, ""))
            if need > (memory := resources.memory_of_machine()):
                raise resources.too_large(words, memory, "this machine")

    def check(self, need: "Footprint") -> None:
        """Raise an error if trainings that take so much memory do not fit; on other machines nobody knows.

        Raises:
            MachineError: one does not fit, or not as many as were asked for.
        """
        from harness.training.footprint import check_fits  # with torch

        if self._here:
            check_fits(need, self.device, self.workers or 1, self.per_gpu)

    def make_fit(self, need: int, made_of: str) -> str:
        """Let fewer train at a time if memory is too small for as many as there are cores. Return that in words; nothing if not.

        On a GPU there is nothing to do: the plan of the programs sees to it.

        Raises:
            MachineError: one does not fit, or not as many as were asked for.
        """
        if not self._here or not resources.only_cpu(self.device):
            return ""
        holds = resources.fitting(need, self.workers, self._most, made_of)
        if self.workers is not None or holds >= self._most:
            return ""
        self.workers = holds
        return f"memory is for {holds} at a time, where {self._most} could train: {made_of}"

    @property
    def _here(self) -> bool:
        """Whether they train on this machine, whose memory is known."""
        return self.executor in resources.ON_THIS_MACHINE

    @property
    def _most(self) -> int:
        """How many would train at a time on this machine's cores if memory were no matter."""
        return 1 if self.executor == "local" else min(resources.cores(), self.runs)
