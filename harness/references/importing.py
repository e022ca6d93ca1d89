"""Imports of the code behind references, each process its own."""

import importlib
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import UserError, unknown
from harness.references.sources import Source

# What this process knows of the user's code: references are words, so what they stand for is kept beside them.
_SOURCES: dict[str, Source] = {}  # by digest
_OBJECTS: dict[str, Any] = {}  # by pinned reference
_COPIES: dict[str, tempfile.TemporaryDirectory[str]] = {}  # folders with the files of a source, by digest
_IMPORTING = threading.RLock()  # sys.path and sys.modules are one per process


def keep(source: Source) -> None:
    """Keep a source for this process."""
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
    root = Path(source.root)
    if not source.is_at(root):
        root = _copy(source)
    for name, file in source.modules.items():
        if name not in sys.modules:
            continue
        loaded = Path(getattr(sys.modules[name], "__file__", None) or "?")
        if source.has(file, loaded):
            continue
        if loaded.name != Path(file).name or not any(loaded.is_relative_to(s.root) for s in _SOURCES.values()):
            raise UserError(f"{file}: a module of this name is in use already, {loaded}\nrename the file")
        del sys.modules[name]  # an earlier state of the same code, or another folder's
    importlib.invalidate_caches()
    try:
        with on_path(root):
            module = importlib.import_module(source.module)
    except Exception as fault:  # it is the user's code, which may raise anything
        lines = [f.lineno for f in traceback.extract_tb(fault.__traceback__) if f.filename == str(root / source.file)]
        where = f"{source.file}:{lines[-1]}" if lines else source.file
        raise UserError(f"{where}: {type(fault).__name__}: {fault}") from fault
    if str(root) not in sys.path:
        sys.path.append(str(root))  # for what it imports within functions
    return module


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


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """Import modules from this folder first, in this block."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
