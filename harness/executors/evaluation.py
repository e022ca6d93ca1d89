"""The evaluation of a trained trial: its scores, and the files that its run keeps."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from harness import figures, metrics, references
from harness.data import Data, load_dataset
from harness.models.vae import VAE, build
from harness.scores.rows import COMMON_BITS, ELBO_TRAIN, ELBO_VALIDATION, LATE_GAIN, VALIDATION_COMMON_BITS
from harness.spec import TrialSpec
from harness.training.batches import Row, generator


class Subject(NamedTuple):
    """A trained trial.

    Attributes:
        spec: the trial.
        vae: its model, of one lane.
        data: the data set, on the model's device.
        history: the rows of all its epochs.
        average: the model of its averaged weights, if it keeps an average.
    """

    spec: TrialSpec
    vae: VAE
    data: Data
    history: Sequence[Row]
    average: VAE | None = None


@cache
def dataset(name: str, arguments: Mapping[str, Any]) -> Data:
    """Return a data set on the CPU, loaded once per process."""
    return load_dataset(name, lambda _: None, arguments)


def evaluate(trial: Subject, files: Path, *, draw_all_figures: bool) -> dict[str, float]:
    """Return the scores of a trained trial by metric key, and write its files to the folder `files`.

    With the evaluation `validation` there are no pictures, since these show the test set.

    Raises:
        NotFiniteError: a score or a weight is not finite.
    """
    spec, vae, data, history, average = trial
    files.mkdir(parents=True, exist_ok=True)
    if spec.evaluation == "validation":
        scores = metrics.validate(spec, vae, data)
        common_bits = scores[VALIDATION_COMMON_BITS.key]
    else:
        evaluation = metrics.evaluate(spec, vae, data)
        scores = evaluation.scores
        common_bits = scores[COMMON_BITS.key]
        subject = figures.Subject(spec, vae, dataset(spec.dataset, spec.dataset_args), evaluation, history)
        list(figures.draw(subject, files / "figures", tuple(figures.FIGURES) if draw_all_figures else figures.AT_A_GLANCE))
        arrays: dict[str, Any] = _pictures(subject)
        np.savez_compressed(files / "pictures.npz", **arrays)
    if spec.references:
        (files / references.FILE).write_text(references.to_record(spec.references), encoding="utf-8")
    torch.save({k: v.cpu() for k, v in vae.state_dict().items()}, files / "state_dict.pt")
    if average is not None:
        scores |= metrics.averaged(spec, average, data)
        torch.save({k: v.cpu() for k, v in average.state_dict().items()}, files / "averaged_state_dict.pt")
    divergence = metrics.divergence(spec, vae, _untrained(spec, data), data, common_bits)
    return scores | divergence | _late_gain(history)


def _untrained(spec: TrialSpec, data: Data) -> VAE:
    """Return a trial's model as it was before its training, on the data's device."""
    vae = build(spec, data.image_shape)
    vae.reset(0, generator(spec.seed, "weights", 0))
    return vae.to(data.train.levels.device)


def _late_gain(history: Sequence[Row]) -> dict[str, float]:
    """Return the gain in ELBO over the last fifth of the epochs, in nats, by metric key.

    A large gain means that training was too short. The ELBO is that of the validation images if there is one, else of the training
    images. The result is empty after a single epoch.
    """
    if len(history) < 2:
        return {}
    elbo = ELBO_VALIDATION if ELBO_VALIDATION.key in history[-1] else ELBO_TRAIN
    before, last = (history[i][elbo.key] for i in (-1 - max(1, len(history) // 5), -1))
    return {LATE_GAIN.key: last - before}


def _pictures(subject: figures.Subject) -> dict[str, np.ndarray]:
    """Return the arrays that a study's report shows of a trial, by name.

    They are test images of each class, their reconstructions, and 16 samples, uint8 (n, C, H, W) each, and the latents of some
    test images, with their labels if they have any.
    """
    test, split, shape = subject.evaluation.test, subject.data.test, subject.data.image_shape
    examples, points = figures.examples(split), figures.scatter_points(split)
    z = torch.randn(16, subject.spec.latent, generator=torch.Generator().manual_seed(0))
    i, j = figures.axes_to_show(subject.evaluation)
    arrays = {
        "original": split.levels[examples].cpu().unflatten(-1, shape).numpy(),
        "reconstruction": _bytes(test.image[examples].cpu().unflatten(-1, shape).numpy()),
        "samples": _bytes(figures.decode(subject.vae, z, shape)),
        "latents": test.mean.cpu()[points][:, [i, j]].numpy(),
    }
    return arrays if split.labels is None else arrays | {"labels": split.labels.cpu()[points].numpy()}


def _bytes(image: np.ndarray) -> np.ndarray:
    """Return an image with values from 0 to 1 as grey levels from 0 to 255."""
    levels: np.ndarray = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    return levels
