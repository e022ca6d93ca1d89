"""What a study will take of the disk, held against what is free before it starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import catalog, paths
from harness.errors import MachineError, counted
from harness.spec import TrialSpec
from harness.stores.space import MEBI, free_bytes, temporary
from harness.tracking import artifact_location

if TYPE_CHECKING:
    from harness.data import Data

# Measured on digits and MNIST (docs/log.md), rounded up: what there is of any size of model.
STORES = MEBI  # both databases with their tables and nothing in them
REPORT = 2 * MEBI  # the page and its figures, which lie in mlruns/reports and in the parent run
ARM = 11 * MEBI // 4  # an arm's share of them, and the pictures of its first seed's training
TRIAL = 3 * MEBI // 4  # a trial's figures, manifest and rows apart from its epochs
EPOCH = 3_200  # the rows of an epoch of a trial
TIGHT = 1.25  # times the need; with less free than this, it is said
MORE_ROOM = "make room, set HARNESS_HOME to a folder on a larger disk, or ask for less: fewer seeds or arms, a smaller budget"
CHECKPOINTS = 3  # of a trial in training: the newest two, and the one that is being written


@dataclass(frozen=True)
class Need:
    """What trials take of the disk, in bytes.

    Attributes:
        trials: their number.
        kept: what is there when they are done.
        passing: their checkpoints while they train, of which short trainings write none.
        temporary: what is in the folder for temporary files at a time.
    """

    trials: int
    kept: int
    passing: int = 0
    temporary: int = MEBI


def at_least(trials: int) -> Need:
    """Return what so many trials take at least, whatever their models; it is known without torch."""
    return Need(trials, trials * TRIAL * _files_are_here())


def _files_are_here() -> bool:
    """Return whether the files of runs are kept in mlruns/, and not in `$HARNESS_ARTIFACTS` or by a server."""
    return (artifact_location("") or "").startswith(f"{paths.mlruns().resolve().as_uri()}/")


def estimate(specs: Sequence[TrialSpec], data: "Data", missing: int, together: int) -> Need:
    """Return what the missing trials of a study take.

    Args:
        specs: trials like those that are missing, one or more.
        data: their data set.
        missing: the number of missing trials.
        together: how many train at a time.
    """
    from harness.models.vae import build, parameters_of_one  # with torch

    weights: list[int] = []
    states: list[int] = []
    sizes: dict[str, int] = {}
    for spec in specs:
        if spec.cohort.id not in sizes:
            sizes[spec.cohort.id] = 4 * parameters_of_one(build(spec, data.image_shape))
        one, average = sizes[spec.cohort.id], bool(spec.ema_decay)
        weights.append(one * (1 + average))
        states.append(one * (1 + len(catalog.find("optimizer", spec.optimizer)().slots) + average))
    arms = min(missing, len({spec.derive(seed=0).id for spec in specs}))
    files = missing * (TRIAL + sum(weights) // len(weights)) + arms * ARM if _files_are_here() else 0
    rows = missing * EPOCH * max(s.epochs for s in specs)
    passing = min(together, missing) * CHECKPOINTS * max(states)
    # The winner's model is kept once more, and made in the folder for temporary files. Results pass through a folder of mlruns/.
    once = max(weights) + min(together, missing) * (max(weights) + TRIAL)
    return Need(missing, STORES + REPORT + files + rows + once, passing, MEBI + 2 * max(weights))


def check(need: Need, folder: Path | None = None) -> str:
    """Return a warning if a need is close to what is free where runs are written; empty if there is plenty.

    Raises:
        MachineError: less is free than is needed, here or in the folder for temporary files.
    """
    folder = folder or paths.mlruns()
    free, scratch = free_bytes(folder), temporary()
    words = (
        f"{folder} has {_mib(free)} free; {counted(need.trials, 'trial')} take{'s' * (need.trials == 1)} about {_mib(need.kept)}"
    )
    if need.passing:
        words += f", and up to {_mib(need.passing)} more for checkpoints"
    if free < need.kept:
        raise MachineError(f"{words}\n{MORE_ROOM}")
    if (left := free_bytes(scratch)) < need.temporary:
        raise MachineError(
            f"{scratch}, the folder for temporary files, has {_mib(left)} free; about {_mib(need.temporary)} are needed\n"
            "make room there, or set TMPDIR to another folder"
        )
    return f"careful: {words}" if free < TIGHT * (need.kept + need.passing) else ""


def _mib(count: int) -> str:
    """Return a number of bytes in MiB, in words."""
    return f"{count / MEBI:,.0f} MiB"
