"""References to code of the user's own, `losses.py:StudentT` or `my_package.losses:StudentT`: pinned, carried, imported.

In comes a reference in words, or a class or function; out comes a name that holds the digest of its code,
`losses.py:StudentT@1f2e3d4c5b6a`, and later, in whatever process, the object behind it. Data files, `npz:faces.npz`, are pinned to
their bytes in the same way, and found again rather than carried (files.py). What the object is for must not enter here,
nor torch; nothing of the user's is imported before `resolve`. The files travel with every pickled spec (`TrialSpec.__reduce__`), so
that a worker anywhere runs the code that the study was started with.
"""

from harness.references.files import (
    FORMS_IN_WORDS,
    adopt_places,
    check_unchanged,
    files_of,
    find_file,
    is_file,
    note_pinned,
    pin_file,
    places_of,
)
from harness.references.importing import adopt, at_hand, importable, resolve, sources_of
from harness.references.pinning import is_pinned, is_reference, label, offered, pin
from harness.references.records import FILE, from_record, to_record
from harness.references.sources import Source

__all__ = [
    "FILE",
    "FORMS_IN_WORDS",
    "Source",
    "adopt",
    "adopt_places",
    "at_hand",
    "check_unchanged",
    "files_of",
    "find_file",
    "from_record",
    "importable",
    "is_file",
    "is_pinned",
    "is_reference",
    "label",
    "note_pinned",
    "offered",
    "pin",
    "pin_file",
    "places_of",
    "resolve",
    "sources_of",
    "to_record",
]
