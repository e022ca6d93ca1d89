"""Figures of images of any shape: colours stay colours, sizes are right, and images without labels have no classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from harness import figures, metrics
from harness.data import Data, Split
from harness.figures.axes import class_colours
from harness.models.vae import kl_per_dimension
from harness.report.ablation import pictures as pictures_of_arms
from harness.spec import TrialSpec
from harness.training.cohort import Cohort

SHAPE = (3, 6, 4)


def made_up(image_shape: tuple[int, int, int], classes: int = 0) -> Data:
    """Random images, 40 to train on, 30 to test, of so many classes; none for no labels."""
    g = torch.Generator().manual_seed(0)

    def split(name: str, n: int) -> Split:
        levels = torch.randint(256, (n, int(np.prod(image_shape))), generator=g, dtype=torch.uint8)
        return Split(name, levels, torch.arange(n) % classes if classes else None)

    train, validation, test = (split(name, n) for name, n in (("train", 40), ("validation", 20), ("test", 30)))
    return Data(name="made_up", image_shape=image_shape, train=train, validation=validation, test=test, digest="made up")


def subject(data: Data) -> figures.Subject:
    spec = TrialSpec(network="mlp", hidden=(8,), likelihood="mse", latent=2, epochs=1, batch_size=20, evaluation="full")
    cohort = Cohort([spec], data, torch.device("cpu"))
    history = [next(iter(cohort.run_epoch().values()))]
    vae = cohort.trained(spec)
    codes = metrics.encodings(vae, metrics.model_inputs(spec, data.test))
    kl = kl_per_dimension(codes.mean, codes.log_var).mean(0)
    evaluation = metrics.Evaluation({}, codes, kl, dead_by_layer={"encoder_1": 0.5}, ladder={1: -33.0, 10: -31.5})
    return figures.Subject(spec, vae, data, evaluation, history)


def pictures(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for ax in figure.axes for image in ax.get_images()]


@pytest.mark.parametrize(("image_shape", "classes"), [(SHAPE, 0), ((1, 4, 7), 12), ((2, 5, 5), 0)])
def test_figures_of_images_draw_of_any_images(image_shape: tuple[int, int, int], classes: int, tmp_path: Path) -> None:
    of_images = (*figures.IN_QUICK, "posteriors") if image_shape == SHAPE else ("reconstructions", "latents", "manifold")
    drawn = list(figures.draw(subject(made_up(image_shape, classes)), tmp_path, of_images))
    assert {p.stem for p in drawn} == set(of_images)


def test_a_sheet_keeps_every_colour_in_its_place() -> None:
    images = np.arange(3 * np.prod(SHAPE), dtype=np.float32).reshape(3, *SHAPE)
    sheet = figures.tile(images, 2)
    assert sheet.shape == (6 + 1 + 6, 4 + 1 + 4, 3)
    np.testing.assert_array_equal(sheet[:6, :4].transpose(2, 0, 1), images[0])
    np.testing.assert_array_equal(sheet[:6, 5:].transpose(2, 0, 1), images[1])
    np.testing.assert_array_equal(sheet[7:, :4].transpose(2, 0, 1), images[2])
    assert (sheet[7:, 4:] == 1).all()
    assert (sheet[6] == 1).all()


def test_a_sheet_of_other_channels_is_their_mean_in_grey() -> None:
    assert figures.tile(np.stack([np.zeros((1, 2, 3)), np.ones((1, 2, 3))], 1), 1).tolist() == [[0.5] * 3] * 2
    assert figures.tile(np.full((1, 1, 2, 3), 0.25), 1).shape == (2, 3)


def test_reconstructions_show_the_originals_in_colour() -> None:
    s = subject(made_up(SHAPE))
    originals, _ = pictures(figures.FIGURES["reconstructions"](s))
    assert originals.shape == (6, 20 * 5 - 1, 3)  # twenty images without labels, gaps between them
    np.testing.assert_allclose(originals[:, :4].transpose(2, 0, 1), s.data.test.levels[0].view(SHAPE) / 255, atol=1e-6)


def test_images_without_labels_are_the_first_ones_and_have_no_bar_of_classes() -> None:
    unlabelled, labelled = made_up(SHAPE).test, made_up(SHAPE, classes=12).test
    assert figures.examples(unlabelled) == list(range(10))
    assert figures.examples(labelled, 2) == [i + k for i in range(10) for k in (0, 12)]
    assert figures.examples(made_up(SHAPE, classes=3).test) == [i + k for i in range(3) for k in (0, 3, 6)]
    assert figures.scatter_points(unlabelled).tolist() == list(range(30))
    assert sorted(figures.scatter_points(labelled).tolist()) == list(range(30))
    axes = {classes: len(figures.FIGURES["latents"](subject(made_up(SHAPE, classes))).axes) for classes in (0, 12)}
    assert axes == {0: 1, 12: 2}


@pytest.mark.parametrize(
    ("arrays", "shape"),
    [
        ({"original": (2, *SHAPE), "reconstruction": (2, *SHAPE), "samples": (16, *SHAPE)}, (13, 9, 3)),
        ({"original": (2, 16), "reconstruction": (2, 16), "samples": (16, 4, 4)}, (9, 9)),  # of an earlier version
    ],
)
def test_the_gallery_of_a_study(arrays: dict[str, tuple[int, ...]], shape: tuple[int, ...], tmp_path: Path) -> None:
    levels = {name: np.full(size, 255, np.uint8) for name, size in arrays.items()}
    np.savez(tmp_path / "pictures.npz", latents=np.zeros((5, 2), np.float32), **levels)
    pictures_of_arms.draw({"arm": tmp_path / "pictures.npz"}, tmp_path, tmp_path / "gallery.png")
    drawn = imread(tmp_path / "00-images.png")
    assert drawn.shape == (*shape[:2], 4)
    assert (drawn == 1).all()
    assert {file.suffix for file in tmp_path.glob("gallery.*") if file.stat().st_size > 1_000} == {".png", ".svg", ".pdf"}


def test_latents_lie_where_their_axes_say_in_the_colours_of_their_classes(tmp_path: Path) -> None:
    latents = np.array([[-4, 0], [4, 0], [0, 2], [np.nan, 0]], np.float32)
    images = dict.fromkeys(("original", "reconstruction", "samples"), np.zeros((2, 1, 2, 2), np.uint8))
    np.savez(tmp_path / "pictures.npz", latents=latents, labels=np.array([0, 1, 1, 0]), **images)
    colours = class_colours(2)
    cloud = pictures_of_arms.Cloud.of(pictures_of_arms.Kept.of(tmp_path / "pictures.npz"), colours)
    height, width, _ = cloud.pixels.shape
    left, right, bottom, top = cloud.extent
    assert (right - left) / width == pytest.approx((top - bottom) / height)
    assert right - left == pytest.approx(1.1 * 8)
    for (x, y), label in zip(latents[:3], (0, 1, 1), strict=True):
        pixel = cloud.pixels[int((top - y) / (top - bottom) * height), int((x - left) / (right - left) * width)]
        np.testing.assert_allclose(pixel / 255, colours(label), atol=0.01)
    assert (cloud.pixels[..., 3] > 0).mean() < 0.01


def test_an_arm_without_finite_latents_is_drawn_without_dots(tmp_path: Path) -> None:
    images = np.zeros((2, 1, 2, 2), np.float32)
    kept = pictures_of_arms.Kept(images[0, 0], images[0, 0], np.full((3, 2), np.nan), np.arange(3))
    cloud = pictures_of_arms.Cloud.of(kept, class_colours(3))
    assert np.isfinite(cloud.extent).all()
    assert not cloud.pixels[..., 3].any()
