"""The files of published data sets: at hand, or fetched from one of several sources, and checked either way."""

import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

from harness.data.parts import Say
from harness.data.published import DIGESTS, checked, digest_as, folder_of
from harness.data.sources import ARCHIVES, Sources, sources_of
from harness.errors import DataError


def published_files(folder: str, say: Say) -> list[bytes]:
    """Return the bytes of a data set's files in the order of `DIGESTS`, fetching them first if one is missing.

    Raises:
        DataError: A file is missing and cannot be fetched, or its bytes are not the published ones.
    """
    raw = folder_of(folder)
    if not all((raw / file).exists() for file in DIGESTS[folder]):
        fetch(folder, raw, say)
    return [checked(folder, raw / file) for file in DIGESTS[folder]]


def fetch(folder: str, raw: Path, say: Say, sources: Sources | None = None) -> None:
    """Get a data set's files into a folder; each appears there complete and with the published bytes, or not at all.

    Args:
        folder: One of `DIGESTS`.
        raw: Where to put them; created if it is missing.
        say: Takes a message about each source that is tried.
        sources: The sources to try, by default those of `sources_of`.

    Raises:
        DataError: The folder cannot be written, or no source has the files.
    """
    failures = []
    try:
        raw.mkdir(parents=True, exist_ok=True)
        scratch_folder = tempfile.TemporaryDirectory(dir=raw.parent, prefix=".fetch-")
    except OSError as fault:
        raise DataError(f"cannot make the folder for {folder}: {fault}\nset HARNESS_DATA to one that can be written") from None
    with scratch_folder as scratch:
        for number, (source, download) in enumerate((sources or sources_of(folder, raw)).items()):
            say(f"getting {folder} {source}")
            own = Path(scratch) / str(number)
            own.mkdir()
            try:
                files = _as_published(folder, download(folder, own, raw))
                for file in files:
                    file.replace(raw / file.name)
            except _FAULTS as fault:
                failures.append(f"{source}: {(str(fault).strip() or type(fault).__name__).splitlines()[-1]}")
                continue
            return
    lines = [f"{file} {digest}" for file, digest in DIGESTS[folder].items()]
    wanted = "\n".join("  " + ", ".join(lines[i : i + 2]) for i in range(0, len(lines), 2))
    archive = f"{ARCHIVES[folder][0]} into {raw.parents[1]}, or " if folder in ARCHIVES else ""
    raise DataError(
        f"no way to get {folder}\ntried {'; '.join(failures)}\nput {archive}these files, or .gz of them, into {raw}:\n{wanted}"
    )


# What a source may fail with: no network, no such tool, an archive that is damaged or another.
_FAULTS = (ImportError, OSError, RuntimeError, ValueError, EOFError, zlib.error, subprocess.SubprocessError, tarfile.TarError)


def _as_published(folder: str, files: list[Path]) -> list[Path]:
    """Return those of some downloaded files that are read, of which all must be there.

    Raises:
        OSError: One is missing, or is not the published file.
    """
    by_name = {file.name: file for file in files}
    for name, published in DIGESTS[folder].items():
        if name not in by_name:
            raise OSError(f"it holds no {name}")
        actual = digest_as(published, by_name[name].read_bytes())
        if actual != published:
            raise OSError(f"its {name} is not the published file: expected {published}, got {actual}")
    return [by_name[name] for name in DIGESTS[folder]]
