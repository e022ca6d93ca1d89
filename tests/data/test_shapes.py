"""Drawn figures: the same everywhere, no two alike, and with the factors that are said."""

import hashlib
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from harness import catalog
from harness.data import Data
from harness.data import shapes as module
from harness.data.shapes import COLOUR_FACTORS, COSINES, FACTORS, FIGURE_COLOURS, GROUND_COLOURS, STEP, factors

ARGUMENTS = catalog.DATASETS["shapes"].arguments
SETTINGS = list(product(ARGUMENTS["channels"].choices, ARGUMENTS["size"].choices))
PARTS = ("train", "validation", "test")


def shapes(channels: int = 1, size: int = 64) -> Data:
    return Data.of(module.shapes(print, channels=channels, size=size))


def images(data: Data) -> Tensor:
    """All images, (N, C, H, W), in the order of the splits."""
    return torch.cat([data.train.levels, data.validation.levels, data.test.levels]).unflatten(1, data.image_shape)


def whole(channels: int) -> dict[str, Tensor]:
    """All factors in that order."""
    by_part = [factors(part, channels) for part in PARTS]
    return {name: torch.cat([of[name] for of in by_part]) for name in by_part[0]}


# Of all levels: on another machine, or by another version of numpy, they must be the same.
DRAWN = {
    (1, 32): "bfa154ef9b8183bf",
    (1, 64): "85638b107709122d",
    (3, 32): "069350888d43876d",
    (3, 64): "a868e00c9cc403ae",
}


@pytest.mark.parametrize(("channels", "size"), SETTINGS)
def test_they_are_the_same_everywhere_and_no_two_are_alike(channels: int, size: int) -> None:
    data = shapes(channels=channels, size=size)
    drawn = images(data).numpy()
    assert drawn.shape == (6144, channels, size, size)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [4944, 600, 600]
    assert len({image.tobytes() for image in drawn}) == len(drawn)
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == DRAWN[channels, size]
    assert shapes(channels=channels, size=size).train.levels.data_ptr() == data.train.levels.data_ptr()  # drawn once


def test_the_settings_have_digests_of_their_own() -> None:
    assert len({shapes(channels=c, size=s).digest for c, s in SETTINGS}) == len(SETTINGS)


def test_each_combination_of_factors_is_drawn_once() -> None:
    values = whole(1)
    assert list(values) == list(FACTORS)
    combinations = set(zip(*(column.tolist() for column in values.values()), strict=True))
    assert combinations == set(product(*map(range, FACTORS.values())))


@pytest.mark.parametrize("channels", [1, 3])
def test_labels_are_shapes(channels: int) -> None:
    data = shapes(channels=channels, size=32)
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.classes, factors(split.name, channels)["shape"])
        assert split.classes.bincount().min() > 150


def test_a_figure_is_where_the_factors_say() -> None:
    alpha, values = images(shapes())[:, 0].double(), whole(1)
    for axis, name in ((1, "x"), (0, "y")):
        profile = alpha.sum(dim=2 - axis)
        centre = (profile * torch.arange(64)).sum(dim=1) / profile.sum(dim=1)
        for figure in range(3):
            place = (centre - STEP * values[name])[values["shape"] == figure]
            assert (place - 17.5).abs().max() < (0.1 if figure == 2 else 0.01)  # the first centre is between pixels 17 and 18


def test_a_figure_covers_what_its_scale_says() -> None:
    covered, values = images(shapes()).double().sum(dim=(1, 2, 3)) / 255, whole(1)
    side = torch.tensor([12, 16, 20, 24], dtype=torch.float64)[values["scale"]]
    square, ellipse, heart = (values["shape"] == figure for figure in range(3))
    assert torch.allclose(covered[square], side[square] ** 2, rtol=0.02)
    assert torch.allclose(covered[ellipse], torch.pi * 1.4 * 0.7 * side[ellipse] ** 2 / 4, rtol=0.02)
    assert (covered[heart] / side[heart] ** 2).std() < 0.01


def test_a_figure_is_turned_as_its_angle_says() -> None:
    alpha, values = images(shapes())[:, 0].double(), whole(1)
    ellipses = (values["shape"] == 1) & (values["scale"] == 3)
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    for image, angle in zip(alpha[ellipses], values["angle"][ellipses].tolist(), strict=True):
        weight = image / image.sum()
        right, up = columns - (weight * columns).sum(), (weight * rows).sum() - rows
        spread = [(weight * product).sum() for product in (right**2 - up**2, 2 * right * up)]
        assert np.degrees(np.arctan2(float(spread[1]), float(spread[0])) / 2) == pytest.approx(11.25 * angle, abs=1.0)


def test_the_table_of_cosines() -> None:
    assert list(COSINES) == np.rint(16384 * np.cos(np.radians(11.25 * np.arange(9)))).astype(int).tolist()


def test_hearts_stand_upright() -> None:
    alpha, values = images(shapes()), whole(1)
    hearts = alpha[(values["shape"] == 2) & (values["angle"] == 0) & (values["x"] == 3)][:, 0, :, 12:48]
    assert torch.equal(hearts, hearts.flip(2))
    width = hearts.long().sum(dim=2)
    first, last = width.gt(0).long().argmax(dim=1), 63 - width.flip(1).gt(0).long().argmax(dim=1)
    widest = width.argmax(dim=1)
    assert (widest - first < last - widest).all()


def test_colours_are_those_of_the_factors() -> None:
    drawn, values = images(shapes(channels=3)), whole(3)
    assert list(values) == [*FACTORS, *COLOUR_FACTORS]
    for name, count in COLOUR_FACTORS.items():
        assert values[name].bincount().tolist() == [6144 // count] * count
    assert torch.equal(drawn[:, :, 0, 0], torch.tensor(GROUND_COLOURS, dtype=torch.uint8)[values["ground"]])
    alpha = images(shapes())
    inside = alpha[:, 0].flatten(1).argmax(dim=1)
    assert alpha.flatten(1).max(dim=1).values.eq(255).all()
    middle = drawn.flatten(2)[torch.arange(len(drawn)), :, inside]
    assert torch.equal(middle, torch.tensor(FIGURE_COLOURS, dtype=torch.uint8)[values["figure"]])
    for one, other in (("figure", "ground"), ("figure", "shape"), ("ground", "scale")):
        table = torch.zeros(8, 8).index_put((values[one], values[other]), torch.ones(()), accumulate=True)
        cells = table[table > 0]
        assert cells.max() / cells.min() < 1.3  # independent, as far as a fixed draw can be
