"""A trained VAE as a single model: its shapes, its inputs, its laws, and its files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import harness
from harness.api.inputs import split_of
from harness.data import load_dataset
from harness.errors import UserError
from harness.metrics import estimate_elbo, native, prior_samples
from harness.metrics.bounds import importance

TINY = harness.TrialSpec(
    dataset="digits", network="mlp", hidden=(16,), latent=2, epochs=2, batch_size=300, learning_rate=3e-3, evaluation="validation"
)


@pytest.fixture(scope="module")
def model() -> harness.Model:
    return harness.train(TINY, device="cpu", progress=False)


@pytest.fixture(scope="module")
def levels() -> torch.Tensor:
    return load_dataset("digits").test.levels[:40]


def test_shapes(model: harness.Model, levels: torch.Tensor) -> None:
    mean, log_var = model.encode(levels)
    assert mean.shape == log_var.shape == (40, 2)
    for images in (model.decode(mean), model.reconstruct(levels), model.sample(40)):
        assert images.shape == (40, 8, 8)
        assert images.dtype == torch.float32
        assert images.device.type == "cpu"
        assert not images.requires_grad
        assert 0 <= images.min() <= images.max() <= 1
    assert model.log_prob(levels, samples=3).shape == (40,)
    assert repr(model).startswith("Model(TrialSpec(dataset='digits', network='mlp', hidden=(16,), batch_size=300, epochs=2, eval")


def test_a_reconstruction_is_the_decoded_mean(model: harness.Model, levels: torch.Tensor) -> None:
    torch.testing.assert_close(model.reconstruct(levels), model.decode(model.encode(levels)[0]))


def test_samples_are_those_of_the_scores(model: harness.Model) -> None:
    torch.testing.assert_close(model.sample(9, seed=3).flatten(1), prior_samples(model.vae, 9, 2, seed=3))
    assert torch.equal(model.sample(9), model.sample(9, seed=0))
    assert not torch.equal(model.sample(9), model.sample(9, seed=1))


def test_one_image_is_treated_as_among_others(model: harness.Model, levels: torch.Tensor) -> None:
    torch.testing.assert_close(model.encode(levels[:1])[0], model.encode(levels)[0][:1])
    torch.testing.assert_close(model.log_prob(levels[:1], samples=1).shape, torch.Size([1]))


@pytest.mark.parametrize("samples", [1, 7, 100, 150, 101])
def test_the_bound_on_log_prob_grows_with_the_draws(model: harness.Model, levels: torch.Tensor, samples: int) -> None:
    view = native(model.vae, levels.float() / 255)
    elbo = estimate_elbo(model.vae, view, 200)
    bound = model.log_prob(levels, samples=samples)
    assert bound.dtype == torch.float64
    assert bound.mean().item() > elbo.elbo - 2.0
    assert torch.equal(bound, model.log_prob(levels, samples=samples))
    if samples > 1:
        assert bound.mean() > model.log_prob(levels, samples=1).mean()


def test_log_prob_is_the_bound_of_the_scores(model: harness.Model, levels: torch.Tensor) -> None:
    view = native(model.vae, levels.float() / 255)
    torch.testing.assert_close(model.log_prob(levels, samples=1_000), importance(model.vae, view, 1_000).bounds[1_000])


def test_all_forms_of_an_image_are_one(model: harness.Model, levels: torch.Tensor) -> None:
    array = levels.numpy()
    forms = [
        array,
        array.reshape(40, 8, 8),
        array.reshape(40, 1, 8, 8),
        array / 255,
        (array / 255).astype(np.float32),
        levels.float() / 255,
        levels.view(40, 1, 8, 8),
        np.asfortranarray(array.reshape(40, 8, 8)),
        np.flip(np.flip(array, 0).copy(), 0),
    ]
    for form in forms:
        assert torch.equal(split_of(form, (1, 8, 8)).levels, levels)


def test_floats_are_rounded_to_levels() -> None:
    assert split_of(np.full((1, 8, 8), 100.4 / 255), (1, 8, 8)).levels.unique().tolist() == [100]


BAD = np.zeros((3, 8, 8), dtype=np.float32)
BAD[2, 1, 3] = 17.0
NAN = torch.zeros(2, 64)
NAN[1, 5] = torch.nan


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (BAD, r"in \[0, 1\], got 17 at \[2, 11\] of float32 \(3, 64\) from 0 to 17\ndivide grey levels by 255"),
        (NAN, r"got nan at \[1, 5\]"),
        (-BAD, r"got -17 at \[2, 11\]"),
        (np.zeros((3, 8, 8), dtype=np.int64), r"got int64 \(3, 64\) from 0 to 0\nimages.astype\('uint8'\)"),
        (np.zeros((3, 8, 8), dtype=bool), "got bool"),
        (
            np.zeros((8, 8), dtype=np.uint8),
            r"\(N, 8, 8\) or \(N, 1, 8, 8\) or \(N, 64\) .*uint8 \(8, 8\).*\none image is images",
        ),
        (np.zeros((3, 28, 28), dtype=np.uint8), r"got uint8 \(3, 28, 28\)"),
        (np.zeros((3, 3, 8, 8), dtype=np.uint8), r"got uint8 \(3, 3, 8, 8\)"),
        (np.zeros((0, 8, 8), dtype=np.uint8), r"N of at least 1, got uint8 \(0, 8, 8\)"),
        (torch.tensor(3.0), r"got float32 \(\)"),
        ([[0] * 64], "must be a NumPy array or a tensor of numbers, got list"),
        (np.array(["a"]), "got an array of <U1"),
        (np.zeros((3, 8, 8), dtype=">f4"), "got an array of >f4"),
    ],
)
def test_other_images_are_refused(model: harness.Model, images: object, words: str) -> None:
    for method in (model.encode, model.reconstruct, model.log_prob):
        with pytest.raises(UserError, match=words):
            method(images)


def test_other_latents_and_numbers_are_refused(model: harness.Model) -> None:
    for z, words in [
        (torch.zeros(3, 4), r"z must be \(N, 2\) .* got float32 \(3, 4\)"),
        (torch.zeros(2), r"got float32 \(2,\)"),
        (np.zeros((3, 2), dtype=np.int64), r"floats, got int64 \(3, 2\) from 0 to 0"),
        (torch.tensor([[0.0, torch.inf]]), r"finite, got inf at \[0, 1\]"),
    ]:
        with pytest.raises(UserError, match=words):
            model.decode(z)
    with pytest.raises(UserError, match="n must be a whole number of at least 1, got 0"):
        model.sample(0)
    with pytest.raises(UserError, match=r"samples must be a whole number of at least 1, got 2\.5"):
        model.log_prob(np.zeros((1, 64), dtype=np.uint8), samples=2.5)  # type: ignore[arg-type]


def test_history_has_a_row_an_epoch(model: harness.Model) -> None:
    assert list(model.history.index) == [1, 2]
    assert model.history["elbo/train"].iloc[1] > model.history["elbo/train"].iloc[0]
    assert model.history["elbo/validation"].iloc[1] == model.scores["elbo/validation"]
    assert model.scores["model/parameters"] == sum(p.numel() for p in model.vae.parameters())


def test_a_saved_model_is_given_back_equal(model: harness.Model, levels: torch.Tensor, tmp_path: Path) -> None:
    model.save(tmp_path / "a" / "b")
    again = harness.load(tmp_path / "a" / "b")
    assert again.spec == model.spec
    assert again.scores == model.scores
    assert again.history.equals(model.history)
    assert list(again.history.index) == list(model.history.index)
    assert torch.equal(again.log_prob(levels), model.log_prob(levels))
    assert torch.equal(again.sample(3), model.sample(3))


def test_a_model_that_was_saved_when_all_images_were_square_is_given_back(model: harness.Model, tmp_path: Path) -> None:
    model.save(tmp_path)
    record = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert record.pop("image_shape") == [1, 8, 8]
    (tmp_path / "model.json").write_text(json.dumps(record | {"side": 8}), encoding="utf-8")
    assert harness.load(tmp_path).image_shape == (1, 8, 8)


def test_a_folder_without_a_model_is_refused(model: harness.Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither a folder with a spec\.json nor the id of a run"):
        harness.load(tmp_path)
    model.save(tmp_path)
    weights = (tmp_path / "state_dict.pt").read_bytes()
    (tmp_path / "state_dict.pt").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match=r"state_dict.pt does not hold the weights"):
        harness.load(tmp_path)
    (tmp_path / "state_dict.pt").write_bytes(weights)
    (tmp_path / "model.json").unlink()
    with pytest.raises(UserError, match=r"not all of it: FileNotFoundError.*model.json"):
        harness.load(tmp_path)
