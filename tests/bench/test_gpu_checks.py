"""The checks of a GPU, taken on a CPU at toy size: what is kept and taken again, what is judged, and that errors are found."""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import gpu_fake_steps
import pytest
import torch
from rich.console import Console

from harness import paths
from harness.bench.gpu import checks, parity, peers, record, steps, study, times
from harness.bench.gpu import options as options_of
from harness.bench.gpu import setting as settings
from harness.bench.gpu.record import DONE, FAILED, LEFT_OUT, TIMED_OUT, Results, Row
from harness.bench.gpu.setting import COMPILED, EAGER, GRAPH, Setting
from harness.errors import UserError


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    for name in ("out", "scratch"):
        (tmp_path / name).mkdir()
    return Setting("cpu", True, tmp_path / "out", tmp_path / "scratch")


def options(*arguments: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options_of.add(parser)
    return parser.parse_args(list(map(str, arguments)))


def checked(out: Path, *arguments: object) -> tuple[int, str]:
    """The exit code and the words of a run of the steps that are made for tests."""
    console = Console(file=io.StringIO(), width=200)
    code = checks.check(options("--out", out, "--toy", *arguments), console, gpu_fake_steps.STEPS, "gpu_fake_steps")
    return code, console.file.getvalue()


# -------------------------------------------------------------------------------- steps and what is kept of them


def test_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="for a CUDA GPU, got 'cpu'"):
        checks.check(options("--out", tmp_path, "--device", "cpu"), Console(file=io.StringIO()))


def test_an_unknown_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'parity'"):
        checks.check(options("--out", tmp_path, "--toy", "--only", "environment,party"), Console(file=io.StringIO()))


@pytest.mark.slow
def test_steps_that_fail_or_hang_end_no_other_and_are_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(paths.PROJECT), str(paths.PROJECT / "tests" / "helpers")]))
    code, said = checked(tmp_path, "--device", "cpu")
    steps = Results(tmp_path).steps
    assert code == 1
    assert {name: step.status for name, step in steps.items()} == {"hangs": TIMED_OUT, "fails": FAILED, "works": DONE}
    assert {name: list(step.cases) for name, step in steps.items()} == {
        "hangs": ["early"],
        "fails": ["before", "after"],
        "works": ["quick", "slow", "absent"],
    }
    assert steps["fails"].faults == {"broken": "RuntimeError: out of luck"}
    assert "to look at: hangs, fails, works" in said
    assert "MISSED works: slow: 1 s" in said
    assert "works: absent: not measured: needs a thing: not installed" in said
    assert "RuntimeError: out of luck" in (tmp_path / record.LOG).read_text()
    (tmp_path / "mended").touch()
    _, said = checked(tmp_path, "--device", "cpu")
    steps = Results(tmp_path).steps
    assert {step.status for step in steps.values()} == {DONE}
    assert not steps["fails"].faults
    assert "works: done on" in said
    taken = Counter((tmp_path / "taken").read_text().split())
    assert {name for name, times in taken.items() if times > 1} == {"broken", "endless"}
    page = (tmp_path / record.PAGE).read_text()
    assert page.startswith(f"## {steps['works'].card}\n")
    assert "| works | slow | 1 s |  | MISSED |" in page


def test_a_step_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    code, said = checked(tmp_path, "--device", "cpu", "--minutes", 0)
    assert code == 0
    assert {step.status for step in Results(tmp_path).steps.values()} == {LEFT_OUT}
    assert "works: LEFT OUT for time: it may take 300 s, 0 s were left" in said
    assert not (tmp_path / "taken").exists()


def test_a_rehearsal_does_not_stand_for_the_real_run(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for name, toy in (("hangs", True), ("works", False)):
        results.of(name).status, results.of(name).toy = DONE, toy
    results.save()
    _, said = checked(tmp_path, "--device", "cpu", "--minutes", 0)
    assert "hangs: done on" in said
    assert {name: step.status for name, step in Results(tmp_path).steps.items()} == {
        "hangs": DONE,
        "fails": LEFT_OUT,
        "works": LEFT_OUT,
    }


def test_what_a_killed_run_has_left_is_kept(tmp_path: Path) -> None:
    rows = tmp_path / record.ROWS
    record.note(rows, step="lanes", case="a", card="a card", rows=[Row("a", "1 us", "at most 2 us", True, 1.0)])
    record.note(rows, step="lanes", case="b", card="a card", fault="RuntimeError: no")
    with rows.open("a") as file:
        file.write('{"step": "lanes", "case": "c", "ro')
    for _ in range(2):
        lanes = Results(tmp_path).of("lanes")
        assert lanes.cases == {"a": [Row("a", "1 us", "at most 2 us", True, 1.0)]}
        assert lanes.faults == {"b": "RuntimeError: no"}
        assert lanes.status == FAILED
    assert [p.name for p in tmp_path.iterdir()] == [record.FILE]
    json.loads((tmp_path / record.FILE).read_text())


HIDDEN = """
import sys
for name in ("mlflow", "optuna", "sqlalchemy"):
    sys.modules[name] = None  # as where it is not installed
from itertools import islice
from pathlib import Path
from harness.bench.gpu import checks, steps
from harness.bench.gpu.setting import Setting
for step in steps.STEPS:
    if step.name in ("environment", "parity", "study_smoke", "resume"):
        first = steps.Step(step.name, "", 0, lambda setting: islice(step.cases(setting), 1))
        assert steps.take(first, Setting("cpu", True, Path(sys.argv[1]), Path(sys.argv[1])))
"""


def test_mlflow_optuna_and_sqlalchemy_are_for_studies_only(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", HIDDEN, str(tmp_path)], check=True, cwd=paths.PROJECT)
    steps = Results(tmp_path).steps
    assert steps["parity"].rows[0].ok
    for name in ("study_smoke", "resume"):
        assert [row.value for row in steps[name].rows] == ["not measured: needs mlflow, optuna, sqlalchemy: not installed"]


def test_names_of_steps_are_unique_and_ten_minutes_hold_the_first() -> None:
    names = [step.name for step in steps.STEPS]
    assert len(set(names)) == len(names)
    assert sum(step.timeout_s for step in steps.STEPS[:4]) < 600


# -------------------------------------------------------------------------------- what is judged


def test_times_are_held_against_goals(tmp_path: Path) -> None:
    real, toy = (Setting("cpu", toy, tmp_path, tmp_path) for toy in (False, True))
    assert real.judged("one", 0.12, "ms", 0.12) == Row("one", "0.120 ms", "at most 0.12 ms", True)
    assert real.judged("one", 0.121, "ms", 0.12, "more").ok is False
    assert toy.judged("one", 9.0, "ms", 0.12).ok is None
    assert {key[0] for key in times.GOALS_US} == {64}
    assert set(times.GOALS_US) <= set(times.FIRST)
    assert {lanes for lanes, *_ in times.FIRST + times.REST} == {2**i for i in range(9)}


def test_the_worst_of_rows_with_one_goal_is_said(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.of("parity").status = DONE
    results.of("parity").cases = {"x": [Row(n, str(v), "at most 2", v <= 2, v) for n, v in (("a", 1.0), ("b", 3.0))]}
    assert list(record.lines(results, {"parity": "", "lanes": ""})) == [
        "ok     parity: a: 1.0  (goal at most 2)",
        "MISSED parity: b: 3.0  (goal at most 2)",
        "MISSED parity: worst of 2: b: 3.0  (goal at most 2)",
    ]


def test_a_call_is_timed_after_warming_up_over_enough_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = 0.0, 0

    def run() -> None:
        nonlocal now, calls
        calls += 1
        now += 1.0 if calls == 1 else 0.125 if now < 2.0 else 0.0625  # the first calls are slow

    monkeypatch.setattr(settings, "perf_counter", lambda: now)
    assert settings.seconds_per_call(run, torch.device("cpu"), 1.5, 4.0) == 0.0625
    assert now >= 1.5 + 4.0


# -------------------------------------------------------------------------------- what is measured


def test_steps_agree_with_the_oracle(setting: Setting) -> None:
    cases = dict(parity.oracle_cases(setting))
    rows = [*cases["gaussian_per_pixel"](), *cases["activations"]()]
    assert len(rows) == 12
    assert all(row.ok for row in rows), rows


def test_a_launch_that_does_nothing_is_found(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "again", lambda bound: lambda: None)
    assert [row.ok for row in parity.against_oracle(setting, [setting.base], ["bce"])] == [False]


def test_an_oracle_leaves_the_cohort_as_it_is(setting: Setting) -> None:
    cohort = settings.cohort_of(setting, setting.lanes(2), GRAPH)
    bound = settings.ready(cohort)
    before = [t.clone() for t in (*cohort.params, *(t for group in cohort.state.slots.values() for t in group))]
    parity.oracle(cohort, bound.chunk, 2)
    after = (*cohort.params, *(t for group in cohort.state.slots.values() for t in group))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert {t.dtype for t in after} == {torch.float32}


@pytest.mark.slow
def test_trials_of_one_program_are_judged_one_by_one(setting: Setting) -> None:
    specs = [setting.base.derive(likelihood=name) for name in ("bce", "mse")]
    rows = parity.fused(setting, [*specs, setting.base.derive(seed=1, learning_rate=1e9)], GRAPH, {})
    assert [row.ok for row in rows] == [True, True, False]
    assert "not finite" in rows[2].value


def test_an_eager_cohort_has_no_program_to_measure(setting: Setting) -> None:
    with pytest.raises(RuntimeError, match="by single operations"):
        settings.ready(settings.cohort_of(setting, setting.lanes(1), EAGER))


def test_lanes_are_timed_per_trial_step(setting: Setting) -> None:
    (row,) = times.lane_times(setting, 2, "fp32", GRAPH)
    assert row.name == "2 lanes, fp32, graph"
    assert "us per trial-step; with order and noise drawn" in row.value
    assert row.mark == "-"


@pytest.mark.slow
def test_one_lane_compiles_once(setting: Setting) -> None:
    rows = {row.name: row for row in times.one_lane(setting, COMPILED)}
    assert rows["compiles"].value == "1"
    assert rows["compiled: one trial"].goal == "at most 0.12 ms a step"


@pytest.mark.slow
def test_every_compile_counts() -> None:
    with times.counted_compiles() as compiles:
        program = torch.compile(lambda x: x @ x, dynamic=False)  # a product takes no C++ compiler
        for size in (2, 3, 2):
            program(torch.zeros(size, size))
    assert len(compiles) == 2


@pytest.mark.slow
@pytest.mark.parametrize("build", [peers.compiled, peers.captured])
def test_peers_train(build, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    variant = peers.LOOP_VARIANTS[peers.GOOD]
    (row,) = peers.loop(setting, "a peer", build)
    assert "us per trial-step; ready in" in row.value
    model = peers.ReferenceModel(logits=True)
    monkeypatch.setattr(peers, "ReferenceModel", lambda logits: model)
    step, images = build(torch.device("cpu")), peers._images(torch.device("cpu"))
    for i in range(40):
        step(torch.arange(128) + 128 * i)
        losses.append(variant.loss(model, images[:128]).item())
    assert losses[-1] < 0.7 * losses[0]


# -------------------------------------------------------------------------------- studies


def test_scores_are_compared_by_trial() -> None:
    alone = {"a": {"test/elbo": -100.0, "test/accuracy": 0.5, "perf/train_s": 9.0}, "b": {"test/elbo": -100.0}}
    same = {"a": alone["a"] | {"perf/train_s": 1.0}, "b": {"test/elbo": -100.05}}
    elbo, worst = study.compared(alone, same, "killed at 3")
    assert elbo.ok
    assert elbo.value == "5.0e-04 apart; killed at 3"
    assert worst.value == "5.0e-04 apart at most, by test/elbo"
    assert study.compared(alone, same | {"b": {"test/elbo": -101.0}}, "")[0].ok is False
    assert study.compared(alone, {"a": alone["a"]}, "")[0].ok is False


@pytest.mark.slow
def test_an_arm_that_is_killed_goes_on(setting: Setting, mlflow_template: Path) -> None:
    for home in ("alone", "killed"):
        (setting.scratch / home / "mlruns").mkdir(parents=True)
        shutil.copy(mlflow_template, setting.scratch / home / "mlruns" / "mlflow.db")
    elbo, every = study.killed_once(setting)
    assert elbo.ok, elbo
    assert "killed after the checkpoint of epoch" in elbo.value
    assert every.value.startswith("0.0e+00 apart")  # bitwise on a CPU


@pytest.mark.parametrize(("most", "files"), [(10**6, ["mlruns/a.db", "mlruns/reports/s/report.html"]), (10**4, ["mlruns/a.db"])])
def test_an_archive_that_is_too_large_holds_the_databases(
    most: int, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "mlruns" / "reports" / "s" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_bytes(os.urandom(10**5))
    (tmp_path / "mlruns" / "a.db").write_bytes(bytes(10**5))
    monkeypatch.setattr(study, "ARCHIVE_BYTES", most)
    row = study._archive(tmp_path, tmp_path / "study.tar.gz")
    with tarfile.open(tmp_path / "study.tar.gz") as archive:
        assert archive.getnames() == files
    assert row.value.startswith(f"study.tar.gz: {len(files)} files")


def test_nothing_is_archived_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "a.db").write_bytes(os.urandom(10**5))
    monkeypatch.setattr(study, "ARCHIVE_BYTES", 10**4)
    assert study._archive(tmp_path, tmp_path / "study.tar.gz").value.startswith("left out")
    assert not (tmp_path / "study.tar.gz").exists()
