"""Images of the user's own: which forms are taken, what is said of them, and which are refused, with what came."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import noise

from harness.data import Data, load_dataset
from harness.data.levels import as_levels
from harness.data.own import from_given
from harness.errors import UserError

N = 200  # images, of which each split gets more than the fewest


def taken(images: Any, **others: Any) -> tuple[Data, list[str]]:
    """Return the data set of these arrays, and what was said of them."""
    said: list[str] = []
    return Data.of(from_given("mine", {"images": images, **others}, said.append)), said


def whole(data: Data) -> torch.Tensor:
    """Return the images of all splits, (N, P)."""
    return torch.cat([data.train.levels, data.validation.levels, data.test.levels])


def changed(images: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    """Return a copy with one value changed."""
    other = images.copy()
    other[index] = value
    return other


FLOATS = noise(N, 6, 5).astype(np.float32) / 255
INTEGERS = noise(N, 6, 5).astype(np.int64)
# What came, and how it is refused: with type, shape, range and the first value that is beyond it.
REFUSED = {
    "mean 0, sd 1": (
        changed(np.abs(FLOATS), (3, 2, 1), -0.25) * 2,
        r"float32 \(200, 6, 5\), values -0.5 to 2, the first beyond 0\.\.1: images\[.*\] = 1\.\d+\nif they were standardised",
    ),
    "levels as floats": (changed(FLOATS, (3, 2, 1), 17), r"values 0 to 17, the first beyond 0..1: images\[3, 2, 1\] = 17\n.*round"),
    "16 bits": (
        changed(INTEGERS.astype(np.uint16), (150, 5, 4), 4096),
        r"uint16 \(200, 6, 5\), values 0 to 4096, the first beyond 0..255: images\[150, 5, 4\] = 4096\n16 bits",
    ),
    "levels as integers": (INTEGERS, r"int64 \(200, 6, 5\), values 0 to 255\nthey are levels: images.astype\('uint8'\)"),
    "negative": (changed(INTEGERS, (7, 0, 1), -1), r"values -1 to 255, the first beyond 0..255: images\[7, 0, 1\] = -1$"),
    "from -1 to 1": (
        changed(FLOATS, (3, 2, 1), -1),
        r"values -1 to 1, the first beyond 0..1: images\[3, 2, 1\] = -1\n.*\(images \+ 1\) / 2",
    ),
    "not a number": (changed(FLOATS, (9, 1, 2), np.nan), r"values nan to nan, the first beyond 0..1: images\[9, 1, 2\] = nan$"),
    "infinite": (changed(FLOATS, (9, 1, 2), np.inf), r"values 0 to inf, the first beyond 0..1: images\[9, 1, 2\] = inf$"),
    "divided twice": (FLOATS / 255, r"values 0 to 0.00392\d+: divided by 255 twice\?"),
    "masks": (FLOATS > 0.5, r"got bool \(200, 6, 5\)\nof masks: 255 \* images.astype"),
    "masks as levels": ((FLOATS > 0.5).astype(np.uint8), r"whose highest is 1\nof masks: 255 \* images"),
    "complex": (FLOATS.astype(complex), r"must be uint8 levels or floats in \[0, 1\], got complex128"),
    "several shapes": (np.array([noise(3, 3), noise(4, 4)] * N, dtype=object), r"one array of numbers, got \(400,\) objects"),
    "none": (noise(0, 6, 5), r"at least one of them, got uint8 \(0, 6, 5\)"),
    "flat": (noise(N, 30), r"\(N, H, W, C\) with at least one of them, got uint8 \(200, 30\)"),
    "alpha": (noise(N, 6, 5, 4), r"1 channel or 3, got uint8 \(200, 6, 5, 4\)\nleave out the alpha channel: images\[..., :3\]"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_levels_is_refused_with_what_came(what: str) -> None:
    images, message = REFUSED[what]
    with pytest.raises(UserError) as fault:
        taken(images)
    assert re.match("mine: images must (be|have) ", str(fault.value))
    assert re.search(message, str(fault.value)), fault.value
    assert len(str(fault.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": [noise(3, 3), noise(4, 4)]}, r"mine: images must be one array of numbers, got list: .*inhomogeneous"),
        ({"images": torch.rand(N, 6, 5, requires_grad=True)}, r"mine: images must be .*, got Tensor: .*detach\(\)"),
        ({"images": torch.rand(N, 6, 5).bfloat16()}, r"mine: images must be .*, got Tensor: .*BFloat16"),
        ({"images": FLOATS, "labels": [[0], [0, 1]]}, r"mine: labels must be one array of numbers, got list: "),
        ({"images": FLOATS, "train": [[0], [0, 1]]}, r"mine: train must be one array of numbers, got list: "),
    ],
)
def test_what_is_no_array_is_refused_as_numpy_says_it(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as fault:
        from_given("mine", given, lambda _: None)
    assert "\n" not in str(fault.value)


def test_grey_and_colour_images_of_any_shape_are_channel_by_channel() -> None:
    grey, colour = noise(N, 28, 20), noise(N, 3, 6, 5)
    assert taken(grey)[0].image_shape == taken(grey[:, None])[0].image_shape == (1, 28, 20)
    data, said = taken(colour)
    assert (data.image_shape, said) == ((3, 6, 5), [])
    levels = {image.tobytes() for image in whole(data).numpy()}
    assert levels == {image.tobytes() for image in colour}


def test_channels_that_are_last_are_moved_and_said_unless_they_may_be_first() -> None:
    colour = noise(N, 3, 6, 5)
    said: list[str] = []
    assert np.array_equal(as_levels("mine", colour.transpose(0, 2, 3, 1), said.append), colour)
    assert said == ["mine: images (200, 6, 5, 3) are taken as (N, H, W, C): channels last"]
    either = noise(N, 3, 5, 3)
    assert np.array_equal(as_levels("mine", either, said.append), either)
    assert said[1:] == ["mine: images (200, 3, 5, 3) are taken as (N, C, H, W): channels first"]
    assert np.array_equal(as_levels("mine", colour, pytest.fail), colour)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_256_levels_which_is_said(kind: type) -> None:
    levels = noise(N, 6, 5)
    given = (levels / 255).astype(kind)
    said: list[str] = []
    assert np.array_equal(as_levels("mine", given, said.append)[:, 0], levels)
    assert len(said) == 1
    assert re.search(r"float\d\d in \[0, 1\]: rounded to the nearest of 256 levels", said[0])
    between = np.full((1, 1, 2), 0.5)
    between[0, 0] = (0.4 / 255, 254.6 / 255)
    assert as_levels("mine", between, lambda _: None).ravel().tolist() == [0, 255]


def test_equal_images_go_to_one_split_and_are_counted() -> None:
    images = noise(N, 6, 5)
    images[100:157] = images[43:100]  # 57 pairs, of which splits by index would part many
    data, said = taken(images)
    content = [set(map(bytes, split.levels.numpy())) for split in (data.train, data.validation, data.test)]
    assert sum(map(len, content)) == len(set.union(*content)) == N - 57
    assert len(whole(data)) == N
    assert said == [
        "mine: 57 of 200 images equal an earlier one, the first: images[100] = images[43]; equal images are in one split"
    ]


def test_labels_follow_their_images_and_may_be_missing() -> None:
    images = noise(N, 6, 5)
    labels = images[:, 0, 0].astype(np.uint8)
    for split in (taken(images, labels=labels)[0].train, taken(images, labels=labels)[0].test):
        assert split.labels is not None
        assert split.labels.tolist() == split.levels[:, 0].tolist()
    assert taken(images)[0].train.labels is None


def test_given_splits_are_kept_and_images_in_none_are_said() -> None:
    images = noise(N, 6, 5)
    data, said = taken(images, train=range(100, 150), validation=range(20), test=range(30, 50))
    assert torch.equal(data.train.levels, torch.from_numpy(images[100:150]).flatten(1))
    assert torch.equal(data.test.levels, torch.from_numpy(images[30:50]).flatten(1))
    assert said == ["mine: 110 of 200 images are in no split"]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"labels": np.arange(199)}, r"one per image, \(200,\); got int64 \(199,\)"),
        ({"labels": np.arange(N) / 2}, r"whole numbers, one per image, \(200,\); got float64"),
        ({"labels": np.array(["cat"] * N)}, r"got <U3 \(200,\)\nof names: np.unique"),
        ({"labels": np.arange(N) - 3}, r"from 0 to 2\*\*63 - 1, got labels\[0\] = -3"),
        ({"labels": np.arange(N, dtype=np.uint64) + 2**63 - 7}, r"from 0 to 2\*\*63 - 1, got labels\[7\] = 9223372036854775808"),
        ({"train": range(50)}, "names the splits train: give all of train, validation, test, or none"),
        ({"train": range(50), "validation": range(50, 90), "test": range(191, 201)}, "test has indices 191 to 200, there are 200"),
        (
            {"train": range(50), "validation": range(50, 59), "test": range(90, 120)},
            "the validation split has 9 images, at least 10",
        ),
        ({"train": [*range(50), 7], "validation": range(50, 90), "test": range(90, 120)}, "each index once, got 7 2 times"),
        (
            {"train": np.ones(N, bool), "validation": range(9), "test": range(9)},
            r"got bool \(200,\)\nof a mask: np.flatnonzero\(train\)",
        ),
        ({"pictures": 1}, "got a mapping of images, pictures"),
    ],
)
def test_labels_and_splits_that_do_not_fit_are_refused(others: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        taken(noise(N, 6, 5), **others)


def test_few_images_are_refused_with_the_number_needed() -> None:
    with pytest.raises(UserError, match=r"the validation split has \d images, at least 10 are needed; of 40 images a tenth"):
        taken(noise(40, 6, 5))


def test_the_digest_holds_images_labels_splits_and_shape() -> None:
    images = noise(N, 6, 5)
    parts = {"train": range(100), "validation": range(100, 150), "test": range(150, 200)}
    digests = [
        taken(images)[0].digest,
        taken(images, labels=np.zeros(N, int))[0].digest,
        taken(images, **parts)[0].digest,
        taken(images.reshape(N, 5, 6))[0].digest,
        taken(changed(images, (0, 0, 0), int(images[0, 0, 0]) ^ 1))[0].digest,
    ]
    assert len(set(digests)) == len(digests)
    assert taken(images)[0].digest == digests[0]


def test_a_function_takes_its_arguments_by_name(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "import numpy as np\n"
        "def faces(side=4, seed=0):\n"
        "    return np.random.default_rng(seed).integers(0, 256, (200, side, side + 1)).astype('uint8')\n"
    )
    name = f"{tmp_path}/data.py:faces"
    assert load_dataset(name, pytest.fail).image_shape == (1, 4, 5)
    assert load_dataset(name, pytest.fail, {"side": 7}).image_shape == (1, 7, 8)
    with pytest.raises(UserError, match=r"does not take dataset_args={'sid': 7}: .*'sid'\nit takes: side, seed"):
        load_dataset(name, pytest.fail, {"sid": 7})


def test_a_function_that_fails_is_told_in_words_even_if_its_error_has_none(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\n"
        "def odd():\n    raise Odd\n"
        "def slip():\n    import math\n    return math.sqtr(2)\n"
    )
    with pytest.raises(UserError, match=r"data\.py:odd.*: Odd: it has no words"):
        load_dataset(f"{tmp_path}/data.py:odd", pytest.fail)
    with pytest.raises(UserError, match=r"data\.py:slip.*: AttributeError: .*; did you mean 'sqrt'\?"):
        load_dataset(f"{tmp_path}/data.py:slip", pytest.fail)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a zip at all", "is no .npz file of plain arrays: it begins with b'not a ', one with b'PK'"),
        (b"", "is no .npz file of plain arrays"),
        (b"PK\x03\x04 cut off", "is no .npz file of plain arrays"),
    ],
)
def test_a_damaged_npz_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "faces.npz").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_dataset(f"npz:{tmp_path}/faces.npz", pytest.fail)


def test_a_packed_npz_with_damage_in_its_stream_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "faces.npz", images=noise(N, 6, 5) // 64)
    content = (tmp_path / "faces.npz").read_bytes()
    for bad in range(80, 240, 8):
        (tmp_path / "faces.npz").write_bytes(content[:bad] + b"\xff" * 8 + content[bad + 8 :])
        with pytest.raises(UserError, match=r"is no .npz file of plain arrays: [A-Za-z]+: "):
            load_dataset(f"npz:{tmp_path}/faces.npz", pytest.fail)


def test_an_npz_is_read_without_unpickling_and_by_its_names(tmp_path: Path) -> None:
    images = noise(N, 6, 5)
    np.savez(tmp_path / "faces.npz", images=images, labels=np.arange(N) % 3)
    data = load_dataset(f"npz:{tmp_path}/faces.npz", pytest.fail)
    assert (data.name, data.image_shape, len(whole(data))) == ("faces_npz", (1, 6, 5), N)
    assert data.digest == taken(images, labels=np.arange(N) % 3)[0].digest
    np.savez(tmp_path / "objects.npz", images=np.array([{}, []], dtype=object))
    with pytest.raises(UserError, match=r"objects.npz: is no .npz file of plain arrays: ValueError: Object arrays"):
        load_dataset(f"npz:{tmp_path}/objects.npz")
    np.savez(tmp_path / "named.npz", x=images)
    with pytest.raises(UserError, match=r"npz:named.npz must give images, .*; got a mapping of x"):
        load_dataset(f"npz:{tmp_path}/named.npz")
    np.save(tmp_path / "alone.npy", images)
    (tmp_path / "alone.npy").rename(tmp_path / "alone.npz")
    with pytest.raises(UserError, match=r"one array alone: np.savez\(path, images=images\)"):
        load_dataset(f"npz:{tmp_path}/alone.npz")
