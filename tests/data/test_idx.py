"""IDX files of the user's own: raw or packed, one pair or two, and how a damaged or unpaired one is refused."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import noise, write_idx

from harness.data import Data, load_dataset
from harness.errors import UserError

N = 150


def loaded(folder: Path) -> tuple[Data, list[str]]:
    said: list[str] = []
    return load_dataset(f"idx:{folder}", said.append), said


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_pair_is_split_by_content(packed: str, tmp_path: Path) -> None:
    images = noise(N, 6, 5)
    write_idx(tmp_path / f"images-idx3-ubyte{packed}", images)
    write_idx(tmp_path / f"labels-idx1-ubyte{packed}", images[:, 0, 0] % 7)
    data, said = loaded(tmp_path)
    assert (data.image_shape, said) == ((1, 6, 5), [])
    splits = (data.train, data.validation, data.test)
    assert sum(map(len, splits)) == N
    for split in splits:
        assert split.labels is not None
        assert (split.levels[:, 0] % 7).tolist() == split.labels.tolist()


@pytest.mark.parametrize("other", ["t10k", "test"])
def test_the_test_file_is_the_test_split_and_what_it_shares_is_left_out_of_training(other: str, tmp_path: Path) -> None:
    train, test = noise(N, 3, 4, 5), noise(40, 3, 4, 5, seed=1)
    train[[3, 50]] = test[[0, 9]]
    for name, images in {"train": train, other: test}.items():
        write_idx(tmp_path / f"letters-{name}-images-idx4-ubyte.gz", images)
        write_idx(tmp_path / f"letters-{name}-labels-idx1-ubyte.gz", images[:, 0, 0, 0])
    data, said = loaded(tmp_path)
    assert said == [
        f"idx:{tmp_path.name}: 2 training images are left out, for the test file has them too, the first: 3",
        f"idx:{tmp_path.name}: 2 of 190 images equal an earlier one, the first: images[150] = images[3]; "
        "equal images are in one split",
        f"idx:{tmp_path.name}: 2 of 190 images are in no split",
    ]
    assert data.image_shape == (3, 4, 5)
    assert np.array_equal(data.test.levels.numpy(), test.reshape(40, -1))
    assert len(data.train) + len(data.validation) == N - 2
    assert 0.02 * N < len(data.validation) < 0.2 * N
    assert data.validation.labels is not None
    assert data.validation.labels.tolist() == data.validation.levels[:, 0].tolist()


def test_without_a_file_of_labels_there_are_none_and_the_raw_file_goes_before_its_packed_one(tmp_path: Path) -> None:
    write_idx(tmp_path / "scans-idx3-ubyte", noise(N, 6, 5))
    write_idx(tmp_path / "scans-idx3-ubyte.gz", noise(N, 9, 9))
    data, _ = loaded(tmp_path)
    assert (data.image_shape, data.train.labels) == ((1, 6, 5), None)


def signed(folder: Path) -> None:
    write_idx(folder / "images-idx3-ubyte", noise(N, 6, 5), kind=9)


def cut_off(folder: Path) -> None:
    path = write_idx(folder / "images-idx3-ubyte", noise(N, 6, 5))
    path.write_bytes(path.read_bytes()[:-1])


def cut_in_header(folder: Path) -> None:
    path = write_idx(folder / "images-idx3-ubyte", noise(N, 6, 5))
    path.write_bytes(path.read_bytes()[:10])


def another_format(folder: Path) -> None:
    (folder / "images-idx3-ubyte").write_bytes(b"PK\x03\x04" * 9)


def not_packed(folder: Path) -> None:
    (folder / "images-idx3-ubyte.gz").write_bytes(b"PK\x03\x04" * 9)


def fewer_labels(folder: Path) -> None:
    write_idx(folder / "images-idx3-ubyte", noise(N, 6, 5))
    write_idx(folder / "labels-idx1-ubyte", noise(N - 1))


def half_labelled(folder: Path) -> None:
    write_idx(folder / "train-images-idx3-ubyte", noise(N, 6, 5))
    write_idx(folder / "train-labels-idx1-ubyte", noise(N))
    write_idx(folder / "t10k-images-idx3-ubyte", noise(N, 6, 5))


def other_shapes(folder: Path) -> None:
    write_idx(folder / "train-images-idx3-ubyte", noise(N, 6, 5))
    write_idx(folder / "t10k-images-idx3-ubyte", noise(N, 5, 6))


def two_of_a_kind(folder: Path) -> None:
    write_idx(folder / "a-images-idx3-ubyte", noise(N, 6, 5))
    write_idx(folder / "b-images-idx3-ubyte", noise(N, 6, 5))


def none_of_many(folder: Path) -> None:
    (folder / "images-idx3-ubyte").write_bytes(struct.pack(">BBBB3I", 0, 0, 8, 3, 0, 2**32 - 1, 2**32 - 1))


def too_many_dimensions(folder: Path) -> None:
    (folder / "images-idx3-ubyte").write_bytes(struct.pack(">BBBB255I", 0, 0, 8, 255, *[1] * 255) + b"\0")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (none_of_many, "its header says 3 lengths, which make no array: "),
        (too_many_dimensions, "its header says 255 lengths, which make no array: "),
        (signed, r"images-idx3-ubyte: values must be unsigned bytes \(type 08\), got type 09"),
        (cut_off, r"its header says \(150, 6, 5\), which takes 4,516 bytes; it has 4,515"),
        (cut_in_header, "is cut off within its header, after 10 bytes"),
        (another_format, "is no IDX file: it begins with 50 4b 03 04"),
        (not_packed, "images-idx3-ubyte.gz: cannot be read: Not a gzipped file"),
        (fewer_labels, "images-idx3-ubyte has 150 images, labels-idx1-ubyte has 149 labels"),
        (half_labelled, "each file of images has one of labels, or none has; got"),
        (other_shapes, "images must have one shape, got"),
        (two_of_a_kind, "one file of images is needed, or two, with train and with t10k or test in their names; got a-images"),
    ],
)
def test_damaged_and_unpaired_files_are_refused(write: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    write(folder)
    with pytest.raises(UserError, match=message):
        loaded(folder)
