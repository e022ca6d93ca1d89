"""The command `harness study`, up to where its plan, its data and the machine have been found in order.

What then trains and reports (outcome.py) takes a second to import, which a refusal before that does without.
"""

import time
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import IO, cast

from rich.console import Console

from harness import paths, provenance, references, resources
from harness.evidence import Witness
from harness.executors import Spares
from harness.queue import trial_uri
from harness.runner import disk, preparation
from harness.runner.board import Board, clock
from harness.runner.outlook import first_start
from harness.runner.preparation import Briefing
from harness.runner.room import Room, Setting
from harness.runner.signals import Stopped, Stops
from harness.runner.terminal import Lasting, aloud
from harness.stores import homes
from harness.stores.space import full_in_words
from harness.study import LoadedStudy, load
from harness.tracking import check_anew, check_store, set_aside


@full_in_words()
def run_study(
    reference: str,
    budget: str,
    device: str,
    workers: int | None,
    console: Console,
    *,
    per_gpu: int = 1,
    executor: str = "processes",
    storage: str = "",
    anew: bool = False,
) -> int:
    """Run what is missing of a study, report, and print where to look: `harness study`.

    Args:
        reference: the study, as `study.load` takes it.
        budget: of the study, by name.
        device: the name of the device, as in `devices.named`.
        workers: how many trials or cohorts train at a time; None for one per core or GPU.
        console: where progress is shown.
        per_gpu: how many of them may share a GPU of this machine.
        executor: the name of an executor.
        storage: the URI of a PostgreSQL server that holds the trials, for several drivers; empty for the file in mlruns/.
        anew: begin with a new experiment beside the study's own, which was deleted in MLflow.

    Returns:
        The exit code: 1 if a trial failed for good, 128 and the number of the signal that stopped the study, else 0.
    """
    console.file = cast("IO[str]", Lasting(console.file))
    loaded = load(reference)
    name, study = loaded.name, loaded.study
    resources.check(device, executor, workers, per_gpu)
    homes.check()
    check_store()
    if anew:
        check_anew(name, budget)
    trial_uri(storage)  # raises an error before anything is written: for a wrong URI, for a file that is damaged or not Optuna's
    room = Room(device, workers, per_gpu, executor, study.runs(budget))
    room.check_least(study.trials(budget))
    if not _surely_here(device, workers, per_gpu):
        room.place()  # raises an error before anything is written
    done = preparation.finished(loaded, budget, storage)
    begun = bool(storage) or done.exists() or any((paths.mlruns() / name).exists() for name in ("optuna.db", "mlflow.db"))
    disk.check(disk.at_least(0 if begun else study.runs(budget)))
    with closing(Spares()) as spares:
        here = executor == "processes" and resources.only_cpu(device)
        at_a_time = min(workers or resources.cores(), study.runs(budget))
        if here and not done.exists():
            spares.start(at_a_time)
        console.print(f"{name}, {budget} budget: {study.shape(budget)}", highlight=False, markup=False)
        stops, started = Stops(), time.monotonic()
        with stops.listening(), Board(console) as board:
            try:
                with stops.allowed():
                    noted = preparation.noted(loaded, budget)
                    if here and (start := first_start(loaded, budget, at_a_time, read=noted is not None, begun=begun)):
                        board.expect(start.left)
                    briefing, gather, note = _prepared(loaded, budget, noted, board, room)
                    board.now("opening the records of the study")
                    if not begun:  # all trials are missing: whether there is room can be said before anything is written
                        disk.check(disk.estimate(study.trials(budget), (at := gather()).data, study.runs(budget), len(at.workers)))
                    from harness.runner.outcome import lock_of, store_of, train_and_report
                    from harness.runner.session import Session

                origin = {"dataset.digest": briefing.digest} | ({"features.sha256": briefing.features} if briefing.features else {})
                references.note_pinned([study.base.dataset])
                paths.mlruns().mkdir(parents=True, exist_ok=True)  # not before: a start that is refused makes none
                preparation.keep(briefing, note)
                with lock_of(name, budget, storage):
                    if anew:
                        set_aside(name, budget)
                    session = Session(
                        store=store_of(loaded, budget, storage),
                        board=board,
                        gather=gather,
                        per_gpu=per_gpu,
                        executor=executor,
                        origin=origin,
                        stops=stops,
                        spares=spares,
                    )
                    failures = train_and_report(loaded, session, started)
                    done.parent.mkdir(parents=True, exist_ok=True)
                    done.touch()
            except Stopped as stopped:
                with aloud(console):
                    board.say(f"stopped after {clock(time.monotonic() - started)}; the same command goes on where it left off:")
                    board.say(f"  {provenance.command()}")
                return stopped.code
    return stops.code or failures


def _surely_here(device: str, workers: int | None, per_gpu: int) -> bool:
    """Return whether devices that were named so are there on every machine, as far as `resources.check` has seen."""
    return device == "cpu" or (device == "auto" and workers is None and per_gpu == 1)


def _prepared(
    loaded: LoadedStudy,
    budget: str,
    noted: Briefing | None,
    board: Board,
    room: Room,
) -> tuple[Briefing, Callable[[], Setting], Path | None]:
    """Say what is known of a study's data, or what was `noted` of them by an earlier start.

    Return it with a function that returns what its trials train on, and where, and the file to keep a new note of it in, if any.
    """
    briefing, dataset, note = noted, None, None
    if briefing is None:
        briefing, dataset, note = preparation.gather(loaded, budget, board.say, room, doing=board.now)
    else:
        for line in briefing.lines:
            board.say(line)
    if words := room.make_fit(briefing.bytes, briefing.made_of):
        with aloud(board.console):
            board.say(words)
    network = briefing.network

    @cache
    def gather() -> Setting:
        """Load what has not been loaded yet."""
        from harness import data

        base, (device, workers) = loaded.study.base, room.place()
        images = dataset or data.load_dataset(base.dataset, lambda line: None, base.dataset_args)
        witness = Witness.of(loaded, budget, images, network, room.executor)
        return Setting(data=images, device=device, workers=workers, witness=witness)

    return briefing, gather, note
