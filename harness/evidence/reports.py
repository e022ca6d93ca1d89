"""What can be wrong with a report: its files, the runs and the plan that it was made of, and what MLflow says in its name."""

import html
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.evidence.faults import Found, file_faults, manifest_of, within
from harness.evidence.manifest import NO_WINNER
from harness.evidence.schema import FILE, MADE_OF, REPORT, TAG, absent, sha256_of
from harness.tracking import TAG_LIMIT, Inspected

PAGE, VERDICTS = "report.html", "verdicts.json"
BEHIND = "write it anew"  # harness report


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a report must agree with.

    Attributes:
        counted: the runs that count, by id.
        wanted: the ids of those that a report of the present plan is made of.
        heads: the digest of the last entry of every chain of plans; empty if there is none.
        note: the text above the study's experiment.
    """

    counted: Mapping[str, Inspected] = field(default_factory=dict)
    wanted: Collection[str] = ()
    heads: Sequence[str] = ()
    note: str = ""


def report_faults(found: Found, parent: Inspected, folder: Path, where: str, known: Known | None = None) -> None:
    """Add what is wrong with a report.

    Args:
        found: the faults.
        parent: the run of the study.
        folder: of the report's files.
        where: the folder in words.
        known: what it must agree with; None to hold the files alone.
    """
    manifest, name = manifest_of(folder), f"the report {where}"
    actual = sha256_of(folder / FILE) if manifest is not None else "not there"
    if parent.tags[TAG] != actual:
        found.add(name, parent.run, f"{FILE}: sha256 in the tag {TAG} {parent.tags[TAG]}, found {actual}")
    if not manifest:
        return
    for field_name in absent(manifest, REPORT):
        found.add(name, parent.run, f"{FILE}: the field {field_name} is missing")
    report = within(manifest, "report")
    for what in file_faults(found, within(report, "files"), folder):
        if "is not in" not in what:  # a report of an earlier plan may have had more files
            found.add(name, parent.run, what)
    if known is None:
        return
    for what in (*_source_faults(report, known), *_said_faults(parent, folder, report), *_note_faults(parent, report, known)):
        found.add(name, parent.run, what)


def _source_faults(report: Mapping[str, Any], known: Known) -> Iterator[str]:
    """Yield where the runs and the plan that a report was made of are not those on record."""
    runs = within(report, "runs")
    for run, digest in runs.items():
        if run not in known.counted:
            yield f"made of run {run}, which does not count"
        elif digest != known.counted[run].tags.get(TAG, digest):
            yield f"made of run {run} with the manifest {digest}, which has {known.counted[run].tags[TAG]} now"
    for run in sorted(set(known.wanted) - runs.keys()):
        yield f"made without {known.counted[run].name} (run {run}): {BEHIND}"
    if known.heads and report.get("plan") not in known.heads:
        yield f"made of the plan {report.get('plan')}, but the trial store's ends in {', '.join(known.heads)}: {BEHIND}"


def _said_faults(parent: Inspected, folder: Path, report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tags of the parent run that do not say what the report's page and verdicts say."""
    cell, files = parent.tags.get("winner.cell", NO_WINNER), within(report, "files")
    if cell != report.get("winner"):
        yield f"tag winner.cell: kept {report.get('winner')}, found {cell}"
    page = _text(folder / PAGE) if PAGE in files else None
    if page is not None:
        made_of = re.search(r'<meta name="made-of" content="([^"]*)">', page)
        if parent.tags.get(MADE_OF) != (made_of[1] if made_of else None):
            yield f"tag {MADE_OF}: {parent.tags.get(MADE_OF)}, but the page says {made_of[1] if made_of else 'nothing'}"
        if (winner := parent.tags.get("winner", "")) not in html.unescape(page):
            yield f"tag winner: {winner!r}, which the page does not say"
    if VERDICTS not in files:
        return
    try:
        rows = json.loads(_text(folder / VERDICTS) or "")["verdicts"]
        lines = [f"{row['sentence']} [{row['standing_in_words']}]"[:TAG_LIMIT] for row in rows]
    except (ValueError, TypeError, KeyError, RecursionError) as fault:
        yield f"{VERDICTS} cannot be read: {fault!r}"
        return
    wanted = {f"verdict.{i}": line for i, line in enumerate(lines, 1)}
    if parent.status != "FINISHED" and not parent.verdicts:
        return  # it trains, or was stopped since: tags of verdicts come back with the next report
    for tag in sorted(wanted.keys() | parent.verdicts.keys()):
        if parent.verdicts.get(tag) != wanted.get(tag):
            yield f"tag {tag}: {parent.verdicts.get(tag)!r}, but {VERDICTS} says {wanted.get(tag)!r}"


def _note_faults(parent: Inspected, report: Mapping[str, Any], known: Known) -> Iterator[str]:
    """Yield which descriptions are not those that were written with a report.

    While a study trains, or if it was stopped since, they are without verdicts, and there is nothing to hold them against.
    """
    for whose, text in (("the parent run", parent.note), ("the experiment", known.note)):
        bare = parent.status != "FINISHED" and "\n- **" not in text
        if not bare and sha256_of(text) != report.get("note_sha256"):
            yield f"the description of {whose} is not the one that was written with the report: {text[:200]!r}"


def _text(file: Path) -> str | None:
    """Return the text of a file; None if there is none, which is a fault of its own."""
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
