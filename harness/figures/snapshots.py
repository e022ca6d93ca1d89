"""Pictures of a model at a few epochs of its training, drawn without axes so that they cost little, as files that MLflow shows.

They show validation images: how training goes may be looked at before its end, and the test set is for final scores.
"""

from collections.abc import Mapping
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.image import imsave
from torch import Tensor

from harness.data import Data, Split
from harness.figures.axes import tile
from harness.figures.canvas import decode, examples
from harness.figures.schedule import FOLDER, KEYS
from harness.models.vae import VAE
from harness.spec import TrialSpec

PER_CLASS = 100  # codes of a class
REACH = 4.0  # of the picture of the codes, from the origin to each side: all but 0.01 % of the prior
SIDE = 240  # pixels of that picture
CLASSES = 10  # colours of classes; an eleventh class has the first again
ENLARGED = 2  # pixels of a file per pixel of an image, along each side


@torch.no_grad()
def snapshot(spec: TrialSpec, vae: VAE, data: Data) -> dict[str, Tensor]:
    """Return the pictures of a model of one lane by key, each as the bytes of a PNG file, uint8 (n,).

    They are validation images in rows above their reconstructions, decoded draws from the prior, the same for all trials of equal
    Z, and the posterior means of validation images, on the two latents where these vary most.
    """
    split, shape = data.validation, data.image_shape
    shown = examples(split, 2)
    originals = split.levels[shown].cpu().float().div(255).view(-1, *shape).numpy()
    pairs = np.stack([originals, decode(vae, _means(vae, split.levels[shown]), shape)], 1)
    columns = -(-len(shown) // 2)
    halves = [pairs[i : i + columns] for i in range(0, len(shown), columns)]
    rows = np.concatenate([np.concatenate([half[:, k] for k in (0, 1)]) for half in halves if len(half) == columns])
    z = torch.randn(64, spec.latent, generator=torch.Generator().manual_seed(0))
    pictures = (_enlarged(tile(rows, columns)), _enlarged(tile(decode(vae, z, shape), 8)), _codes(vae, split))
    return {key: _png(picture) for key, picture in zip(KEYS, pictures, strict=True)}


def write_snapshots(pictures: Mapping[int, Mapping[str, Tensor]], trial: str, files: Path) -> None:
    """Write the pictures of a trial, by epoch and key, beside its other files, named as MLflow's image charts find them.

    A chart wants each picture twice, the second one compressed; these are small enough to be both. In place of a random number the
    names have a digest of the trial's id, so that what is written again after a kill replaces what is there.
    """
    folder = files / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    name = sha256(trial.encode()).hexdigest()[:32]
    for epoch, by_key in pictures.items():
        for key, content in by_key.items():
            for compressed in ("", "+compressed"):
                file = folder / f"{key}+step+{epoch}+timestamp+{epoch}+{name}{compressed}.png"
                file.write_bytes(content.numpy().tobytes())


def _means(vae: VAE, levels: Tensor) -> Tensor:
    """Return the posterior means (N, Z) of images given as levels (N, P)."""
    mean: Tensor = vae.encoder(vae.likelihood.observe(levels.float(), 0.5)[None])[0][0]
    return mean.float()


def _codes(vae: VAE, split: Split) -> np.ndarray:
    """Return a picture of the posterior means of a split's images, (SIDE, SIDE, 3): a dot each, coloured by class, on grey axes."""
    classes = CLASSES if split.labels is None else int(split.labels.max()) + 1
    points = examples(split, PER_CLASS, classes)
    means = _means(vae, split.levels[points])
    i, j = (means.var(0).topk(min(2, means.shape[1])).indices.sort().values.tolist() * 2)[:2]
    z = np.nan_to_num(means[:, [i, j]].cpu().numpy())
    canvas = np.ones((SIDE, SIDE, 3), dtype=np.float32)
    canvas[SIDE // 2], canvas[:, SIDE // 2] = 0.8, 0.8
    across, down = np.clip(((z * (1, -1) / REACH + 1) / 2 * SIDE).astype(int), 1, SIDE - 2).T
    colours = np.array(mpl.colormaps["tab10"].colors)[split.classes.cpu()[points].numpy() % CLASSES]  # type: ignore[attr-defined]
    for dy, dx in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
        canvas[down + dy, across + dx] = colours
    return canvas


def _enlarged(picture: np.ndarray) -> np.ndarray:
    """Return a picture, (H, W) or (H, W, 3), with each pixel as a square of pixels, which no browser smooths."""
    return picture.repeat(ENLARGED, 0).repeat(ENLARGED, 1)


def _png(picture: np.ndarray) -> Tensor:
    """Return the bytes of a picture on [0, 1] as a PNG file."""
    file = BytesIO()
    imsave(file, picture, cmap="gray", vmin=0, vmax=1, format="png", pil_kwargs={"compress_level": 1})
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
