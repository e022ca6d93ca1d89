"""No image is in two splits of a data set, byte for byte: of those that are built in, and at load of those that are not."""

import struct
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from harness import catalog, paths
from harness.data import Data, Split, load_dataset, mnist
from harness.data.digits import digits
from harness.data.disjoint import Shared, in_words, shared, without
from harness.data.download import FILES
from harness.errors import DataError, UserError


def pictures(*content: int) -> Tensor:
    """Return an image per number, (N, 784), which is equal to another one if their numbers are."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 784)).astype(np.uint8)
    return torch.from_numpy(noise[list(content)])


def parts(**content: tuple[int, ...]) -> list[Split]:
    return [Split(name, pictures(*numbers), torch.tensor(numbers)) for name, numbers in content.items()]


@pytest.mark.parametrize("name", catalog.DATASETS)
def test_no_image_is_in_two_splits(name: str) -> None:
    folder = catalog.DATASETS[name].fixed.get("folder")
    if folder not in (None, "MNIST") and not all((paths.data() / folder / "raw" / f).exists() for f in FILES):
        pytest.skip(f"{folder} is not in the data folder, and a test does not fetch 30 MB")
    data = load_dataset(name, say=lambda _: None)
    content = [set(map(bytes, split.levels.numpy())) for split in (data.train, data.validation, data.test)]
    assert all(content)
    for one, other in combinations(content, 2):
        assert one.isdisjoint(other)


def test_what_splits_share_is_found_and_told() -> None:
    splits = parts(train=(1, 2, 3, 4, 3), validation=(5, 3), test=(6, 2, 5))
    found = shared(splits)
    assert found == [
        Shared("train", "validation", (2, 4), 1),
        Shared("train", "test", (1,), 1),
        Shared("validation", "test", (0,), 2),
    ]
    assert in_words(found).splitlines()[:2] == [
        "2 images of the train split are in the validation split too, the first: train[2] = validation[1]",
        "1 image of the train split is in the test split too, the first: train[1] = test[1]",
    ]
    assert [without(split, found).labels.tolist() for split in splits] == [[1, 4], [3], [6, 2, 5]]  # type: ignore[union-attr]
    assert shared([without(split, found) for split in splits]) == []


def write_idx(raw: Path, train: Tensor, test: Tensor) -> None:
    """Write the four files of a data set as small as these images, whose labels count them."""
    raw.mkdir(parents=True)
    for name, images in zip((FILES[:2], FILES[2:]), (train, test), strict=True):
        head = struct.pack(">iiii", 2051, len(images), 28, 28)
        (raw / name[0]).write_bytes(head + images.numpy().tobytes())
        (raw / name[1]).write_bytes(struct.pack(">ii", 2049, len(images)) + bytes(range(len(images))))


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor, Tensor], tuple[Data, list[str]]]:
    """A function that loads these training and test images as KMNIST, and returns what was said too."""

    def load(train: Tensor, test: Tensor) -> tuple[Data, list[str]]:
        folder, said = tmp_path / str(len(list(tmp_path.iterdir()))), []
        write_idx(folder / "KMNIST" / "raw", train, test)
        monkeypatch.setenv("HARNESS_DATA", str(folder))
        return load_dataset("kmnist", say=said.append), said

    monkeypatch.setattr(mnist, "VALIDATION", 3)
    monkeypatch.setattr(mnist, "_checked_sums", lambda folder, raw: ("a", "b", "c", "d"))
    return load


def test_a_published_image_stays_in_the_test_split_alone(
    published: Callable[[Tensor, Tensor], tuple[Data, list[str]]],
) -> None:
    plain, said = published(pictures(0, 1, 2, 3, 4, 5, 6), pictures(7, 8))
    assert not said
    assert plain.digest == mnist._digest("a", "b", "c", "d", "train[:4] train[4:] test")
    data, said = published(pictures(0, 1, 2, 3, 1, 7, 6), pictures(7, 0))
    assert [split.labels.tolist() for split in (data.train, data.validation, data.test)] == [[2, 3], [4, 6], [0, 1]]
    assert len(said) == 1
    assert "kmnist: left out" in said[0]
    assert "1 image of the validation split is in the test split too, the first: validation[1] = test[0]" in said[0]
    assert data.digest != plain.digest
    assert torch.equal(data.test.levels, pictures(7, 0))


def test_built_in_splits_that_overlap_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = digits(print)
    leaky = Split("train", torch.cat([whole.train.levels, whole.test.levels[:5]]), None)
    monkeypatch.setattr(catalog, "find", lambda kind, name: lambda say: Data(**{**vars(whole), "train": leaky}))
    with pytest.raises(
        DataError, match=r"digits[^✓]*5 images of the train split are in the test split too.*train\[1197\] = test\[0\]"
    ):
        load_dataset("digits")


def test_a_set_of_ones_own_that_overlaps_is_refused_with_the_first_image(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def leaky():\n"
        "    images = np.random.default_rng(0).integers(0, 256, (60, 4, 4)).astype('uint8')\n"
        "    images[7] = images[50]  # equal by content, under two indices\n"
        "    return dict(images=images, train=range(30), validation=range(30, 45), test=range(45, 60))\n"
    )
    with pytest.raises(UserError) as fault:
        load_dataset(f"{tmp_path}/mine.py:leaky")
    first, second, third = str(fault.value).splitlines()
    assert first.endswith("leaky: splits must not overlap, but")
    assert second == "1 image of the test split is in the train split too, the first: test[5] = train[7]"
    assert "leave train, validation, test out" in third
