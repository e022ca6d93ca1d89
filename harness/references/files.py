"""Data files of the user's own, `npz:faces.npz`, `images:folder/` or `idx:folder/`: pinned to their bytes, and found again."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from harness import paths
from harness.errors import DataError, UserError, cut, shown
from harness.references.sources import DIGITS

PICTURES = (".png", ".jpg", ".jpeg")

_PLACES: dict[str, Path] = {}  # where this process has found what a pinned name stands for
_DIGESTS: dict[tuple[object, ...], str] = {}  # of bytes that were read, by path, sizes and times of change


def _itself(path: Path) -> list[str]:
    """Return the name of the one file that is read."""
    return [path.name]


def _pictures(folder: Path) -> list[str]:
    """Return the names of the pictures in a folder and all folders below it, hidden ones left out."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(place).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        found += [f"{prefix}{name}" for name in names if name.lower().endswith(PICTURES) and not name.startswith(".")]
    return found


def _idx(folder: Path) -> list[str]:
    """Return the names of the IDX files of a folder; of one that is there raw and packed, that of the raw one."""
    found = {p.name for p in folder.iterdir() if p.is_file() and ("idx" in p.name or "ubyte" in p.name) and p.name[0] != "."}
    return [name for name in found if not name.endswith(".gz") or name.removesuffix(".gz") not in found]


# The word before the colon: what it is for, whether it names a folder, and which files are read.
FORMS: Mapping[str, tuple[str, bool, Callable[[Path], list[str]]]] = {
    "npz": ("an .npz file", False, _itself),
    "images": ("a folder of .png or .jpeg pictures", True, _pictures),
    "idx": ("a folder of IDX files", True, _idx),
}
FORMS_IN_WORDS: Mapping[str, str] = {form: what for form, (what, _, _) in FORMS.items()}


def is_file(name: str) -> bool:
    """Return whether a name is that of data files of the user's own.

    >>> is_file("npz:faces.npz"), is_file("data.py:faces"), is_file("npz")
    (True, False, False)
    """
    form, colon, _ = name.partition(":")
    return bool(colon) and form in FORMS


def files_of(form: str, path: Path) -> dict[str, Path]:
    """Return the files that are read of a path by their names below it, sorted; a file alone has its own name."""
    _, folder, listed = FORMS[form]
    base = path if folder else path.parent
    return {name: base / name for name in sorted(listed(path))}


def digest_of(form: str, path: Path, *, anew: bool = False) -> str:
    """Return the first hexadecimal digits of the sha256 of a file's bytes; of a folder, of all names and bytes; empty without any.

    What was read before is not read again while paths, sizes and times of change are the same, unless `anew`.
    """
    files = files_of(form, path)
    if not files:
        return ""
    stats = [os.stat(file) for file in files.values()]
    key = (path, tuple((name, s.st_size, s.st_mtime_ns) for name, s in zip(files, stats, strict=True)))
    if anew or key not in _DIGESTS:
        sums = {}
        for name, file in files.items():
            with file.open("rb") as content:
                sums[name] = hashlib.file_digest(content, "sha256").hexdigest()
        whole = hashlib.sha256(b"".join(os.fsencode(name) + f"\0{digest}\n".encode() for name, digest in sums.items())).hexdigest()
        _DIGESTS[key] = (whole if FORMS[form][1] else next(iter(sums.values())))[:DIGITS]
    return _DIGESTS[key]


def pin_file(words: str) -> str:
    """Return the pinned name of data files, `npz:faces.npz@1f2e3d4c5b6a`: their own name and the digest of their bytes.

    They are looked for beside the study's file, else in the working folder. Of those that are gone the digest is the one that
    `note_pinned` has kept, so that what was trained on them can still be named; training looks for them again.

    Raises:
        UserError: there is no such file or folder and never was, it cannot be read, or it holds nothing that is read.
    """
    form, _, where = words.partition(":")
    what, folder, _ = FORMS[form]
    folders = [place for place in (paths.study_folder(), Path.cwd()) if place is not None]
    try:
        within = Path(where).expanduser()
        paths_there = [path for place in folders if (path := (place / within).resolve()).exists()] if where else []
    except (OSError, RuntimeError, ValueError) as fault:  # too long, of a user that is none, with a zero byte
        raise UserError(f"{shown(words)}: is no path: {cut(str(fault))}") from None
    if not paths_there:
        for path in (place / within for place in folders):
            if where and (note := _note_of(form, path)).is_file():
                return note.read_text(encoding="utf-8")
        raise UserError(f"{shown(words)}: there is no {cut(where) or 'name'} in {_in_words(folders)}{_nearest(where, folders)}")
    path = paths_there[0]
    if path.is_dir() != folder:
        raise UserError(f"{shown(words)}: {form}: takes {what}, {path} is a {'folder' if path.is_dir() else 'file'}")
    try:
        digest = digest_of(form, path)
    except OSError as fault:
        raise UserError(f"{shown(words)}: cannot be read: {cut(str(fault))}") from None
    if not digest:
        raise UserError(f"{shown(words)}: {path} holds none: {form}: takes {what}")
    pinned = f"{form}:{path.name}@{digest}"
    _PLACES[pinned] = path
    return pinned


def note_pinned(names: Iterable[str]) -> None:
    """Keep the pinned names of data files in mlruns/, by where they lie, for the day on which they are gone."""
    for name in names:
        if name in _PLACES:
            note = _note_of(name.partition(":")[0], _PLACES[name])
            note.parent.mkdir(parents=True, exist_ok=True)
            if not note.is_file() or note.read_text(encoding="utf-8") != name:
                scratch = note.with_name(f"{note.name}.{os.getpid()}")  # another start may read at the same time
                scratch.write_text(name, encoding="utf-8")
                scratch.replace(note)


def _note_of(form: str, path: Path) -> Path:
    """Return the file that keeps the pinned name of data files that lie, or lay, at a path."""
    where = f"{form}:{os.path.realpath(path)}"
    return paths.mlruns() / "data_files" / hashlib.sha256(os.fsencode(where)).hexdigest()[:16]


def find_file(pinned: str) -> Path:
    """Return the path of the files behind a pinned name, whose bytes are read and held against its digest.

    They are looked for where the study found them, beside the study's file and in the working folder.

    Raises:
        DataError: they are not on this machine, or have changed; the message says where and how.
    """
    words, _, digest = pinned.rpartition("@")
    form, _, name = words.partition(":")
    folders = [place for place in (paths.study_folder(), Path.cwd()) if place is not None]
    places = dict.fromkeys([*([_PLACES[pinned]] if pinned in _PLACES else []), *(folder / name for folder in folders)])
    changed = []
    for path in places:
        if path.is_dir() == FORMS[form][1] and path.exists():
            try:
                actual = digest_of(form, path, anew=True)
            except OSError as fault:
                raise DataError(f"{words}: cannot be read: {cut(str(fault))}") from None
            if actual == digest:
                _PLACES[pinned] = path.resolve()
                return _PLACES[pinned]
            changed.append(f"{path} has {actual}")
    if changed:
        raise DataError(
            f"{words} is not what it was: digest {digest} is wanted, {'; '.join(changed)}\n"
            "put the old bytes back, or start the study again: other bytes are other trials"
        )
    raise DataError(
        f"{words} ({digest}) is not on this machine: no {_in_words(places)}\n"
        "put it there to train on it; what is on record of it can be reported without"
    )


def check_unchanged(pinned: str, path: Path) -> None:
    """Raise an error if the files at the path of a pinned name, whose bytes `find_file` has read, are others by now.

    Bytes are read again only where names, sizes or times of change differ.

    Raises:
        DataError: they have changed since, or are gone.
    """
    words, _, digest = pinned.rpartition("@")
    try:
        actual = digest_of(words.partition(":")[0], path)
    except OSError as fault:
        raise DataError(f"{words}: cannot be read: {cut(str(fault))}") from None
    if actual != digest:
        raise DataError(f"{words} changed while it was read: {path} had {digest}, and has {actual or 'nothing'}\nstart it again")


def places_of(names: Iterable[str]) -> dict[str, str]:
    """Return where this process has found what those of these names stand for that are of data files, as absolute paths."""
    return {name: str(_PLACES[name]) for name in names if name in _PLACES}


def adopt_places(places: Mapping[str, str]) -> None:
    """Take in places from another process."""
    for name, path in places.items():
        _PLACES.setdefault(name, Path(path))


def _in_words(places: Iterable[Path]) -> str:
    """Return paths with `or` between them, each once."""
    return " or ".join(dict.fromkeys(map(str, places)))


def _nearest(where: str, folders: Iterable[Path]) -> str:
    """Return a line with the nearest name beside the one that was looked for; empty if none is near."""
    beside = sorted({p.name for folder in folders for p in (folder / where).parent.glob("*") if not p.name.startswith(".")})
    near = get_close_matches(Path(where).name, beside, n=1)
    return f"\ndid you mean {near[0]!r}?" if near else ""
