"""Imports of the code behind references, each process its own."""

import importlib
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from harness import paths
from harness.errors import UserError, raised, unknown
from harness.references.files import is_file, places_of
from harness.references.sources import Source

# What this process knows of the user's code: references are words, so what they stand for is kept beside them.
_SOURCES: dict[str, Source] = {}  # by digest
_OBJECTS: dict[str, Any] = {}  # by pinned reference
_LOADED: dict[str, bytes] = {}  # the contents of modules when they were imported, by dotted name
_COPIES: dict[str, tempfile.TemporaryDirectory[str]] = {}  # folders with the files of a source, by digest
_IMPORTING = threading.RLock()  # sys.path and sys.modules are one per process


def at_hand(pinned: str) -> bool:
    """Return whether this process has the code behind a pinned reference, or knows where data files lie."""
    return bool(places_of([pinned])) if is_file(pinned) else pinned.partition("@")[2] in _SOURCES


def keep(source: Source) -> None:
    """Keep a source for this process."""
    known = _SOURCES.get(source.digest)
    if known is not None and not known.root:  # what was imported from a record gives way to the file itself
        for pinned in [name for name in _OBJECTS if name.endswith(f"@{source.digest}")]:
            del _OBJECTS[pinned]
    _SOURCES[source.digest] = source


def keep_object(pinned: str, given: Any) -> None:
    """Keep an object as what a pinned reference stands for in this process, so that its code is not imported again."""
    _OBJECTS[pinned] = given


def adopt(sources: Iterable[Source]) -> None:
    """Take in sources from another process."""
    for source in sources:
        _SOURCES.setdefault(source.digest, source)


def sources_of(names: Iterable[str]) -> tuple[Source, ...]:
    """Return the sources of those of these names that are pinned references, as far as this process has them."""
    digests = dict.fromkeys(name.partition("@")[2] for name in names)
    return tuple(_SOURCES[digest] for digest in digests if digest in _SOURCES)


def resolve(pinned: str) -> Any:
    """Return the object behind a pinned reference.

    Raises:
        UserError: its code is not at hand, cannot be imported, or has no such name.
    """
    if pinned not in _OBJECTS:
        where, _, digest = pinned.partition("@")
        if digest not in _SOURCES:
            raise UserError(f"the code of {where!r} ({digest}) is not at hand: only its name and digest are on record")
        name = where.partition(":")[2]
        with _IMPORTING:
            module = _import(_SOURCES[digest])
        try:
            _OBJECTS[pinned] = reduce(getattr, name.split("."), module)
        except AttributeError:
            raise UserError(f"{where!r}: {unknown(f'name in {_SOURCES[digest].file}', name, vars(module))}") from None
    return _OBJECTS[pinned]


def _import(source: Source) -> ModuleType:
    """Import a source's module: from where it was found if its files are still there unchanged, else from a copy of them.

    Raises:
        UserError: its name is that of a module that is loaded already, or whatever its code raises, with file and line.
    """
    root = Path(source.root or Path.cwd())  # of a record: the working folder, if its files are there
    displaced: dict[str, tuple[ModuleType, bytes | None]] = {}
    copied = not source.is_at(root)
    if copied:
        root = _copy(source)
    if not all(_is_current(source, name, file, root) for name, file in source.modules.items()):
        own = source.modules.keys() & sys.modules.keys()  # all of them, for one may hold what it imported from another
        displaced = {name: (sys.modules.pop(name), _LOADED.pop(name, None)) for name in own}
    importlib.invalidate_caches()
    try:
        with paths.loading_from(root), importable(root), _without_bytecode():
            module = importlib.import_module(source.module)
    except (Exception, SystemExit) as fault:  # it is the user's code, which may raise anything
        _restore(source, displaced)
        lines = [f.lineno for f in traceback.extract_tb(fault.__traceback__) if f.filename == str(root / source.file)]
        where = f"{source.file}:{lines[-1]}" if lines else source.file
        raise UserError(f"{where}: {raised(fault)}") from fault
    _LOADED.update({name: source.files[file] for name, file in source.modules.items() if name in sys.modules})
    if copied and displaced:  # the code of a record does not take the place of the user's own
        _restore(source, displaced)
        return module
    _leave_on_path(str(root))
    return module


def _restore(source: Source, displaced: Mapping[str, tuple[ModuleType, bytes | None]]) -> None:
    """Put modules back in the place of a source's own, each with what it was loaded from, if that is known."""
    for name in source.modules:
        sys.modules.pop(name, None)
        _LOADED.pop(name, None)
    sys.modules.update({name: module for name, (module, _) in displaced.items()})
    _LOADED.update({name: content for name, (_, content) in displaced.items() if content is not None})


def _leave_on_path(root: str) -> None:
    """Leave a folder on the path for what its code imports within functions: last of all, but before earlier such folders."""
    if root in sys.path:
        sys.path.remove(root)
    earlier = [sys.path.index(folder) for folder in _roots() if folder in sys.path]
    sys.path.insert(min(earlier, default=len(sys.path)), root)


def _is_current(source: Source, name: str, file: str, root: Path) -> bool:
    """Return whether a module is not loaded, or as the source has it.

    False if it is an earlier state of the same code, or a copy although the code is at hand in `root`.

    Raises:
        UserError: it is somebody else's.
    """
    if name not in sys.modules:
        return True
    loaded = Path(getattr(sys.modules[name], "__file__", None) or "?")
    if any(loaded.is_relative_to(copy.name) and copy.name != str(root) for copy in _COPIES.values()):
        return False
    if _LOADED[name] == source.files[file] if name in _LOADED else source.has(file, loaded):
        return True
    if name not in _LOADED and not any(loaded.is_relative_to(folder) for folder in _roots()):
        raise UserError(f"{file}: a module of this name is in use already, {loaded}\nrename the file")
    return False


def _copy(source: Source) -> Path:
    """Return a folder with a copy of a source's files, which lasts as long as this process."""
    if source.digest not in _COPIES:
        folder = tempfile.TemporaryDirectory(prefix="harness-code-", ignore_cleanup_errors=True)
        for name, content in source.files.items():
            path = Path(folder.name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        _COPIES[source.digest] = folder
    return Path(_COPIES[source.digest].name)


def _roots() -> Iterator[str]:
    """Yield the folders that this process has imported references from, and those that sources were found in."""
    yield from (source.root for source in _SOURCES.values() if source.root)  # none if it is from a record
    yield from (folder.name for folder in _COPIES.values())


@contextmanager
def _without_bytecode() -> Iterator[None]:
    """Write no bytecode in this block: by its date alone Python would take it for that of a file changed within the same second."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Put a folder in front of the places that modules are imported from, in this block."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
