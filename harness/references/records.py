"""The code behind references as a text, to be kept with what was made by it, and where data files lay."""

import json
import re
from collections.abc import Iterable
from typing import Any

from harness.errors import UserError, cut, shown
from harness.references.files import adopt_places, places_of
from harness.references.importing import adopt, sources_of
from harness.references.sources import Source

FILE = "code.json"  # beside the weights of a trial


def to_record(names: Iterable[str]) -> str:
    """Return the code behind these references as JSON, and the places of those that are data files."""
    names = tuple(names)
    sources: list[dict[str, Any]] = [
        {"module": s.module, "files": {n: c.decode() for n, c in s.files.items()}} for s in sources_of(names)
    ]
    places = [{"data": name, "path": path} for name, path in places_of(names).items()]
    return json.dumps([*sources, *places], indent=1)


def from_record(text: str) -> None:
    """Take in the code of a record, so that references to it can be resolved here, and where its data files lay.

    Raises:
        UserError: it is no such record, or a file's name is no path of a module.
    """
    try:
        entries = json.loads(text)
        sources = [
            Source("", str(s["module"]), {name: content.encode() for name, content in s["files"].items()})
            for s in entries
            if "module" in s
        ]
        places = {str(entry["data"]): str(entry["path"]) for entry in entries if "data" in entry}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as fault:
        raise UserError(f"{FILE} is no record of code: {type(fault).__name__}: {cut(str(fault))}") from None
    for name in (name for source in sources for name in source.files):
        if not re.fullmatch(r"(\w+/)*\w+\.py", name):
            raise UserError(f"{shown(name)} in {FILE} is no path of a module")
    for source in sources:
        _check(source)
    adopt(sources)
    adopt_places(places)


def _check(source: Source) -> None:
    """Raise an error for the source of a record that lacks the module's own file, or has one that is no Python.

    Raises:
        UserError: it is such a source.
    """
    try:
        _ = source.file, source.digest
    except (StopIteration, SyntaxError, ValueError, RecursionError) as fault:
        raise UserError(f"{FILE} has no code of {cut(source.module)}: {type(fault).__name__}: {cut(str(fault))}") from None
