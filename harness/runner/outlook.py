"""What trials of a study are known before its queue is open, and how long its first start should take.

Torch and the stores are not opened here.
"""

from collections.abc import Sequence

from harness import paths, resources
from harness.runner import before
from harness.runner.costs import NEVER, SEARCHED, TESTED, Costs, Work, work_of
from harness.runner.estimate import AS_ARMS, Estimate, Later, Part
from harness.study import Cell, LoadedStudy, Search

# Guesses in seconds, until data are read and until stores are made or open: some 10 s by an AMD EPYC, 7 by an Intel Xeon.
READ_S, MAKE_S, OPEN_S = 5.0, 5.0, 3.0


def first_start(loaded: LoadedStudy, budget: str, workers: int, *, read: bool, begun: bool) -> Part | None:
    """Return what a start on this machine's CPU should take until its first trial trains, and from then on.

    None if nothing tells what its epochs take, or if the study and budget were begun, so that some trials may be on record.

    Args:
        loaded: the study.
        budget: of the study, by name.
        workers: how many trials train at a time.
        read: whether an earlier start has read the data and left a note.
        begun: whether there are stores.
    """
    study = loaded.study
    if (paths.mlruns() / "locks" / f"{loaded.name}.{budget}.lock").exists():
        return None
    if study.search:
        settings = study.search.budgets[budget]
        works = [Work(SEARCHED, settings.epochs, "validation")] * (settings.trials * len(study.search.seeds))
        kinds, later = dict.fromkeys((SEARCHED, TESTED), study.base), after_search(study.search, budget)
    else:
        ablation = study.judged(budget, {})
        cells = ablation.cells(budget, ablation.budgets[budget].planned_looks[0])
        all_figures = pictured(cells)
        works = [work_of(cell, all_figures) for cell in cells]
        kinds, later = {cell.arm: cell.spec for cell in cells}, Later(reported=len(ablation.arms))
    costs = Costs(before.stated(resources.cpu(), kinds))
    estimate = Estimate(works, workers=workers, costs=costs, later=later)
    left = estimate.left()
    return None if left is None else Part((0 if read else READ_S) + (OPEN_S if begun else MAKE_S), left)


def pictured(cells: Sequence[Cell]) -> set[str]:
    """Return the ids of the trials whose figures are all drawn: those of each arm's first seed."""
    return set({cell.arm: cell.spec.id for cell in sorted(cells, key=lambda c: -c.seed)}.values())


def after_search(search: Search, budget: str) -> Later:
    """Return what follows the trials of a search: those that test the best of them beside the base, before it is known."""
    settings, pruner = search.budgets[budget], search.pruner
    first, other = f"{settings.evaluation}, all figures", settings.evaluation
    seeds, arms = len(settings.refit_seeds), search.most_arms
    tests = [Work(TESTED, settings.epochs, other if i else first) for i in range(seeds) for _ in range(arms)]
    return Later([tests], pruner.expected(settings.epochs) if pruner else NEVER, arms + AS_ARMS)
