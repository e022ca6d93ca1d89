"""Folders of pictures: classes or none, grey or colour, one size or given one; what cannot be levels 0..255 is refused by name."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import noise, write_pictures
from PIL import Image

from harness.data import Data, load_dataset
from harness.errors import UserError

N = 200


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures in colour of two classes."""
    folder = tmp_path_factory.mktemp("pictures") / "pets"
    write_pictures(folder / "cat", noise(N, 6, 5, 3))
    write_pictures(folder / "dog", noise(N, 6, 5, 3, seed=1))
    return folder


def loaded(folder: Path, **arguments: object) -> tuple[Data, list[str]]:
    said: list[str] = []
    return load_dataset(f"images:{folder}/", said.append, arguments), said


def whole(data: Data) -> dict[bytes, int]:
    """Return the label of each image, -1 if it has none, by its bytes."""
    return {
        bytes(image): -1 if split.labels is None else int(split.labels[row])
        for split in (data.train, data.validation, data.test)
        for row, image in enumerate(split.levels.numpy())
    }


def channel_first(images: np.ndarray) -> list[bytes]:
    return [image.tobytes() for image in images.transpose(0, 3, 1, 2)]


def test_a_class_per_sub_folder_in_colour(pets: Path) -> None:
    data, said = loaded(pets)
    assert (data.name, data.image_shape) == ("pets", (3, 6, 5))
    labels = whole(data)
    assert len(labels) == 2 * N
    assert [labels[image] for image in channel_first(noise(N, 6, 5, 3))] == [0] * N
    assert [labels[image] for image in channel_first(noise(N, 6, 5, 3, seed=1))] == [1] * N
    assert said == ["images:pets: classes are 0 cat, 1 dog"]


def test_no_sub_folders_no_labels_and_grey_stays_grey(tmp_path: Path) -> None:
    write_pictures(tmp_path / "scans", noise(N, 7, 4))
    (tmp_path / "scans" / "notes.txt").write_text("not a picture")
    (tmp_path / "scans" / ".hidden.png").write_bytes(b"")
    data, said = loaded(tmp_path / "scans")
    assert (data.image_shape, data.train.labels, said) == ((1, 7, 4), None, [])
    assert set(whole(data)) == {image.tobytes() for image in noise(N, 7, 4)}


def test_classes_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    for name in ("10", "9"):
        write_pictures(tmp_path / "digits" / name, noise(N, 4, 4, seed=int(name)))
    labels = whole(loaded(tmp_path / "digits")[0])
    assert labels[noise(N, 4, 4, seed=9)[0].tobytes()] == 0


def test_grey_pictures_among_coloured_ones_become_colour_which_is_said(tmp_path: Path) -> None:
    write_pictures(tmp_path / "mixed", noise(N, 6, 5, 3))
    write_pictures(tmp_path / "mixed", noise(9, 6, 5, seed=1), start=N)
    data, said = loaded(tmp_path / "mixed")
    assert data.image_shape == (3, 6, 5)
    assert said == ["images:mixed: 9 of 209 pictures are grey, the first 0200.png: taken as colour, with three equal channels"]
    assert set(map(bytes, np.repeat(noise(9, 6, 5, seed=1)[:, None], 3, axis=1))) <= set(whole(data))


def test_jpegs_are_read_and_the_orientation_that_a_camera_noted_is_applied(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, level in enumerate(np.linspace(0, 200, N)):
        picture = Image.fromarray(np.full((8, 16), level, np.uint8))
        orientation = picture.getexif()
        orientation[274] = 6  # to be turned by 90 degrees
        picture.save(tmp_path / "photos" / f"{number}.jpg", exif=orientation)
    assert loaded(tmp_path / "photos")[0].image_shape == (1, 16, 8)


def test_other_sizes_are_refused_or_given_one(tmp_path: Path) -> None:
    write_pictures(tmp_path / "faces", noise(N, 12, 8))
    write_pictures(tmp_path / "faces", noise(2, 9, 9), start=N)
    with pytest.raises(
        UserError, match=r"got 2, height x width: 12 x 8 \(200, such as 0000.png\), 9 x 9 \(2, such as 0200.png\)\nto"
    ):
        loaded(tmp_path / "faces")
    data, said = loaded(tmp_path / "faces", resize=(6, 4))
    assert data.image_shape == (1, 6, 4)
    assert said == ["images:faces: resized to 6 x 4, most of them from 12 x 8 (height x width)"]
    assert loaded(tmp_path / "faces", resize=5)[0].image_shape == (1, 5, 5)


def test_a_resize_cuts_around_the_centre_and_does_not_distort(tmp_path: Path) -> None:
    wide = noise(N, 4, 12)
    wide[:, :, 4:8] = np.arange(N, dtype=np.uint8)[:, None, None]  # the middle square
    write_pictures(tmp_path / "wide", wide)
    assert set(whole(loaded(tmp_path / "wide", resize=4)[0])) == {bytes([level] * 16) for level in range(N)}
    assert set(whole(loaded(tmp_path / "wide", resize=(4, 12))[0])) == {image.tobytes() for image in wide}


def saved(mode: str) -> Callable[[Path], None]:
    """Return a function that saves a picture of this mode of Pillow."""
    return lambda path: Image.fromarray(noise(6, 5, 3)).convert(mode).save(path)


def transparent(path: Path) -> None:
    Image.fromarray(noise(6, 5, 4)).save(path)


def deep(path: Path) -> None:
    Image.fromarray(noise(6, 5).astype(np.uint16) * 256).save(path)


def deep_colour(path: Path) -> None:
    Image.fromarray(noise(6, 5, 3)).save(path)
    content = bytearray(path.read_bytes())
    content[24] = 16
    path.write_bytes(content)


def moving(path: Path) -> None:
    frames = [Image.fromarray(noise(6, 5, 3, seed=seed)) for seed in range(2)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def cut_off(path: Path) -> None:
    Image.fromarray(noise(60, 50, 3)).save(path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("name", "save", "message"),
    [
        ("cat/odd.png", transparent, r"pets/cat/odd.png: has transparent pixels, alpha down to \d+: put it on a background"),
        ("cat/odd.png", deep, "pets/cat/odd.png: has 16 bits a value, 8 are taken"),
        ("cat/odd.png", deep_colour, "pets/cat/odd.png: has 16 bits a value, 8 are taken"),
        ("cat/odd.jpg", saved("CMYK"), "pets/cat/odd.jpg: must be grey or red, green and blue, .* mode CMYK"),
        ("cat/odd.png", moving, "pets/cat/odd.png: has 2 frames"),
        ("cat/odd.png", cut_off, "pets/cat/odd.png: cannot be read as .png or .jpeg: "),
        ("cat/odd.png", lambda path: path.write_text("a text"), "as .png or .jpeg: it begins as neither does\nmend it"),
        ("cat/odd.bmp", saved("RGB"), "pets: pictures must be .png or .jpeg, got cat/odd.bmp"),
        ("odd.png", saved("RGB"), "pets: pictures must lie in sub-folders, .*, got odd.png beside cat/"),
        ("cat/small/odd.png", saved("RGB"), "pets: a class is one sub-folder, got cat/small/odd.png"),
    ],
)
def test_a_picture_that_is_not_8_bit_grey_or_colour_is_refused_by_name(
    name: str, save: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "pets" / "cat", noise(20, 6, 5, 3))
    (tmp_path / "pets" / name).parent.mkdir(exist_ok=True)
    save(tmp_path / "pets" / name)
    with pytest.raises(UserError) as fault:
        loaded(tmp_path / "pets")
    assert re.search(message, str(fault.value)), fault.value


def test_hidden_files_and_folders_are_passed_over_whatever_is_in_them(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pets", noise(N, 6, 5))
    write_pictures(tmp_path / "pets" / ".thumbnails", noise(2, 3, 3))
    (tmp_path / "pets" / ".thumbnails" / "0000.webp").write_bytes(b"")
    (tmp_path / "pets" / ".0000.gif").write_bytes(b"")
    assert loaded(tmp_path / "pets")[0].image_shape == (1, 6, 5)


def test_palettes_and_opaque_alpha_are_resolved(tmp_path: Path) -> None:
    grey, colour = Image.fromarray(noise(6, 5)), Image.fromarray(noise(6, 5, 3))
    kinds = {"P": grey.convert("P"), "LA": grey.convert("LA"), "1": grey.convert("1")}
    for name, picture in (kinds | {"RGBA": colour.convert("RGBA"), "PC": colour.quantize(256)}).items():
        folder = tmp_path / name
        write_pictures(folder, noise(N, 6, 5, seed=2) if name in kinds else noise(N, 6, 5, 3, seed=2))
        picture.save(folder / "odd.png")
        data, said = loaded(folder)
        assert (data.image_shape[0], said) == ((1 if name in kinds else 3), []), name
        wanted = picture.convert("L" if name in kinds else "RGB")
        exact = np.array(wanted)[None, :, :, None] if name in kinds else np.array(wanted)[None]
        assert channel_first(exact)[0] in whole(data), name


def test_bytes_elsewhere_are_the_same_images(pets: Path, tmp_path: Path) -> None:
    shutil.copytree(pets, tmp_path / "pets")
    assert loaded(tmp_path / "pets")[0].digest == loaded(pets)[0].digest
