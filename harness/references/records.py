"""The code behind references as a text, to be kept with what was made by it."""

import json
import re
from collections.abc import Iterable

from harness.errors import UserError
from harness.references.importing import adopt, sources_of
from harness.references.sources import Source

FILE = "code.json"  # beside the weights of a trial


def to_record(names: Iterable[str]) -> str:
    """Return the code behind these references as JSON."""
    sources = [{"module": s.module, "files": {n: c.decode() for n, c in s.files.items()}} for s in sources_of(names)]
    return json.dumps(sources, indent=1)


def from_record(text: str) -> None:
    """Take in the code of a record, so that references to it can be resolved here.

    Raises:
        UserError: a file's name that is no path of a module.
    """
    sources = [Source("", s["module"], {name: content.encode() for name, content in s["files"].items()}) for s in json.loads(text)]
    for name in (name for source in sources for name in source.files):
        if not re.fullmatch(r"(\w+/)*\w+\.py", name):
            raise UserError(f"{name!r} in {FILE} is no path of a module")
    adopt(sources)
