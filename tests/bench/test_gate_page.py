"""What the gate says: the verdict of all ways of taking the step, by how much, and what to do."""

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from harness import paths
from harness.bench import gate_page
from harness.bench.gate_rule import IMPROVEMENT, INCONCLUSIVE, OK, REGRESSION, GateVerdict

VERDICTS = {
    outcome: GateVerdict(
        outcome=outcome, reason=reason, estimate=math.log1p(mean), low=math.log1p(low), high=math.log1p(high), pairs=24
    )
    for outcome, reason, mean, low, high in (
        (OK, "a slow-down of 5 % is excluded", 0.002, -0.01, 0.014),
        (REGRESSION, "slower than the base", 0.074, 0.061, 0.088),
        (IMPROVEMENT, "faster than the base", -0.2, -0.22, -0.18),
        (INCONCLUSIVE, "the machine is unfit", 0.0, -0.1, 0.1),
    )
}


def found(plain: str, studied: str, *, base: str = "main", counts_changed: bool = False) -> gate_page.Comparison:
    """What the gate found where the two ways of taking the step have these verdicts; the second may be none."""
    verdicts = {"step by operations": VERDICTS[plain]} | ({"step of a study": VERDICTS[studied]} if studied else {})
    untimed = {} if studied else {"step of a study": "no C compiler here"}
    return gate_page.Comparison(
        base=base,
        commit="c9b1349a1b2c",
        verdicts=verdicts,
        untimed=untimed,
        counts_changed=counts_changed,
        measured_on="a CPU",
    )


def printed(comparison: gate_page.Comparison) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    gate_page.show(comparison, console)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("plain", "studied", "outcome", "fails"),
    [
        (OK, OK, OK, False),
        (OK, REGRESSION, REGRESSION, True),
        (REGRESSION, INCONCLUSIVE, REGRESSION, True),
        (IMPROVEMENT, INCONCLUSIVE, INCONCLUSIVE, False),
        (IMPROVEMENT, OK, IMPROVEMENT, False),
    ],
)
def test_the_most_telling_way_of_taking_the_step_is_the_verdict(plain, studied, outcome, fails):
    comparison = found(plain, studied)
    assert (comparison.outcome, comparison.fails) == (outcome, fails)
    assert found(plain, studied, counts_changed=True).fails
    _, first, *rest = printed(comparison)
    assert first.startswith(f"{outcome}: ")
    assert sum("step of a study  " in line or "step by operations  " in line for line in rest) == 2


def test_a_regression_is_told_with_its_size_its_way_and_what_to_do():
    _, first, *rest = printed(found(OK, REGRESSION))
    assert first == ("REGRESSION: slower than main (c9b1349a1b2c): the step of a study by 7.4 % (90 % interval: 6.1 to 8.8 %)")
    assert any("git bisect run make bench-compare BASE=c9b1349a1b2c" in line for line in rest)
    title = gate_page.GUIDE.split('"')[1]
    assert f"### {title}\n" in (paths.PROJECT / "docs" / "performance.md").read_text(encoding="utf-8")


def test_an_improvement_has_its_interval_in_ascending_order_and_a_hash_is_not_said_twice():
    _, first, *_ = printed(found(OK, IMPROVEMENT, base="c9b1349a1b2c"))
    assert first == "IMPROVEMENT: faster than c9b1349a1b2c: the step of a study by 20.0 % (90 % interval: 18.0 to 22.0 %)"


def test_a_way_that_was_not_timed_is_not_said_to_be_no_slower():
    comparison = found(OK, "")
    _, first, *rest = printed(comparison)
    assert first.endswith("a slow-down of 5 % is excluded; not of the step of a study, which was not timed")
    assert any("NOT TIMED: no C compiler here" in line for line in rest)
    assert "| step of a study |  |  |  | NOT TIMED: no C compiler here |" in gate_page.markdown(comparison)


@pytest.mark.parametrize("outcome", VERDICTS)
def test_each_folder_and_command_that_is_advised_exists(outcome):
    steps = gate_page.next_steps(found(outcome, outcome, counts_changed=True))
    targets = (paths.PROJECT / "Makefile").read_text(encoding="utf-8")
    for command, _ in steps:
        for folder in (word for word in command.split() if word.startswith("harness/")):
            assert (paths.PROJECT / folder).is_dir()
        if command.startswith("make "):
            assert f"\n{command.split()[1]}:" in targets


def test_markdown_is_added_to_what_a_job_has_said_before(tmp_path: Path):
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    gate_page.append(found(OK, REGRESSION, counts_changed=True), file)
    before, title, _, *table = file.read_text(encoding="utf-8").splitlines()
    assert (before, title.partition(":")[0]) == ("before", "### Step time")
    assert table[2] == "| step by operations | +0.2 % | -1.0 to +1.4 % | 24 | OK: a slow-down of 5 % is excluded |"
    assert table[3] == "| step of a study | +7.4 % | +6.1 to +8.8 % | 24 | REGRESSION: slower than the base |"
    assert any(line.startswith("- `harness bench counts`") for line in table)
