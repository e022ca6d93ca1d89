"""The training of one VAE in this process, without a study and without a record."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from harness import devices
from harness.api.model import WEIGHTS, Model, read_network, table
from harness.data import load_dataset
from harness.errors import HarnessError, UserError
from harness.executors import Epoch, Failed, Finished, Job, Saving
from harness.executors import train as events_of
from harness.metrics.features import feature_net
from harness.scores.rows import ELBO_TRAIN, ELBO_VALIDATION, TRAIN_S
from harness.spec import TrialSpec, unfinished, unmet
from harness.study.scores import left_out, rows_with
from harness.testing import check_trials
from harness.training.checkpoints import CheckpointError
from harness.training.footprint import check_fits, footprint
from harness.training.planner import execution_alone


def train(spec: TrialSpec, *, device: str = "auto", progress: bool = True) -> Model:
    """Return a VAE trained and scored as this specification says, as the same trial of a study would be, to rounding.

    It trains in this process, and no run is recorded. Ctrl-C ends it with a KeyboardInterrupt. On a CPU it uses one thread, as the
    workers of studies do, so that results do not depend on the number of cores.

    Args:
        spec: The trial.
        device: `cpu`, `cuda`, `cuda:1`, ..., or `auto`: the first GPU, or the CPU of a machine without one.
        progress: Whether to show a line of progress on stderr.

    Raises:
        UserError: The device is unknown, or has no use for the trial's precision; a warm-up is longer than the training.
        DataError: The data set is missing and cannot be fetched.
        MachineError: The device is not available, or the training does not fit into memory.
        HarnessError: The training failed: the loss is not finite, at a step that the message gives, or memory ran out, ...

    >>> import harness
    >>> model = harness.train(harness.TrialSpec(dataset="digits", epochs=2), device="cpu", progress=False)
    >>> len(model.history), model.scores["model/parameters"]
    (2, 70596)
    """
    if not isinstance(spec, TrialSpec):
        raise UserError(f"train takes a TrialSpec, got {type(spec).__name__}\nharness.train(harness.TrialSpec(latent=2, epochs=5))")
    if unfinished(spec):
        raise UserError("\n".join([*unfinished(spec), "train for more epochs"]))
    line, threads = _Line(progress), torch.get_num_threads()
    devices.one_thread()
    try:
        return _trained(spec, device, line)
    finally:
        torch.set_num_threads(threads)
        line.end()


def _trained(spec: TrialSpec, device: str, line: "_Line") -> Model:
    """Return the trained model, with progress shown on a line."""
    torch_device = devices.named(device)
    data = load_dataset(spec.dataset, line.show, spec.dataset_args)
    check_trials([spec], data, say=line.show)
    check_fits(footprint(spec, data), device)
    if spec.evaluation != "validation":
        for words in left_out(rows_with(spec.metrics), data.counts):
            line.keep(words)
        if not unmet(("features",), data.counts):
            feature_net(data, say=line.show)  # made now, so that a first time is announced
    execution = execution_alone(spec, data, torch_device)
    rows: list[Mapping[str, float]] = []
    elbo = ""
    line.show("starting")
    with TemporaryDirectory(prefix="harness-") as scratch:
        job, saving = Job((spec,), execution=execution, images=data.digest), Saving(every_s=math.inf)
        for event in events_of(job, str(torch_device), Path(scratch), _NoCheckpoints(), saving=saving):
            match event:
                case Epoch(epoch=epoch, row=row):
                    rows.append(row)
                    score = ELBO_VALIDATION if ELBO_VALIDATION.key in row else ELBO_TRAIN
                    elbo = f"ELBO {row[score.key]:.1f} nats ({score.images})"
                    line.show(f"epoch {epoch}/{spec.epochs}: {elbo}{', scoring' if epoch == spec.epochs else ''}")
                case Failed(why=why):
                    raise HarnessError(why)
                case Finished(result=result, files=files):
                    vae = read_network(spec, data.image_shape, files / WEIGHTS).to(torch_device)
                    line.show(f"trained in {result.metrics[TRAIN_S.key]:,.1f} s: {elbo}")
                    scores = dict(rows[-1]) | dict(result.metrics)
                    return Model(spec=spec, scores=scores, history=table(rows), vae=vae, image_shape=data.image_shape)
    raise HarnessError(f"the training of {spec.id} ended without a result")


class _NoCheckpoints:
    """A store that keeps no checkpoint: nothing goes on from a training that was stopped."""

    def save(self, spec: TrialSpec, epoch: int, state: dict[str, Any]) -> None:
        """Keep nothing."""

    def load(self, spec: TrialSpec, epoch: int) -> dict[str, Any]:
        """Raise an error, because there is no checkpoint."""
        raise CheckpointError(f"no checkpoint of {spec.id} is kept")


class _Line:
    """A line of progress on stderr, rewritten in place; a stream that is no terminal gets its last state only."""

    def __init__(self, wanted: bool) -> None:
        self.wanted, self.text = wanted, ""

    def show(self, text: str) -> None:
        """Replace the line's text."""
        self.text = text
        if self.wanted and sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def keep(self, text: str) -> None:
        """Print a line that stays."""
        if self.wanted:
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """End the line."""
        if self.wanted and self.text:
            print("" if sys.stderr.isatty() else self.text, file=sys.stderr, flush=True)
