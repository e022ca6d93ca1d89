"""What `harness list` shows: studies with what they cost on this machine, as far as that can be told without torch and MLflow."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import paths, resources, study
from harness.errors import UserError, look_up
from harness.scores.rows import TRAIN_S
from harness.study import LoadedStudy, files

if TYPE_CHECKING:
    from harness.tracking import RunOnRecord

START_S = 10.0  # until the first trial trains, and for the report: what a study of one trial takes beside it
THIS, OTHER, STATED = "this budget", "another budget", "stated rate"  # what an estimate rests on


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a budget of a study costs on this machine's CPU.

    Attributes:
        budget: its name.
        trials: how many it trains at most.
        epochs: of each of them.
        seconds: from the command to the report, about; None if nothing tells.
        basis: what that rests on; empty if nothing tells.
        at_least: whether scores that go deeper than those on record come on top.
    """

    budget: str
    trials: int
    epochs: int
    seconds: float | None
    basis: str
    at_least: bool = False

    def __str__(self) -> str:
        """Return it in words, such as `full 36 x 50: from 21 min`."""
        size = f"{self.budget} {self.trials} x {self.epochs}"
        if self.seconds is None:
            return size
        minutes, about = self.seconds / 60, "from" if self.at_least else "about"
        time = "1 min" if minutes < 1.5 else f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
        return f"{size}: {about} {time}"


def show(budget: str, console: Console) -> None:
    """Print every study with its question and the cost of its budgets, or of one budget."""
    notes: dict[str, str] = {}
    for reference, (loaded, costs, fault) in _studies(budget).items():
        notes[reference] = fault if loaded is None else "; ".join(map(str, costs)) or f"(has no budget {budget})"
    width = console.width if console.is_terminal else None
    listed = Text(study.questions(notes, width))
    listed.highlight_regex(r"(?m)^  \S+", "bold")
    listed.highlight_regex(r"(?m)^ +[\w-]+ \d+ x \d+[:;].*(\n +.*\bx \d+:.*)*", "cyan")
    console.print(listed, soft_wrap=True)
    console.print(
        "\nbudget trials x epochs: time on this CPU, by trials on record or, for images like MNIST's, a stated rate\n"
        f"try one: {paths.command('study', name='...', budget='smoke')}",
        highlight=False,
        style="dim",
    )


def as_dict(budget: str) -> dict[str, Any]:
    """Return every study with the cost of its budgets, or of one budget, as a JSON document has it."""
    rows = []
    for reference, (loaded, found, fault) in _studies(budget).items():
        file = files.find(reference)
        kind = None if loaded is None else "search" if loaded.study.search else "ablation"
        rows.append(
            {
                "name": reference,
                "question": file.question,
                "file": str(file.path),
                "kind": kind,
                "error": fault or None,
                "budgets": [asdict(cost) for cost in found],
            }
        )
    return {"studies": rows}


def scores() -> list[dict[str, Any]]:
    """Return the scores that a study may rank its trials or arms by."""
    ranking = [row for row in study.SCORES.values() if row.better]
    ranking.sort(key=lambda row: (row.images != "test", not row.images))
    names = ("key", "label", "better", "tier", "group", "images")
    return [{name: getattr(row, name) for name in names} for row in ranking]


def show_scores(rows: Iterable[Mapping[str, Any]], console: Console) -> None:
    """Print scores, a line each."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("score", "tier", "better", "what it is"):
        table.add_column(heading, no_wrap=heading != "what it is")
    for row in rows:
        table.add_row(row["key"], row["tier"], row["better"], Text(row["label"]))
    console.print(table)
    console.print("tiers: A within a likelihood, B between pmfs of grey levels, C and D any models (docs/science.md)", style="dim")


def _studies(budget: str) -> dict[str, tuple[LoadedStudy | None, list[Cost], str]]:
    """Return every study, the cost of its budgets, or of one, and what is wrong with its file, by reference."""
    from harness.runner import before

    on_record = before.runs_here(resources.cpu())
    found: dict[str, tuple[LoadedStudy | None, list[Cost], str]] = {}
    for reference in study.names():
        try:
            loaded = study.load(reference)
        except UserError as fault:
            found[reference] = (None, [], f"(cannot be loaded: {str(fault).splitlines()[0]})")
            continue
        budgets = [name for name in loaded.study.budgets if budget in ("", name)]
        found[reference] = (loaded, [_cost(loaded, name, on_record) for name in budgets], "")
    known = {name: None for loaded, *_ in found.values() if loaded for name in loaded.study.budgets}
    if budget:
        look_up(known, budget, "budget")
    return found


def _cost(loaded: LoadedStudy, budget: str, on_record: "Mapping[tuple[str, str], list[RunOnRecord]]") -> Cost:
    """Return the cost of a budget: by its own trials on record, or those of another budget, or a stated rate."""
    from harness.runner import before

    chosen, trials = loaded.study.budgets[budget], loaded.study.runs(budget)
    each, basis, at_least = None, "", False
    if runs := on_record.get((loaded.name, budget)):
        each, basis = fmean(run.seconds or 0 for run in runs), THIS
    else:
        others = [name for name in loaded.study.budgets if on_record.get((loaded.name, name))]
        alike = [name for name in others if loaded.study.budgets[name].evaluation == chosen.evaluation]
        # Of several that one which is nearest in its epochs: what a trial takes beside its training is least in doubt there.
        for name in sorted(alike or others, key=lambda n: abs(math.log(loaded.study.budgets[n].epochs / chosen.epochs)))[:1]:
            each, basis = _by(on_record[loaded.name, name], loaded.study.budgets[name].epochs, chosen.epochs), OTHER
            at_least = not alike
        if each is None and before.is_stated(loaded.study.trials(budget)):
            each, basis = before.stated_s(loaded.study.trials(budget), chosen.epochs), STATED
            at_least = chosen.evaluation not in before.STATED_FOR["evaluation"]
    seconds = None if each is None else START_S + math.ceil(trials / resources.cores()) * each
    return Cost(budget=budget, trials=trials, epochs=chosen.epochs, seconds=seconds, basis=basis, at_least=at_least)


def _by(runs: "Iterable[RunOnRecord]", had: int, wanted: int) -> float:
    """Return the seconds of a trial of `wanted` epochs, by runs of `had` epochs: training grows with epochs, the rest does not."""
    whole = fmean(run.seconds or 0 for run in runs)
    training = min(whole, fmean(run.metrics.get(TRAIN_S.key, 0.0) for run in runs))
    return whole - training + training * wanted / had
