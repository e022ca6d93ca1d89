"""The regression gate: counts against their file, the rule on known numbers, and nothing measured is never a pass."""

import io
import itertools
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy import stats

from harness import devices, paths
from harness.bench import counts, gate
from harness.errors import MachineError, UserError
from harness.models import objectives

EQUAL = np.zeros(24)


def scattered(mean: float, spread: float, n: int = 24) -> np.ndarray:
    """Numbers of exactly this mean and standard deviation."""
    x = stats.norm.ppf((np.arange(n) + 0.5) / n)
    return np.log1p(mean) + spread * x / x.std(ddof=1)


# -------------------------------------------------------------------------------- counts


def test_counts_are_those_on_record():
    before = counts.on_record().get(counts.key())
    if before is None:
        pytest.skip(f"{counts.file().name} has no entry for {counts.key()}; `harness bench counts --refresh` writes one")
    assert counts.changes(counts.count_all(), before) == [], "if meant: harness bench counts --refresh"


def test_one_more_operation_in_the_step_is_found(monkeypatch):
    before = counts.count("bce")
    assert counts.count("bce") == before
    plain = objectives.elbo
    monkeypatch.setitem(objectives.OBJECTIVES, "elbo", lambda p, beta, free_bits: plain(p, beta, free_bits) * 1.0)
    found = counts.changes({"bce": counts.count("bce")}, {"bce": before})
    assert any("aten_ops" in line for line in found)


def test_a_step_that_looks_at_a_value_breaks_its_graph(monkeypatch):
    plain = objectives.elbo
    monkeypatch.setitem(objectives.OBJECTIVES, "elbo", lambda p, beta, f: plain(p, beta, f) * float(p.log_px.mean() < 0))
    found = counts.count("bce")
    assert found["graph_breaks"] == 1
    assert "graph_ops" not in found


def test_bytes_are_counted_while_they_live():
    with counts.Meter() as meter:
        for _ in range(3):
            torch.zeros(1000)
        assert meter.peak == 4000
        kept = [torch.zeros(1000) for _ in range(3)]
        kept[0].add_(1).view(10, 100)
    assert meter.peak == 12000


def test_any_change_of_operations_counts_and_one_per_cent_of_memory():
    def changes(name, now):
        return counts.changes({"bce": {name: now}}, {"bce": {name: 1000}})

    assert changes("aten_ops", 1000) == changes("peak_bytes", 990) == changes("peak_bytes", 1010) == []
    assert changes("aten_ops", 1001) == ["bce: aten_ops 1,000 -> 1,001"]
    assert changes("peak_bytes", 989) == ["bce: peak_bytes 1,000 -> 989"]
    assert changes("peak_bytes", 1011) == ["bce: peak_bytes 1,000 -> 1,011"]
    assert counts.changes({}, {"bce": {"aten_ops": 1}}) == ["bce: aten_ops 1 -> none"]


def test_counts_without_an_entry_are_said_to_be_unchecked(monkeypatch, tmp_path):
    monkeypatch.setattr(counts, "file", lambda: tmp_path / "counts.json")
    monkeypatch.setattr(counts, "COUNTED", ("bce",))
    said = Console(file=io.StringIO(), width=200)
    assert not counts.report(said)
    assert "NOT CHECKED" in said.file.getvalue()
    counts.refresh()
    assert not counts.report(said)
    assert "unchanged" in said.file.getvalue()
    monkeypatch.setattr(counts, "count_all", lambda device: {"bce": {"aten_ops": 1}})
    assert counts.report(said)
    assert "CHANGED" in said.file.getvalue()
    assert "--refresh" in said.file.getvalue()


# -------------------------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("mean", "spread", "outcome"),
    [
        (0.10, 0.07, gate.REGRESSION),
        (0.05, 0.07, gate.REGRESSION),
        (0.03, 0.01, gate.REGRESSION),
        (0.02, 0.01, gate.OK),  # shown, but less than half of what is sought
        (0.0, 0.07, gate.OK),
        (-0.02, 0.03, gate.OK),
        (-0.10, 0.07, gate.IMPROVEMENT),
        (0.0, 0.20, gate.INCONCLUSIVE),
        (0.04, 0.20, gate.INCONCLUSIVE),
    ],
)
def test_verdict(mean, spread, outcome):
    found = gate.verdict(scattered(mean, spread), scattered(0, 0.05))
    assert found.outcome == outcome
    assert np.expm1(found.estimate) == pytest.approx(mean)


@pytest.mark.parametrize("drift", [0.06, -0.06])
@pytest.mark.parametrize("mean", [0.0, 0.1, -0.1])
def test_a_control_that_differs_voids_the_verdict(mean, drift):
    found = gate.verdict(scattered(mean, 0.05), scattered(drift, 0.05))
    assert found.outcome == gate.INCONCLUSIVE
    assert "unfit" in found.reason


@pytest.mark.parametrize("pairs", [0, 1, gate.FEWEST_PAIRS - 1])
def test_too_few_pairs_are_an_error(pairs):
    with pytest.raises(MachineError, match=f"{pairs} process pairs"):
        gate.verdict([0.0] * pairs, [0.0] * pairs)


# -------------------------------------------------------------------------------- timing


@pytest.mark.parametrize(
    "compiled",
    [False, pytest.param(True, marks=pytest.mark.skipif(not devices.compiler(torch.device("cpu")), reason="no compiler"))],
)
def test_more_steps_take_longer(compiled):
    groups = gate.time_groups([(paths.PROJECT, steps) for steps in (2, 8, 2)], rounds=8, compiled=compiled)
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


def test_calibration_counts_verdicts_of_both_kinds(monkeypatch):
    def groups(sides, rounds, compiled):
        base = sides[0][1]
        noise = itertools.cycle(scattered(0, 0.01))
        while True:
            yield np.array([[steps / base * np.exp(next(noise)) for _, steps in sides]] * rounds)

    monkeypatch.setattr(gate, "time_groups", groups)
    found = gate.calibrate(Console(file=io.StringIO()), verdicts=3)
    assert found == {"equal": {gate.OK: 3}, "planted": {gate.REGRESSION: 3}}


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
def project(tmp_path, monkeypatch) -> Path:
    """A repository of one commit that looks like the project."""
    folder = tmp_path / "project"
    (folder / "harness").mkdir(parents=True)
    (folder / "harness" / "cohort.py").write_text("")
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(paths, "PROJECT", folder)
    return folder


def worktrees(project: Path) -> int:
    listed = subprocess.run(["git", "-C", str(project), "worktree", "list"], check=True, capture_output=True, text=True)
    return len(listed.stdout.splitlines())


@pytest.mark.parametrize("fault", [KeyboardInterrupt, SystemExit, MachineError])
def test_the_worktree_goes_whatever_happens(project, fault):
    seen = []

    def interrupted() -> None:
        with gate.checkout("HEAD") as base:
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
        gate.compare(base, Console(file=io.StringIO()))
    assert caught.value.exit_code == 2
    assert "first" in str(caught.value)


def test_a_revision_without_a_cohort_is_a_users_slip(project):
    (project / "harness" / "cohort.py").unlink()
    subprocess.run(["git", "-C", str(project), "-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qam", "gone"], check=True)
    with pytest.raises(UserError, match="has no cohort to time"), gate.checkout("HEAD"):
        pass


def test_outside_a_checkout_there_is_no_base(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PROJECT", tmp_path)
    with pytest.raises(UserError, match="not a git checkout"), gate.checkout("HEAD"):
        pass


# -------------------------------------------------------------------------------- the whole


def compared(monkeypatch, ratios, *, compiled=None, changed: bool = False, budget_s: float = 1e6) -> tuple[int, str]:
    """Exit code and words of a comparison whose pairs say `ratios`; those of the compiled step the same, or `compiled`."""
    of = {False: ratios, True: ratios if compiled is None else compiled}

    def groups(sides, rounds, device, compiled):
        for ratio in of[compiled]:
            yield np.exp([[0.0, ratio, ratio]] * rounds)

    monkeypatch.setattr(gate, "time_groups", groups)
    monkeypatch.setattr(counts, "report", lambda console, device: changed)
    monkeypatch.setattr(devices, "compiler", lambda where: "g++")
    said = Console(file=io.StringIO(), width=300)
    return gate.compare("HEAD", said, budget_s=budget_s), said.file.getvalue()


@pytest.mark.parametrize(
    ("mean", "changed", "code", "word"),
    [(0.0, False, 0, "OK"), (0.1, False, 1, "REGRESSION"), (-0.1, False, 0, "IMPROVEMENT"), (0.0, True, 1, "OK")],
)
def test_exit_codes(project, monkeypatch, mean, changed, code, word):
    exit_code, said = compared(monkeypatch, scattered(mean, 0.05), changed=changed)
    assert exit_code == code
    assert said.count(word) == 2


@pytest.mark.parametrize(("plain", "compiled"), [(0.0, 0.1), (0.1, 0.0)])
def test_either_way_of_taking_the_step_can_fail(project, monkeypatch, plain, compiled):
    code, said = compared(monkeypatch, scattered(plain, 0.05), compiled=scattered(compiled, 0.05))
    assert code == 1
    assert ("step by operations against HEAD: REGRESSION" in said) == (plain > 0)
    assert ("compiled step against HEAD: REGRESSION" in said) == (compiled > 0)


def test_without_a_compiler_the_compiled_step_is_said_to_be_untimed(project, monkeypatch):
    compared(monkeypatch, scattered(0.0, 0.05))
    monkeypatch.setattr(devices, "compiler", lambda where: None)
    said = Console(file=io.StringIO(), width=300)
    assert gate.compare("HEAD", said) == 0
    assert "compiled step: NOT TIMED" in said.file.getvalue()
    assert "compiled step against" not in said.file.getvalue()


def test_an_open_verdict_takes_more_pairs(project, monkeypatch):
    wild = scattered(0.0, 0.3)
    code, said = compared(monkeypatch, itertools.chain(wild, itertools.repeat(0.0)))
    assert code == 0
    assert "so far INCONCLUSIVE" in said
    assert ": OK" in said.splitlines()[-1]


def test_an_open_verdict_fails_nothing_when_time_is_up(project, monkeypatch):
    code, said = compared(monkeypatch, [0.3, -0.3] * 12, budget_s=0)
    assert code == 0
    assert "INCONCLUSIVE" in said


def test_nothing_timed_is_no_verdict(project, monkeypatch):
    with pytest.raises(MachineError, match="nothing to judge"):
        compared(monkeypatch, [])
