"""What a start says of a study's data and holds its trials against, and the note that spares later starts the same work.

The data sets that come with the package are published files, whose images another start has found in order: while these files, the
code and the trials are the same, what was said of them is said again from a note in mlruns/checked, without loading anything. Data
of the user's own are loaded by every start, for a function may return other images today. Torch is imported by `gather` alone, once
the data are read: what they are refused for is told without it.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from harness import catalog, paths, provenance
from harness.evidence import raw_files
from harness.runner.room import Room
from harness.spec import check_fit, unmet
from harness.study import LoadedStudy
from harness.study.scores import check_data, left_out

if TYPE_CHECKING:
    from harness.data import Data

PACKAGES = ("numpy", "scikit-learn", "torch")  # whose versions may change what is read


@dataclass(frozen=True, kw_only=True)
class Briefing:
    """What is known of a study's data before its trials train.

    Attributes:
        digest: of the data set.
        features: the digest of its feature network; empty if the images are too few for one.
        network: the name of that network; empty without one.
        lines: what is said of the data, for people.
        bytes: of memory that the largest trial takes, beside its process.
        made_of: what they are for, in words.
    """

    digest: str
    features: str
    network: str
    lines: tuple[str, ...]
    bytes: int
    made_of: str


def noted(loaded: LoadedStudy, budget: str) -> Briefing | None:
    """Return what an earlier start has found of a study's data; None if it is not known to be so today."""
    note = _note(loaded, budget)
    try:
        content = json.loads(note.read_text(encoding="utf-8")) if note else None
    except (FileNotFoundError, ValueError):  # none yet; one that was cut off, which the next is written over
        return None
    return Briefing(**content | {"lines": tuple(content["lines"])}) if content else None


def gather(
    loaded: LoadedStudy, budget: str, say: Callable[[str], None], room: Room, *, doing: Callable[[str], None] = lambda words: None
) -> tuple[Briefing, "Data", Path | None]:
    """Load a study's data and hold its trials against them.

    Return what was found, the data, and the file to `keep` a note of it in for later starts, if there is to be one: once nothing
    more can be refused, for a start that is refused writes nothing.

    Args:
        loaded: the study.
        budget: of the study, by name.
        say: takes what is found, line by line, and messages about progress.
        room: where the trials train.
        doing: takes what goes on, in words.

    Raises:
        HarnessError: the data cannot be loaded, or do not fit the trials, or these do not fit the room, or something of the user's
            own breaks its contract.
    """
    from harness import data

    study, lines, before = loaded.study, list[str](), _note(loaded, budget)

    def state(line: str) -> None:
        lines.append(line)
        say(line)

    doing(f"reading {study.base.dataset}")
    parts = data.read_dataset(study.base.dataset, state, study.base.dataset_args)
    fetched = _note(loaded, budget) != before
    check_data(study, budget, parts.counts)
    trials = study.trials(budget)
    check_fit(trials, parts.images_to_fit, parts.image_shape[0])
    room.check_least(trials, parts.images_to_fit, math.prod(parts.image_shape))

    doing("loading torch")
    from harness.metrics import histogram  # what follows takes torch
    from harness.metrics.features import feature_net
    from harness.testing import check_trials
    from harness.training.footprint import largest

    dataset = data.Data.of(parts)
    doing("checking what the trials need")
    check_trials(trials, dataset, say=say)
    most = largest(trials, dataset)
    room.check(most)
    doing("counting grey levels, for what to beat without a latent")
    for line in (*left_out(study.scores, dataset.counts), *histogram.notes(dataset)):
        state(line)
    doing("looking for the network whose features samples are scored on")
    net = None if unmet(("features",), dataset.counts) else feature_net(dataset, say=say, doing=doing)
    if net is not None:
        state(f"samples are scored on features of {net.in_words}")
    briefing = Briefing(
        digest=dataset.digest,
        features=net.digest if net else "",
        network=net.name if net else "",
        lines=tuple(lines),
        bytes=most.bytes,
        made_of=most.words,
    )
    note = None if fetched else _note(loaded, budget)  # lines about files that were fetched are not to be said again
    return briefing, dataset, note


def keep(briefing: Briefing, note: Path | None) -> None:
    """Write what was found of a study's data to the file of a note; nothing without one."""
    if note is not None:
        note.parent.mkdir(parents=True, exist_ok=True)
        scratch = note.with_name(f"{note.name}.{os.getpid()}")  # another start may read at the same time
        scratch.write_text(json.dumps(asdict(briefing)), encoding="utf-8")
        scratch.replace(note)


def _note(loaded: LoadedStudy, budget: str) -> Path | None:
    """Return the file of the note on a study's data as they are now; None for data that every start loads."""
    base = loaded.study.base
    if catalog.entry("dataset", base.dataset) is None or catalog.takes_file("dataset", base.dataset):
        return None
    files = [*raw_files(base.dataset).values(), *(paths.data() / "features").glob("*.pt")]
    content = {
        "what": "data",
        "files": [(str(file), (found := file.stat()).st_size, found.st_mtime_ns) for file in sorted(files)],
        "trials": [spec.id for spec in loaded.study.trials(budget)],
        "study": [loaded.name, budget, sorted(loaded.study.scores)],
        "code": [provenance.code(), *(provenance.version(package) for package in PACKAGES)],
    }
    return checked(json.dumps(content))


def finished(loaded: LoadedStudy, budget: str, storage: str) -> Path:
    """Return the file whose presence says that a start has found nothing left to train, so that the next need not hurry."""
    return checked(json.dumps(["finished", loaded.name, budget, storage, [spec.id for spec in loaded.study.trials(budget)]]))


def checked(content: str) -> Path:
    """Return the file of a note in mlruns/checked, which has this content as its name."""
    return paths.mlruns() / "checked" / sha256(content.encode()).hexdigest()[:16]
