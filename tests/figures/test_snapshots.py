"""The pictures of training: at few epochs, of validation images, the same each time, and named as MLflow looks for them."""

from pathlib import Path

import pytest
import torch

from harness.data import Data, load_dataset
from harness.figures.schedule import KEYS, MOST, epochs_pictured
from harness.figures.snapshots import snapshot, write_snapshots
from harness.models.vae import VAE, build
from harness.spec import TrialSpec


@pytest.fixture(scope="module")
def data() -> Data:
    return load_dataset("digits", lambda _: None, {})


def model(data: Data, latent: int) -> tuple[TrialSpec, VAE]:
    spec = TrialSpec(dataset="digits", latent=latent)
    vae = build(spec, data.image_shape)
    vae.reset(0, torch.Generator().manual_seed(0))
    return spec, vae


@pytest.mark.parametrize("epochs", [1, 2, 6, 50, 1000])
def test_the_first_and_the_last_epoch_are_pictured_and_few_between(epochs: int) -> None:
    found = epochs_pictured(epochs)
    assert (found[0], found[-1]) == (1, epochs)
    assert found == sorted(set(found))
    assert len(found) <= MOST


@pytest.mark.parametrize("latent", [1, 2, 5])
def test_pictures_are_those_of_the_model_and_take_no_draw_from_training(data: Data, latent: int) -> None:
    spec, vae = model(data, latent)
    state, weights = torch.get_rng_state(), {k: v.clone() for k, v in vae.state_dict().items()}
    first = snapshot(spec, vae, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, weights[k]) for k, v in vae.state_dict().items())
    again = snapshot(spec, vae, data)
    assert tuple(first) == KEYS
    for key, content in first.items():
        assert content[:8].numpy().tobytes() == b"\x89PNG\r\n\x1a\n"
        assert torch.equal(content, again[key])
    vae.reset(0, torch.Generator().manual_seed(1))
    other = snapshot(spec, vae, data)
    assert not any(torch.equal(other[key], first[key]) for key in KEYS)


def test_pictures_of_training_show_no_test_image(data: Data) -> None:
    spec, vae = model(data, 2)
    before = snapshot(spec, vae, data)
    levels = data.test.levels.clone()
    try:
        data.test.levels.zero_()
        after = snapshot(spec, vae, data)
    finally:
        data.test.levels.copy_(levels)
    assert all(torch.equal(before[key], after[key]) for key in KEYS)


def test_files_have_the_names_by_which_mlflow_finds_images_and_replace_each_other(data: Data, tmp_path: Path) -> None:
    spec, vae = model(data, 2)
    pictures = {epoch: snapshot(spec, vae, data) for epoch in (1, 6)}
    for _ in range(2):
        write_snapshots(pictures, spec.id, tmp_path)
    files = sorted(p.name for p in (tmp_path / "images").iterdir())
    assert len(files) == 2 * len(KEYS) * 2
    for name in files:
        key, step, epoch, timestamp, _, random, *compressed = name.removesuffix(".png").split("+")
        assert (step, timestamp, compressed) in (("step", "timestamp", []), ("step", "timestamp", ["compressed"]))
        assert key in KEYS
        assert int(epoch) in pictures
        assert len(random) == 32
