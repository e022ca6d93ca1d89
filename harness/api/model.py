"""A trained VAE as a single model, without lanes, whose results are on the CPU.

Shapes: N images, C channels, H by W pixels, Z latents.
"""

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from harness import references
from harness.api.inputs import latents_of, split_of
from harness.data import as_images
from harness.errors import UserError
from harness.kernels.matmul import Inference
from harness.metrics import encodings, model_inputs, native, prior_samples
from harness.metrics.bounds import importance
from harness.metrics.inputs import encode
from harness.metrics.memory import mean_images
from harness.models.vae import VAE, build
from harness.spec import TrialSpec

# The files of a saved model; the first two are as in the runs of trials.
SPEC, WEIGHTS, RECORD = "spec.json", "state_dict.pt", "model.json"
CHUNK = 100  # draws of an image at a time


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Model:
    """A trained VAE.

    Images are taken as uint8 grey levels or as floats in [0, 1], which are rounded to 256 levels: NumPy arrays or tensors of shape
    (N, C, H, W), (N, C H W) or, of one channel, (N, H, W). Images are returned as floats on [0, 1]: (N, H, W), or (N, C, H, W) of
    more than one channel. A likelihood that binarises or dequantises its data gets the noise of one fixed seed.

    Attributes:
        spec: The trial that was trained.
        scores: The last epoch's metrics and the final scores by metric key (docs/science.md), in nats per image unless a key says
            otherwise.
        history: The metrics of every epoch: a row an epoch, counted from 1, a column a key.
        vae: The network, in a single lane.
        image_shape: Channels, height and width of an image, (C, H, W).

    >>> import harness, torch
    >>> model = harness.train(harness.TrialSpec(dataset="digits", latent=3, epochs=1), device="cpu", progress=False)
    >>> mean, log_var = model.encode(torch.zeros(5, 8, 8, dtype=torch.uint8))
    >>> mean.shape, model.decode(mean).shape, model.sample(2).shape
    (torch.Size([5, 3]), torch.Size([5, 8, 8]), torch.Size([2, 8, 8]))
    """

    spec: TrialSpec
    scores: Mapping[str, float]
    history: pd.DataFrame
    vae: VAE
    image_shape: tuple[int, int, int]

    def __repr__(self) -> str:
        values, defaults = self.spec.identity, TrialSpec().identity
        changed = [f"{name}={getattr(self.spec, name)!r}" for name in values if values[name] != defaults.get(name)]
        return f"Model(TrialSpec({', '.join(changed)}))"

    def encode(self, images: Any) -> tuple[Tensor, Tensor]:
        """Return the mean and the log variance of q(z|x), (N, Z) each.

        Raises:
            UserError: The images have another shape, number type or range.
        """
        with Inference():
            mean, log_var = encode(self.spec, self.vae, split_of(images, self.image_shape).to(self._device))
        return mean.cpu(), log_var.cpu()

    @torch.no_grad()
    def decode(self, z: Any) -> Tensor:
        """Return the mean images of p(x|z), (N, H, W) on [0, 1], for latents z (N, Z).

        Raises:
            UserError: z has another shape, or is not of finite floats.
        """
        latents = latents_of(z, self.spec.latent).to(self._device)
        with Inference():
            return self._images(mean_images(self.vae, latents[None]))

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Return the mean images of n latents drawn from the prior, (n, H, W) on [0, 1]. Equal seeds give equal latents.

        Raises:
            UserError: n is less than 1.
        """
        _at_least_one("n", n)
        with Inference():
            return self._images(prior_samples(self.vae, n, self.spec.latent, seed))

    def reconstruct(self, images: Any) -> Tensor:
        """Return the mean images decoded at the mean of q(z|x), (N, H, W) on [0, 1].

        Raises:
            UserError: The images have another shape, number type or range.
        """
        with Inference():
            return self._images(encodings(self.vae, self._inputs(images)).image)

    def log_prob(self, images: Any, samples: int = 100, seed: int = 0) -> Tensor:
        """Return an importance-weighted estimate of log p(x) of every image, in nats, float64 (N,).

        It is log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x) with K = `samples` draws from q, a lower bound on average that grows with K
        (Burda et al., 2016, https://arxiv.org/abs/1509.00519), on the scale of the likelihood: values of different likelihoods
        cannot be compared (docs/science.md).

        Raises:
            UserError: The images have another shape, number type or range, or `samples` is less than 1.
        """
        _at_least_one("samples", samples)
        at_a_time = next(k for k in range(min(CHUNK, samples), 0, -1) if samples % k == 0)
        with Inference():
            view = native(self.vae, self._inputs(images))
            return importance(self.vae, view, samples, seed, ladder=(samples,), draws=at_a_time).bounds[samples]

    def save(self, folder: str | Path) -> None:
        """Write the model into a folder, which is made if it is missing: spec.json, state_dict.pt and model.json.

        `harness.load` gives it back. Nothing of it is pickled: the weights are a state dict, and code of the user's own that the
        trial refers to is kept as text in code.json, which loading imports.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / SPEC).write_text(json.dumps(self.spec.as_dict(), indent=1), encoding="utf-8")
        if self.spec.references:
            (path / references.FILE).write_text(references.to_record(self.spec.references), encoding="utf-8")
        torch.save({name: tensor.cpu() for name, tensor in self.vae.state_dict().items()}, path / WEIGHTS)
        rows = self.history.to_dict("records")
        record = {"image_shape": self.image_shape, "scores": dict(self.scores), "history": rows}
        (path / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")

    @property
    def _device(self) -> torch.device:
        """The device of the network."""
        return next(self.vae.parameters()).device

    def _inputs(self, images: Any) -> Tensor:
        """Return images as the network's inputs, (N, P), on its device."""
        return model_inputs(self.spec, split_of(images, self.image_shape).to(self._device))

    def _images(self, flat: Tensor) -> Tensor:
        """Return images (N, P) with their pixels in rows and columns, on the CPU."""
        return as_images(flat.clamp(0, 1), self.image_shape).cpu()


def read(folder: Path) -> Model:
    """Return the model that `Model.save` wrote into a folder.

    Raises:
        UserError: A file of it is missing or cannot be read, or the files are not of one model.
    """
    try:
        spec = TrialSpec.from_dict(json.loads((folder / SPEC).read_text(encoding="utf-8")))
        if spec.references:
            references.from_record((folder / references.FILE).read_text(encoding="utf-8"))
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        rows, scores = record["history"], record["scores"]
        earlier = (1, record.get("side"), record.get("side"))  # what was kept when all images were square and grey
        channels, height, width = record.get("image_shape", earlier)
        image_shape = (int(channels), int(height), int(width))
        vae = read_network(spec, image_shape, folder / WEIGHTS)
    except (OSError, KeyError, TypeError, ValueError) as fault:
        raise UserError(f"{folder} holds no model of Model.save, or not all of it: {type(fault).__name__}: {fault}") from fault
    return Model(spec=spec, scores=scores, history=table(rows), vae=vae, image_shape=image_shape)


def read_network(spec: TrialSpec, image_shape: tuple[int, int, int], weights: Path) -> VAE:
    """Return the network of a trial on the CPU, with the weights in a file.

    Raises:
        UserError: The file is not there or broken, or its weights are those of another network.
    """
    vae = build(spec, image_shape)
    try:
        vae.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as fault:
        said = str(fault).strip().partition("\n")[0] or type(fault).__name__
        raise UserError(f"{weights} does not hold the weights of this network: {said}") from fault
    return vae


def table(rows: list[Mapping[str, float]]) -> pd.DataFrame:
    """Return the rows of all epochs as a frame, indexed by the number of the epoch from 1 on."""
    return pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="epoch"))


def _at_least_one(name: str, value: object) -> None:
    """Raise an error unless the value is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
