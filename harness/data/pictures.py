"""Images in a folder of pictures, .png and .jpeg. The only module that imports Pillow.

Shapes: N images, C channels, H rows, W columns.
"""

import io
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from harness import references
from harness.data.parts import Say
from harness.errors import UserError

OPAQUE = 255
DEPTH_AT, PNG = 24, b"\x89PNG\r\n\x1a\n"  # where a PNG says how many bits a value has, and how it begins
NOT_READ = (".bmp", ".gif", ".tif", ".tiff", ".webp")  # pictures of other kinds, which are not passed over in silence
SHOWN = 10  # names of classes


def from_pictures(folder: Path, say: Say, resize: int | tuple[int, int] | None = None) -> Mapping[str, Any]:
    """Return the pictures of a folder, and labels if they lie in sub-folders, one per class, as `own.from_given` takes them.

    They are in the order of their names. Grey stays grey, (N, 1, H, W); colour has 3 channels, and grey pictures among coloured
    ones get three equal ones, which is said. Palettes are resolved, an alpha channel that is opaque throughout is dropped, and the
    orientation that a camera noted is applied.

    Args:
        folder: The folder.
        say: Takes what is done with them.
        resize: Height and width, or one number for both. What has another shape is cut to it around its centre, then resampled
            (Lanczos).

    Raises:
        UserError: There are pictures in the folder and in sub-folders, or deeper, or of several sizes, or one that is damaged,
            transparent, of 16 bits or of another kind; the message names the first.
    """
    files = references.files_of("images", folder)
    labels, classes = _classes(folder, files)
    size = (resize, resize) if isinstance(resize, int) else resize
    read = {name: _read(path, f"{folder.name}/{name}", size) for name, path in files.items()}
    sizes = Counter(array.shape[1:] for array, _ in read.values())
    if len(sizes) > 1:
        first = {array.shape[1:]: name for name, (array, _) in reversed(read.items())}
        some = ", ".join(f"{h} x {w} ({count:,}, such as {first[h, w]})" for (h, w), count in sizes.most_common(3))
        raise UserError(
            f"{folder}: pictures must have one size, got {len(sizes)}, height x width: {some}\n"
            "to give them one: dataset_args={'resize': 32}, or (28, 20)"
        )
    if size is not None:
        before = Counter(old for _, old in read.values()).most_common(1)[0][0]
        say(f"images:{folder.name}: resized to {size[0]} x {size[1]}, most of them from {before[0]} x {before[1]} (height x width)")
    grey = [name for name, (array, _) in read.items() if len(array) == 1]
    if 0 < len(grey) < len(read):
        say(
            f"images:{folder.name}: {len(grey):,} of {len(read):,} pictures are grey, the first {grey[0]}: "
            "taken as colour, with three equal channels"
        )
    channels = 1 if len(grey) == len(read) else 3
    (height, width), *_ = sizes
    images = np.empty((len(read), channels, height, width), np.uint8)
    for row, name in enumerate(list(read)):
        images[row] = read.pop(name)[0]  # a grey one is spread over the channels
    if not classes:
        return {"images": images}
    more = f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
    say(f"images:{folder.name}: classes are {', '.join(f'{i} {c}' for i, c in enumerate(classes[:SHOWN]))}{more}")
    return {"images": images, "labels": labels}


def _classes(folder: Path, files: Mapping[str, Path]) -> tuple[npt.NDArray[np.int64], Sequence[str]]:
    """Return the label of each picture, (N,), and the names of the classes, which are numbers in their order if all are numbers.

    Both are empty if all pictures lie in the folder itself.
    """
    folders = [name.split("/")[:-1] for name in files]
    deep = next((name for name, inner in zip(files, folders, strict=True) if len(inner) > 1), None)
    if deep:
        raise UserError(f"{folder}: a class is one sub-folder, got {deep}")
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in NOT_READ)
    other = next((path for path in found if not any(part.startswith(".") for part in path.parts)), None)
    if other:
        raise UserError(f"{folder}: pictures must be .png or .jpeg, got {other}: convert it, or move it away")
    owners = [inner[0] if inner else "" for inner in folders]
    names = sorted(set(owners))
    if names == [""]:
        return np.empty(0, np.int64), ()
    if "" in names:
        alone = next(name for name, owner in zip(files, owners, strict=True) if not owner)
        raise UserError(
            f"{folder}: pictures must lie in sub-folders, one per class, or all in the folder itself, "
            f"got {alone} beside {names[1]}/"
        )
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    return np.array([names.index(owner) for owner in owners], dtype=np.int64), names


def _read(path: Path, name: str, size: tuple[int, int] | None) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """Return a picture's levels, (C, H, W), and the height and width that it had before it was given this size."""
    try:
        content = path.read_bytes()
        if content[:8] == PNG and len(content) > DEPTH_AT and content[DEPTH_AT] == 16:
            raise UserError(f"{name}: has 16 bits a value, 8 are taken: convert it, with the range of levels that you mean")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as opened:
                if (frames := getattr(opened, "n_frames", 1)) > 1:
                    raise UserError(f"{name}: has {frames} frames, pictures have one")
                picture = _plain(ImageOps.exif_transpose(opened), name)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as fault:
        if isinstance(fault, UserError):
            raise
        why = "it begins as neither does" if isinstance(fault, UnidentifiedImageError) else fault  # else the address of an object
        raise UserError(f"{name}: cannot be read as .png or .jpeg: {why}\nmend it, or move it away") from None
    before = (picture.height, picture.width)
    if size is not None and before != size:
        picture = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.LANCZOS)
    array = np.asarray(picture)
    return (array[None] if array.ndim == 2 else array.transpose(2, 0, 1)), before


def _plain(picture: Image.Image, name: str) -> Image.Image:
    """Return a picture as grey, of mode L, or in colour, of mode RGB, without its palette and alpha."""
    mode = picture.mode
    if mode.endswith("A") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        lowest = picture.getchannel("A").getextrema()[0]
        if lowest != OPAQUE:
            raise UserError(f"{name}: has transparent pixels, alpha down to {lowest}: put it on a background")
    elif mode not in ("1", "L", "P", "RGB"):
        raise UserError(f"{name}: must be grey or red, green and blue, of 8 bits a value, got Pillow's mode {mode}")
    picture = picture.convert("RGB")
    return picture.getchannel("R") if mode in ("1", "L", "LA") or (mode[0] == "P" and _is_grey(picture)) else picture


def _is_grey(picture: Image.Image) -> bool:
    """Return whether the three channels of a picture in colour are equal."""
    red, green, blue = (np.asarray(picture.getchannel(channel)) for channel in "RGB")
    return np.array_equal(red, green) and np.array_equal(green, blue)
