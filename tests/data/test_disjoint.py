"""No image is in two splits of a data set, byte for byte: of those that are built in, and at load of those that are not."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_sets import digests, idx_files, write
from torch import Tensor

from harness import catalog
from harness.data import Data, Part, Parts, load_dataset, published
from harness.data.digits import digits
from harness.data.disjoint import Shared, in_words, shared, without
from harness.errors import DataError, UserError


def pictures(*content: int) -> Tensor:
    """Return an image per number, (N, 784), which is equal to another one if their numbers are."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 784)).astype(np.uint8)
    return torch.from_numpy(noise[list(content)])


def parts(**content: tuple[int, ...]) -> list[Part]:
    return [Part(name, pictures(*numbers).numpy(), np.array(numbers)) for name, numbers in content.items()]


@pytest.mark.parametrize("name", catalog.DATASETS)
def test_no_image_is_in_two_splits(name: str) -> None:
    folder = catalog.DATASETS[name].fixed.get("folder")
    if folder not in (None, "MNIST") and not all((published.folder_of(folder) / f).exists() for f in published.DIGESTS[folder]):
        pytest.skip(f"{folder} is not in the data folder, and a test does not fetch 20 MB and more")
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


@pytest.fixture
def as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor, Tensor], tuple[Data, list[str]]]:
    """A function that loads these training and test images as if they were Fashion-MNIST, and returns what was said too."""

    def load(train: Tensor, test: Tensor) -> tuple[Data, list[str]]:
        folder, said = tmp_path / str(len(list(tmp_path.iterdir()))), []
        monkeypatch.setenv("HARNESS_DATA", str(folder))
        files = idx_files(train, test)
        monkeypatch.setitem(published.DIGESTS, "FashionMNIST", digests(files))
        write(published.folder_of("FashionMNIST"), files)
        return load_dataset("fashion_mnist", say=said.append), said

    monkeypatch.setitem(catalog.DATASETS, "fashion_mnist", replace(catalog.DATASETS["fashion_mnist"], validation=3))
    return load


def test_a_published_image_stays_in_the_test_split_alone(
    as_published: Callable[[Tensor, Tensor], tuple[Data, list[str]]],
) -> None:
    plain, said = as_published(pictures(0, 1, 2, 3, 4, 5, 6), pictures(7, 8))
    assert not said
    lines = [*(digest.removeprefix("sha256:") for digest in published.DIGESTS["FashionMNIST"].values()), "train[:4] train[4:] test"]
    assert plain.digest == hashlib.sha256("\n".join(lines).encode()).hexdigest()
    data, said = as_published(pictures(0, 1, 2, 3, 1, 7, 6), pictures(7, 0))
    assert [split.labels.tolist() for split in (data.train, data.validation, data.test)] == [[2, 3], [4, 6], [0, 1]]
    assert len(said) == 1
    assert "fashion_mnist: left out" in said[0]
    assert "1 image of the validation split is in the test split too, the first: validation[1] = test[0]" in said[0]
    assert data.digest != plain.digest
    assert torch.equal(data.test.levels, pictures(7, 0))


def test_built_in_splits_that_overlap_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = digits(print)
    leaky = Part("train", np.concatenate([whole.train.levels, whole.test.levels[:5]]), None)
    monkeypatch.setattr(catalog, "find", lambda kind, name: lambda say: Parts(**{**vars(whole), "train": leaky}))
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
