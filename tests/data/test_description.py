"""What `harness data` says of a data set, and the sheet of its images."""

from pathlib import Path

import numpy as np
import pytest
from pictures import noise, write_pictures

from harness import cli
from harness.data import Data, in_words
from harness.data.description import describe
from harness.data.own import from_given
from harness.figures.contact_sheet import COLUMNS, ROWS, contact_sheet

PARTS = {"train": range(100), "validation": range(100, 150), "test": range(150, 200)}


def lines(images: np.ndarray, **others: object) -> list[str]:
    return in_words(Data.of(from_given("mine", {"images": images, **PARTS, **others}, lambda _: None)))


def test_levels_classes_equal_and_constant_images_are_counted() -> None:
    images = noise(200, 6, 5)
    images[7] = images[3]
    images[[20, 160]] = np.array([0, 255], np.uint8)[:, None, None]
    data = Data.of(from_given("mine", {"images": images, "labels": np.arange(200) % 3, **PARTS}, lambda _: None))
    found = describe(data)
    assert np.array_equal(found.counts, np.bincount(images.ravel(), minlength=256))
    assert found.classes == {0: 67, 1: 67, 2: 66}
    assert (found.equal, found.first_equal) == (1, "train[7]")
    assert (found.constant, found.first_constant) == (2, "train[20]")
    words = in_words(data)
    assert words[0] == "mine: train 100, validation 50, test 50 images, grey, 6 x 5 (height x width)"
    assert words[1].endswith(f"mean {images.mean():.1f}, median {int(np.median(images))}")
    assert words[2:5] == [
        "classes: 3 (0: 67, 1: 67, 2: 66)",
        "equal images: 1 like an earlier one of their split, the first train[7]",
        "constant images: 2 of one level throughout, the first train[20]",
    ]


def test_binary_colour_and_unlabelled_images_are_called_so() -> None:
    masks = np.where(noise(200, 3, 6, 5) < 64, np.uint8(255), np.uint8(0))
    share = (masks == 255).mean()
    said = lines(masks)
    assert "colour, 6 x 5" in said[0]
    assert said[1] == f"levels: binary, 0 or 255; {share:.1%} are 255"
    assert said[2:5] == ["classes: no labels", "equal images: none", "constant images: none"]


def test_the_sheet_shows_each_split_in_colour_and_not_distorted() -> None:
    data = Data.of(from_given("mine", {"images": noise(200, 3, 6, 5), **PARTS}, lambda _: None))
    figure = contact_sheet(data)
    for ax, (part, rows) in zip(figure.axes, ROWS.items(), strict=True):
        (picture,) = ax.get_images()
        assert picture.get_array().shape == (7 * rows - 1, 6 * COLUMNS - 1, 3)
        assert ax.get_title(loc="left") == f"{part}: {rows * COLUMNS} of {len(getattr(data, part))}"
        assert ax.get_aspect() == 1


def test_the_command_takes_a_folder_and_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(Path("pets"), noise(200, 6, 5, 3))
    assert cli.main(["data", "images:pets/", "--set", "dataset_args.resize=(8, 4)"]) == 0
    said = capsys.readouterr().out
    assert "images:pets: resized to 8 x 4, most of them from 6 x 5" in said.replace("\n", " ")
    assert "images, colour, 8 x 4 (height x width)" in said
    assert Path(said.splitlines()[-1].removeprefix("some of them: ")).is_file()
    assert cli.main(["data", "images:pets/", "--set", "resize=8"]) == 2
    assert "--set resize=8: a data set takes its own arguments alone, such as dataset_args.resize=32" in capsys.readouterr().err
    assert cli.main(["data", "images:pets/", "--set", "dataset_args.size=8"]) == 2
    assert "dataset 'images:pets' takes no argument 'size'; it takes: resize" in capsys.readouterr().err


def test_names_that_look_like_markup_are_said_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("pets[bold].npz", images=noise(200, 6, 5) / 255)
    assert cli.main(["data", "npz:pets[bold].npz"]) == 0
    assert "npz:pets[bold].npz: images are float64 in [0, 1]" in capsys.readouterr().out
