"""A report's numbers for programs, at full precision, and its tables for papers, as LaTeX and Markdown."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness import provenance
from harness.report.ablation.judging import finite
from harness.report.ablation.results import AblationResults
from harness.spec import flattened
from harness.stats import summary

FILES = ("verdicts.json", "trials.csv", "arms.csv", "differences.csv", "search.csv")  # for programs; the last is of a search
VERDICTS, TRIALS, ARMS, DIFFERENCES, _ = FILES
TABLES = "tables"  # the folder of the tables as text
ESCAPED = re.compile(r"[&%$#_{}]")
TO_LATEX = {"±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table as people read it.

    Attributes:
        title: what it shows.
        headings: of its columns.
        rows: cells as text; the first of each names an arm, or two.
        arms: the arm of each row.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    arms: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The name of its files."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def write_numbers(results: AblationResults, question: str, folder: Path) -> None:
    """Write what programs read: the study with its arms and verdicts, its trials, its arms, and their paired differences."""
    trials(results).to_csv(folder / TRIALS, index=False)
    arms(results).to_csv(folder / ARMS, index=False)
    differences(results).to_csv(folder / DIFFERENCES, index=False)
    chosen = results.study.budgets[results.budget]
    content = {
        "study": results.name,
        "budget": results.budget,
        "question": question,
        "epochs": chosen.epochs,
        "evaluation": chosen.evaluation,
        "objective": results.study.objective,
        "dataset": results.study.base.dataset,
        "dataset_digest": results.origins("dataset.digest"),
        "machine": results.origins("device"),
        "code": results.commits,
        "torch": results.origins("version.torch"),
        "python": results.origins("version.python"),
        "command": provenance.command(),
        "plan": results.plan.head,
        "faults": results.plan.faults,
        "arms": [_arm(results, arm) for arm in results.study.arms],
        "verdicts": [j.row for j in results.judgements],
    }
    (folder / VERDICTS).write_text(json.dumps(content, indent=1), encoding="utf-8")


def _arm(results: AblationResults, arm: str) -> dict[str, Any]:
    """Return an arm as JSON values: its fields, what it changes of the base, and its runs by seed."""
    cells = [c for c in results.cells if c.arm == arm]
    spec = {name: value for name, value in flattened(cells[0].spec.as_dict()).items() if name != "seed"}
    return {
        "arm": arm,
        "changes": flattened(results.study.arms[arm]),
        "spec": spec,
        "runs": {str(c.seed): results.records[c.spec.id].run for c in cells if c.spec.id in results.records},
        "failures": {str(c.seed): results.failures[c.spec.id] for c in cells if c.spec.id in results.failures},
    }


def trials(results: AblationResults) -> pd.DataFrame:
    """Return a row per finished trial: arm, seed, run, the id of its spec, what varies between arms, and every score."""
    rows = []
    for cell in results.cells:
        record = results.records.get(cell.spec.id)
        if record is not None:
            fields = flattened(cell.spec.as_dict())
            varied = {name: fields.get(name) for name in results.study.varied}
            rows.append(
                {"arm": cell.arm, "seed": cell.seed, "run": record.run, "cell": cell.spec.id, **varied, **dict(record.metrics)}
            )
    return pd.DataFrame(rows)


def arms(results: AblationResults) -> pd.DataFrame:
    """Return a row per arm: its number of seeds, and mean and standard deviation over them of every score, such as `test/kl.sd`."""
    keys = _keys(results)
    rows = []
    for arm in results.arms:
        row: dict[str, Any] = {"arm": arm, "n": len(results.seeds(arm))}
        for key in (k for k in keys if results.has(arm, k)):
            over_seeds = summary(results.by_seed(arm, key))
            row |= {f"{key}.mean": over_seeds.mean, f"{key}.sd": finite(over_seeds.spread)}
        rows.append(row)
    return pd.DataFrame(rows)


def differences(results: AblationResults) -> pd.DataFrame:
    """Return a row per score and arm but the first: the paired difference to the first, with its 95 % interval.

    Empty while a study's claims have no verdict yet.
    """
    columns = ["metric", "arm", "against", "n", "difference", "low", "high"]
    if results.interim:
        return pd.DataFrame(columns=columns)
    first = results.arms[0]
    rows = []
    for key in _keys(results):
        for arm in results.arms[1:]:
            if results.has(arm, key) and results.has(first, key) and results.common_seeds(arm, first):
                d = results.difference(arm, first, key)
                rows.append([key, arm, first, d.n, d.mean, finite(d.low), finite(d.high)])
    return pd.DataFrame(rows, columns=columns)


def _keys(results: AblationResults) -> list[str]:
    """Return the keys of all scores that a trial has, in the order of the table of trials."""
    return [name for name in results.table if name not in ("arm", "seed", "cell")]


def write_table(table: TextTable, folder: Path, origin: str) -> None:
    """Write a table into the folder of tables, as LaTeX (the package booktabs) and as Markdown.

    Args:
        table: what is written.
        folder: of the report.
        origin: where its numbers come from, in one line, which both files begin with.
    """
    tables = folder / TABLES
    tables.mkdir(exist_ok=True)
    (tables / f"{table.name}.tex").write_text(f"% {table.title}: {origin}\n{latex(table)}", encoding="utf-8")
    (tables / f"{table.name}.md").write_text(f"<!-- {table.title}: {origin} -->\n\n{markdown(table)}", encoding="utf-8")


def latex(table: TextTable) -> str:
    """Return a table as a tabular of LaTeX."""
    lines = [r"\begin{tabular}{l" + "r" * (len(table.headings) - 1) + "}", r"\toprule"]
    lines += [f"{' & '.join(map(in_latex, table.headings))} \\\\", r"\midrule"]
    lines += [f"{' & '.join(map(in_latex, row))} \\\\" for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def markdown(table: TextTable) -> str:
    """Return a table in Markdown."""
    rows = [table.headings, ["---", *["---:"] * (len(table.headings) - 1)], *table.rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)


def in_latex(text: str) -> str:
    r"""Return a text as LaTeX shows it.

    >>> print(in_latex("gaussian_shared: -0.5 ± 0.1 %"))
    gaussian\_shared: $-$0.5 $\pm$ 0.1 \%
    """
    text = ESCAPED.sub(lambda found: f"\\{found[0]}", text.replace("\\", "/"))
    for character, written in TO_LATEX.items():
        text = text.replace(character, written)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", text)
