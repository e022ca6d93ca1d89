"""References pinned to their code, without importing it."""

import ast
import inspect
import re
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from harness import paths
from harness.errors import UserError, cut, shown, unknown
from harness.references.files import is_file
from harness.references.importing import keep, keep_object
from harness.references.sources import DIGITS, Source, read_source

_SEEN: dict[int, tuple[str, Any]] = {}  # objects that were pinned, each with the digest that its code had then, by identity
PLAIN = (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset)  # many modules have equal ones: none is meant
ENTRY_POINTS = "vae_harness"  # by which installed packages offer names: `"likelihood.student_t" = "my_package.losses:StudentT"`


def is_reference(name: str) -> bool:
    """Return whether a name is that of code of the user's own, not of a catalog's entry, nor of data files.

    >>> is_reference("losses.py:StudentT"), is_reference("bce"), is_reference("npz:faces.npz")
    (True, False, False)
    """
    return ":" in name and not is_file(name)


def is_pinned(name: str) -> bool:
    """Return whether a name is a reference that has the digest of its code, or one of data files that has that of their bytes.

    >>> is_pinned("losses.py:StudentT@1f2e3d4c5b6a"), is_pinned("losses.py:StudentT"), is_pinned("adam@1f2e3d4c5b6a")
    (True, False, False)
    """
    return re.fullmatch(rf"[^@]+:.+@[0-9a-f]{{{DIGITS}}}", name) is not None


def label(name: str) -> str:
    """Return a name without the digest that may pin it.

    >>> label("losses.py:StudentT@1f2e3d4c5b6a")
    'losses.py:StudentT'
    """
    return re.sub(rf"@[0-9a-f]{{{DIGITS}}}$", "", name)


def offered(kind: str) -> Mapping[str, str]:
    """Return the references that installed packages offer for a kind of thing, such as `likelihood`, by name."""
    start = f"{kind}."
    return {e.name.removeprefix(start): e.value for e in _entry_points() if e.name.startswith(start)}


@cache
def _entry_points() -> tuple[metadata.EntryPoint, ...]:
    """Return all entry points of the harness's group."""
    return tuple(metadata.entry_points(group=ENTRY_POINTS))


def pin(given: Any) -> str:
    """Return the pinned reference of a reference in words, of a class or function, or of an object that is a global of a module.

    Raises:
        UserError: there is no such file, module or name in it; or the object has no file that another process could import.
    """
    return _pin_words(given) if isinstance(given, str) else _pin_object(given)


def _pin_words(words: str) -> str:
    """Return the pinned reference of `file.py:Name` or `package.module:Name`."""
    where, _, name = words.partition(":")
    if not where or not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{shown(words)} is no reference: write 'losses.py:StudentT' or 'my_package.losses:StudentT'")
    folders = [folder for folder in (paths.study_folder(), Path.cwd()) if folder is not None]
    if where.endswith(".py"):
        try:
            within = Path(where).expanduser()
            found = [path for folder in folders if (path := (folder / within).resolve()).is_file()]
        except (OSError, RuntimeError, ValueError) as fault:  # too long, of a user that is none, with a zero byte
            raise UserError(f"{shown(words)}: is no path: {cut(str(fault))}") from None
        if not found:
            looked = " or ".join(dict.fromkeys(map(str, folders)))
            beside = sorted({path.name for folder in folders for path in folder.glob("*.py")})
            nearest = get_close_matches(where, beside, n=1)
            hint = f"\ndid you mean {nearest[0]!r}?" if nearest else ""
            raise UserError(f"{shown(words)}: there is no file {cut(where)} in {looked}{hint}")
        source, where = read_source(found[0].parent, found[0].stem), found[0].name
    else:
        source = read_source(_root_of(where, folders, words), where)
    _check_name(source, name, words)
    keep(source)
    return f"{where}:{name}@{source.digest}"


def _root_of(module: str, folders: list[Path], words: str) -> Path:
    """Return the folder that a module is imported from, the given ones before all others. Nothing is imported.

    Raises:
        UserError: there is no such module, or it is not written in Python.
    """
    places: list[str] | None = [*map(str, folders), *sys.path]
    found: ModuleSpec | None = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        found = PathFinder.find_spec(".".join(parts[:depth]), places) if places else None
        places = list(found.submodule_search_locations or []) if found else None
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        raise UserError(
            f"{shown(words)}: there is no module {shown(module)}\na file beside the study is named as 'losses.py:StudentT'"
        )
    return _root(Path(found.origin).resolve(), module)


def _root(file: Path, module: str) -> Path:
    """Return the folder from which a module of this dotted name and file is imported."""
    return file.parents[module.count(".") + (file.name == "__init__.py")]


def _named(given: Any) -> tuple[ModuleType | None, str]:
    """Return the module of an object and its name there: a class's or function's own, else that of the global that it is.

    Raises:
        UserError: it has no name.
    """
    if given is None or isinstance(given, PLAIN):
        raise UserError(f"{shown(given)} is no reference: give a class or function of a module, or write 'losses.py:StudentT'")
    name = getattr(given, "__qualname__", None)
    if (inspect.isclass(given) or inspect.isfunction(given)) and name is not None and "<" not in name:
        return sys.modules.get(given.__module__), name
    for module in list(sys.modules.values()):
        for known, value in vars(module).items() if isinstance(module, ModuleType) else ():
            if value is given and getattr(module, "__file__", None):
                return module, known
    raise UserError(f"{name or shown(given)} cannot be imported by name: give a class or function of a module, or its reference")


def _pin_object(given: Any) -> str:
    """Return the pinned reference of an object, which is what it stands for in this process from now on."""
    module, name = _named(given)
    file = getattr(module, "__file__", None)
    if module is None or file is None or not file.endswith(".py"):
        raise UserError(
            f"{name} was typed into a session, where no other process can import it\n"
            "write it into a file, such as losses.py, and name it 'losses.py:"
            f"{name}' (in a notebook: %%writefile losses.py)"
        )
    path, spec = Path(file).resolve(), getattr(module, "__spec__", None)
    dotted = spec.name if spec is not None else module.__name__  # of `python -m package.module` it is not `__main__`
    if hasattr(module, "__path__") or dotted.rpartition(".")[0] in sys.modules:
        source, where = read_source(_root(path, dotted), dotted), dotted
    else:
        source, where = read_source(path.parent, path.stem), path.name
    pinned = f"{where}:{name}@{source.digest}"
    if _is_stale(given, module, name, source.digest):
        raise UserError(
            f"{where} has changed since {name} was imported\nrestart, or importlib.reload({dotted}) and take {name} anew"
        )
    keep(source)
    keep_object(pinned, given)
    return pinned


def _is_stale(given: Any, module: ModuleType, name: str, digest: str) -> bool:
    """Return whether an object is of an earlier state of its file, as far as this process has seen it."""
    known, _ = _SEEN.setdefault(id(given), (digest, given))
    current: Any = module
    for part in name.split("."):
        current = getattr(current, part, None)
    return known != digest or (current is not None and current is not given)


def _check_name(source: Source, name: str, words: str) -> None:
    """Raise an error if the module's own file makes no such name, as far as reading it can tell.

    Raises:
        UserError: it does not; the message has the nearest name that it makes.
    """
    made: list[str] = []
    imported: list[str] = []
    for node in ast.parse(source.files[source.file]).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                made.append(node.name)
            case ast.Assign():
                made += [t.id for t in node.targets if isinstance(t, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=target)):
                made.append(target)
            case ast.Import() | ast.ImportFrom():
                imported += [(a.asname or a.name).split(".")[0] for a in node.names]
            case ast.Expr() | ast.Pass():
                pass
            case _:
                return  # names may be made in branches and loops too
    if "*" not in imported and name.split(".")[0] not in (*made, *imported):
        raise UserError(f"{shown(words)}: {unknown(f'name in {source.file}', name, made)}")
