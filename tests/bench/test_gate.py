"""The regression gate: the rule on known numbers, and nothing measured is never a pass."""

import io
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from calibrate_gate import calibrate
from rich.console import Console
from scipy import stats

from harness import devices, paths
from harness.bench import counts, gate, gate_rule
from harness.errors import MachineError, UserError

EQUAL = np.zeros(24)


def scattered(mean: float, spread: float, n: int = 24) -> np.ndarray:
    """Numbers of exactly this mean and standard deviation."""
    x = stats.norm.ppf((np.arange(n) + 0.5) / n)
    return np.log1p(mean) + spread * x / x.std(ddof=1)


# -------------------------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("mean", "spread", "outcome"),
    [
        (0.10, 0.07, gate_rule.REGRESSION),
        (0.05, 0.07, gate_rule.REGRESSION),
        (0.03, 0.01, gate_rule.REGRESSION),
        (0.02, 0.01, gate_rule.OK),  # shown, but less than half of what is sought
        (0.0, 0.07, gate_rule.OK),
        (-0.02, 0.03, gate_rule.OK),
        (-0.10, 0.07, gate_rule.IMPROVEMENT),
        (0.0, 0.20, gate_rule.INCONCLUSIVE),
        (0.04, 0.20, gate_rule.INCONCLUSIVE),
    ],
)
def test_verdict(mean, spread, outcome):
    found = gate_rule.verdict(scattered(mean, spread), scattered(0, 0.05))
    assert found.outcome == outcome
    assert np.expm1(found.estimate) == pytest.approx(mean)


@pytest.mark.parametrize("drift", [0.06, -0.06])
@pytest.mark.parametrize("mean", [0.0, 0.1, -0.1])
def test_a_control_that_differs_voids_the_verdict(mean, drift):
    found = gate_rule.verdict(scattered(mean, 0.05), scattered(drift, 0.05))
    assert found.outcome == gate_rule.INCONCLUSIVE
    assert "unfit" in found.reason


@pytest.mark.parametrize("pairs", [0, 1, gate_rule.FEWEST_PAIRS - 1])
def test_too_few_pairs_are_an_error(pairs):
    with pytest.raises(MachineError, match=f"{pairs} process pairs"):
        gate_rule.verdict([0.0] * pairs, [0.0] * pairs)


# -------------------------------------------------------------------------------- timing


@pytest.mark.parametrize(
    "as_studied",
    [
        False,
        pytest.param(
            True, marks=[pytest.mark.slow, pytest.mark.skipif(not devices.compiler(torch.device("cpu")), reason="no compiler")]
        ),
    ],
)
def test_more_steps_take_longer(as_studied):
    groups = gate.time_groups([(paths.PROJECT, steps) for steps in (2, 8, 2)], rounds=8, as_studied=as_studied)
    seconds = next(groups)
    groups.close()
    assert seconds.shape == (8, 3)
    assert np.median(seconds[:, 1] / seconds[:, 0]) > 1.5


def test_a_group_gives_its_ratio_and_its_control():
    ratio, control = gate.pair(np.array([[1.0, 1.1, 1.1]] * 4 + [[1.0, 9.0, 1.1]]))
    assert ratio == pytest.approx(np.log(1.1))
    assert control == pytest.approx(0)
    ratio, control = gate.pair(np.array([[1.0, 1.21, 1.0]]))
    assert ratio == pytest.approx(np.log(1.1))
    assert control == pytest.approx(np.log(1.21))


def test_calibration_counts_verdicts_of_both_kinds():
    def groups(sides, rounds, device, as_studied):
        base = sides[0][1]
        noise = itertools.cycle(scattered(0, 0.01))
        while True:
            yield np.array([[steps / base * np.exp(next(noise)) for _, steps in sides]] * rounds)

    found = calibrate(Console(file=io.StringIO()), verdicts=3, time_groups=groups)
    assert found == {"equal": {gate_rule.OK: 3}, "planted": {gate_rule.REGRESSION: 3}}


@pytest.mark.parametrize(
    ("code", "fault", "words"),
    [
        ("import os; os._exit(3)", MachineError, "exit code 3"),
        ("raise ValueError('broken head')", UserError, "broken head"),
        ("", UserError, "cohort"),  # whether or not an installed copy fills the gap
    ],
)
def test_a_side_that_does_not_run_is_an_error(tmp_path, code, fault, words):
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").write_text(code)
    with pytest.raises(fault, match=words):
        next(gate.time_groups([(tmp_path, 1)], rounds=1))


def test_a_timing_process_that_cannot_start_is_an_error():
    with pytest.raises(MachineError, match="timing process died"):
        next(gate.time_groups([(paths.PROJECT, 1)], rounds=1, device="no such device"))


# -------------------------------------------------------------------------------- the base


@pytest.fixture
def project(tmp_path) -> Path:
    """A repository of one commit that looks like the project."""
    folder = tmp_path / "project"
    (folder / "harness").mkdir(parents=True)
    (folder / "harness" / "cohort.py").write_text("")
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    return folder


def worktrees(project: Path) -> int:
    listed = subprocess.run(["git", "-C", str(project), "worktree", "list"], check=True, capture_output=True, text=True)
    return len(listed.stdout.splitlines())


@pytest.mark.parametrize("fault", [KeyboardInterrupt, SystemExit, MachineError])
def test_the_worktree_goes_whatever_happens(project, fault):
    seen = []

    def interrupted() -> None:
        with gate.checkout("HEAD", project) as base:
            seen.extend([(base / "harness" / "cohort.py").exists(), worktrees(project), base])
            raise fault

    with pytest.raises(fault):
        interrupted()
    assert seen[:2] == [True, 2]
    assert worktrees(project) == 1
    assert not seen[2].exists()


@pytest.mark.parametrize("base", ["nowhere", "", "--help"])
def test_an_unknown_revision_is_a_users_slip(project, base):
    with pytest.raises(UserError, match="unknown revision") as caught:
        gate.compare(base, Console(file=io.StringIO()), project=project)
    assert caught.value.exit_code == 2
    assert "first" in str(caught.value)


def test_a_revision_without_a_cohort_is_a_users_slip(project):
    (project / "harness" / "cohort.py").unlink()
    subprocess.run(["git", "-C", str(project), "-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qam", "gone"], check=True)
    with pytest.raises(UserError, match="has no cohort to time"), gate.checkout("HEAD", project):
        pass


def test_outside_a_checkout_there_is_no_base(tmp_path):
    with pytest.raises(UserError, match="not a git checkout"), gate.checkout("HEAD", tmp_path):
        pass


# -------------------------------------------------------------------------------- the whole


@pytest.fixture
def compiler(tmp_path, monkeypatch) -> Path:
    """What passes for a C++ compiler, beside git on a PATH of their own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "git").symlink_to(shutil.which("git"))
    (folder / "g++").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    return folder / "g++"


def compared(project, ratios, *, as_studied=None, budget_s: float = 1e6, **options) -> tuple[int, str]:
    """Exit code and words of a comparison whose pairs say `ratios`; those of the step of a study the same, or `as_studied`."""
    of = {False: ratios, True: ratios if as_studied is None else as_studied}

    def groups(sides, rounds, device, as_studied):
        for ratio in of[as_studied]:
            yield np.exp([[0.0, ratio, ratio]] * rounds)

    said = Console(file=io.StringIO(), width=300)
    code = gate.compare("HEAD", said, budget_s=budget_s, project=project, time_groups=groups, **options)
    return code, said.file.getvalue()


@pytest.mark.parametrize(
    ("mean", "changed", "code", "word"),
    [(0.0, False, 0, "OK"), (0.1, False, 1, "REGRESSION"), (-0.1, False, 0, "IMPROVEMENT"), (0.0, True, 1, "OK")],
)
def test_exit_codes(project, compiler, monkeypatch, mean, changed, code, word):
    if changed:
        monkeypatch.setattr(counts, "count_all", lambda *_: {"bce": {"aten_ops": 2}})
        counts.file(project).parent.mkdir(parents=True)
        counts.file(project).write_text(json.dumps({counts.key(): {"bce": {"aten_ops": 1}}}))
    summary = project / "summary.md"
    exit_code, said = compared(project, scattered(mean, 0.05), markdown=summary)
    assert exit_code == code
    assert said.count(f"against HEAD: {word}") == 2
    assert summary.read_text().startswith(f"### Step time: {word}")
    assert ("harness bench counts" in summary.read_text()) == changed
    without, said = compared(project, scattered(mean, 0.05), with_counts=False)
    assert (without, "counts" in said) == (int(word == gate_rule.REGRESSION), False)


@pytest.mark.parametrize(("plain", "as_studied"), [(0.0, 0.1), (0.1, 0.0)])
def test_either_way_of_taking_the_step_can_fail(project, compiler, plain, as_studied):
    code, said = compared(project, scattered(plain, 0.05), as_studied=scattered(as_studied, 0.05))
    assert code == 1
    assert ("step by operations against HEAD: REGRESSION" in said) == (plain > 0)
    assert ("step of a study against HEAD: REGRESSION" in said) == (as_studied > 0)


def test_without_a_compiler_the_step_of_a_study_is_said_to_be_untimed(project, compiler):
    compiler.unlink()
    code, said = compared(project, scattered(0.0, 0.05))
    assert code == 0
    assert "NOT TIMED: no C compiler here" in said
    assert "step of a study against" not in said


def test_an_open_verdict_takes_more_pairs(project, compiler):
    wild = scattered(0.0, 0.3)
    code, said = compared(project, itertools.chain(wild, itertools.repeat(0.0)))
    assert code == 0
    assert "so far INCONCLUSIVE" in said
    assert "step of a study against HEAD: OK" in said


def test_an_open_verdict_fails_nothing_when_time_is_up(project, compiler):
    code, said = compared(project, [0.3, -0.3] * 12, budget_s=0)
    assert code == 0
    assert "INCONCLUSIVE" in said


def test_nothing_timed_is_no_verdict(project, compiler):
    with pytest.raises(MachineError, match="nothing to judge"):
        compared(project, [])
