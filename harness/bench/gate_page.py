"""What the gate found, for people: the verdict first, then by how much each way of taking the step differs, then what to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import expm1
from pathlib import Path

from rich.console import Console

from harness.bench import gate_rule
from harness.bench.gate_rule import IMPROVEMENT, INCONCLUSIVE, OK, REGRESSION, GateVerdict

MOST_TELLING = (REGRESSION, INCONCLUSIVE, IMPROVEMENT, OK)  # the first of these that a way of taking the step has is the verdict
STEP_FOLDERS = "harness/training harness/models harness/kernels harness/devices"
GUIDE = 'docs/performance.md, "A slower step, found"'
HEADINGS = ("way of taking the step", "step time", "90 % interval", "pairs", "verdict")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the gate found about the working tree.

    Attributes:
        base: the revision, as it was named.
        commit: its short hash.
        verdicts: by way of taking the step, in the order in which they were timed.
        untimed: why a way of taking the step was not timed, by way.
        counts_changed: whether counts of the step are others than those on record.
        measured_on: device and version of torch.
    """

    base: str
    commit: str
    verdicts: Mapping[str, GateVerdict]
    untimed: Mapping[str, str]
    counts_changed: bool
    measured_on: str

    @property
    def outcome(self) -> str:
        """The verdict of all ways together: REGRESSION if one has it, else INCONCLUSIVE, IMPROVEMENT, OK."""
        outcomes = {verdict.outcome for verdict in self.verdicts.values()}
        return next(outcome for outcome in MOST_TELLING if outcome in outcomes)

    @property
    def fails(self) -> bool:
        """Whether a change should be held back: the step is slower, or does something else than is on record."""
        return self.outcome == REGRESSION or self.counts_changed


def headline(found: Comparison) -> str:
    """Return the verdict in a sentence."""
    base = found.base if found.base.startswith(found.commit) else f"{found.base} ({found.commit})"
    telling = [way for way, verdict in found.verdicts.items() if verdict.outcome == found.outcome]
    changes = "; ".join(f"the {way} by {_by(found.verdicts[way])}" for way in telling)
    match found.outcome:
        case gate_rule.REGRESSION:
            return f"REGRESSION: slower than {base}: {changes}"
        case gate_rule.IMPROVEMENT:
            return f"IMPROVEMENT: faster than {base}: {changes}"
        case gate_rule.INCONCLUSIVE:
            reasons = "; ".join(f"the {way}: {found.verdicts[way].reason}" for way in telling)
            return f"INCONCLUSIVE: no verdict against {base}: {reasons}"
    untimed = "".join(f"; not of the {way}, which was not timed" for way in found.untimed)
    return f"OK: no slower than {base}; a slow-down of 5 % is excluded{untimed}"


def _by(verdict: GateVerdict) -> str:
    """Return how much slower or faster, with the interval."""
    percents = [100 * expm1(v) for v in (verdict.estimate, verdict.low, verdict.high)]
    mean, *ends = (abs(p) for p in percents)
    return f"{mean:.1f} % (90 % interval: {min(ends):.1f} to {max(ends):.1f} %)"


def rows(found: Comparison) -> Sequence[tuple[str, ...]]:
    """Return the cells of a table, one row per way of taking the step, as `HEADINGS` names them."""
    timed = [
        (
            way,
            f"{100 * expm1(v.estimate):+.1f} %",
            f"{100 * expm1(v.low):+.1f} to {100 * expm1(v.high):+.1f} %",
            str(v.pairs),
            f"{v.outcome}: {v.reason}",
        )
        for way, v in found.verdicts.items()
    ]
    return timed + [(way, "", "", "", f"NOT TIMED: {why}") for way, why in found.untimed.items()]


def next_steps(found: Comparison) -> list[tuple[str, str]]:
    """Return what to do now: commands, each with what it tells; none if all is well."""
    steps = []
    if found.counts_changed:
        steps.append(("harness bench counts", "the step does something else than is on record; if that is meant, add --refresh"))
    if found.outcome == REGRESSION:
        steps += [
            (f"git diff {found.commit} -- {STEP_FOLDERS}", "what changed in the step"),
            (
                f"git bisect start HEAD {found.commit} && git bisect run make bench-compare BASE={found.commit}",
                "since which commit",
            ),
            ("harness bench ladder", "every way of taking the step side by side, in ms"),
        ]
    if found.outcome == INCONCLUSIVE:
        steps.append((f"make bench-compare BASE={found.commit}", "again, when no other program is at work on this machine"))
    if found.outcome == IMPROVEMENT:
        steps.append(("make bench-ladder", "writes the new times into docs/performance.md"))
    return steps


def show(found: Comparison, console: Console) -> None:
    """Print the verdict, the table and what to do next."""
    table = [HEADINGS, *rows(found)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["", headline(found), ""]
    lines += [f"  {'  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()}" for row in table]
    if steps := next_steps(found):
        lines += ["", "what next:", *(f"  {line}" for step, tells in steps for line in (step, f"    {tells}"))]
    if found.outcome == REGRESSION:
        lines.append(f"  all of it, step by step: {GUIDE}")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def markdown(found: Comparison) -> str:
    """Return the same as Markdown."""
    lines = [f"### Step time: {headline(found)}", "", _row(HEADINGS), _row(["---"] * len(HEADINGS)), *map(_row, rows(found)), ""]
    lines += [f"- `{step}`: {tells}" for step, tells in next_steps(found)]
    return "\n".join([*lines, "", f"Base, head and head again took turns in fresh processes on {found.measured_on}.", ""])


def _row(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def append(found: Comparison, path: Path) -> None:
    """Add the Markdown at the end of a file, as the summary of a job on GitHub wants it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(markdown(found))
