"""Data files of the user's own: right ones with bytes changed, and raw bytes, as npz, idx and pictures."""

import gzip
import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from fuzzing import Target
from fuzzing.bounds import Refusal, a_home, attempt
from fuzzing.values import changed
from harness.data import load_dataset

COUNT = 140  # images, of which each split gets ten
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4), np.uint8)
LABELS = (np.arange(COUNT) % 3).astype(np.uint8)


def _npz(*, packed: bool, **arrays: np.ndarray) -> bytes:
    """Return an .npz file of these arrays."""
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **arrays)
    return file.getvalue()


def _picture(form: str, mode: str) -> bytes:
    """Return a picture of 4 x 4 pixels."""
    file = io.BytesIO()
    Image.fromarray(IMAGES[0]).convert(mode).save(file, form)
    return file.getvalue()


def _idx(array: np.ndarray) -> bytes:
    """Return an IDX file of bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


NPZ = (
    _npz(packed=False, images=IMAGES, labels=LABELS),
    _npz(packed=True, images=IMAGES),
    _npz(packed=False, images=IMAGES / 255, labels=LABELS - 1.5),
)
IDX = {"images-idx3-ubyte": _idx(IMAGES), "labels-idx1-ubyte": _idx(LABELS)}
PICTURES = (_picture("PNG", "L"), _picture("PNG", "RGBA"), _picture("JPEG", "RGB"), _picture("PNG", "P"), _picture("PNG", "1"))
pieces = st.one_of(
    st.binary(max_size=8),
    st.sampled_from((b"\xff\xff\xff\xff", b"\x00" * 8, b"\x7f\xff\xff\xff", b"<f8", b"|O", b"(1000000,)", b"PK\x03\x04")),
)


def _load(files: Mapping[str, bytes], name: str, arguments: Mapping[str, Any]) -> None:
    """Assert that a data set of these files loads twice the same, or is refused."""
    with a_home(written=True) as folder:
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        data = attempt(lambda: load_dataset(name, lambda words: None, arguments), 2, 3)
        if not isinstance(data, Refusal):
            assert data.digest == load_dataset(name, lambda words: None, arguments).digest
            for split in (data.train, data.validation, data.test):
                assert len(split.levels) >= 10
                assert split.levels.max() <= 255


def _zipped(members: list[tuple[str, bytes]]) -> bytes:
    """Return a zip of these members, as an .npz file is one."""
    import warnings
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that comes twice
        for name, content in members:
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


members = st.lists(st.tuples(st.sampled_from(("images", "labels", "train", "test", "validation", "x", "../images")),
                             changed(st.sampled_from((_npy(IMAGES), _npy(LABELS), _npy(LABELS.astype("<U3")),
                                 _npy(IMAGES.astype(np.float16)))), pieces)),
                   max_size=3)  # fmt: skip
npz = st.one_of(changed(st.sampled_from(NPZ), pieces), st.builds(_zipped, members), st.binary(max_size=60))
idx = st.tuples(
    *(
        st.one_of(
            changed(st.sampled_from((content, content[:20], gzip.compress(content, mtime=0))), pieces), st.binary(max_size=20)
        )
        for content in IDX.values()
    )
)
endings = st.sampled_from(("", ".gz"))
pictures = st.lists(
    st.one_of(changed(st.sampled_from(PICTURES), pieces), st.sampled_from(PICTURES), st.binary(max_size=30)), min_size=1, max_size=3
)
sizes = st.sampled_from(({}, {"resize": 5}, {"resize": (3, 6)}))

TARGETS = {
    "npz": Target(npz, lambda given: _load({"a.npz": given}, "npz:a.npz", {})),
    "idx": Target(
        st.tuples(idx, endings),
        lambda given: _load({f"d/{n}{given[1]}": c for n, c in zip(IDX, given[0], strict=True)}, "idx:d", {}),
    ),
    "pictures": Target(
        st.tuples(pictures, sizes),
        lambda given: _load(
            {f"d/{n:03d}.{'jpg' if n % 2 else 'png'}": given[0][n % len(given[0])] for n in range(COUNT)}, "images:d", given[1]
        ),
    ),
}
