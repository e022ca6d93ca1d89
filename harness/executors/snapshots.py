"""The pictures of a job's trials at a few epochs, kept until their results are written."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from harness import figures
from harness.data import Data
from harness.executors.jobs import Job
from harness.models.vae import VAE
from harness.spec import TrialSpec

Pictures = Mapping[int, Mapping[str, Tensor]]  # by epoch and key


class Snapshots:
    """The pictures of those trials of a job of which all figures are drawn: one seed of an arm, as a chart shows few runs.

    Attributes:
        pictures: what was drawn so far, by spec id, epoch and key.
    """

    def __init__(self, job: Job) -> None:
        self.pictures: dict[str, dict[int, Mapping[str, Tensor]]] = {
            s.id: {} for s in job.specs if s.id in job.draw_all_figures and s.evaluation != "validation"
        }

    def wants(self, spec: TrialSpec, epoch: int) -> bool:
        """Return whether a trial is to be pictured after an epoch before its last."""
        return spec.id in self.pictures and epoch < spec.epochs and epoch in figures.epochs_pictured(spec.epochs)

    def take(self, spec: TrialSpec, epoch: int, vae: VAE, data: Data) -> None:
        """Picture a trial's model, of one lane, as it is after an epoch."""
        self.pictures[spec.id][epoch] = figures.snapshot(spec, vae, data)

    def until(self, trial: str, epoch: int) -> Pictures:
        """Return the pictures of a trial up to an epoch, for its checkpoint."""
        return {e: pictures for e, pictures in self.pictures.get(trial, {}).items() if e <= epoch}

    def restore(self, trial: str, pictures: Pictures) -> None:
        """Take a trial's pictures from its checkpoint."""
        if trial in self.pictures:
            self.pictures[trial] = dict(pictures)

    def write(self, spec: TrialSpec, vae: VAE, data: Data, files: Path) -> None:
        """Picture a trained trial, as after its last epoch, and write its pictures beside its other files."""
        if spec.id in self.pictures:
            self.take(spec, spec.epochs, vae, data)
            figures.write_snapshots(self.pictures[spec.id], spec.id, files)
