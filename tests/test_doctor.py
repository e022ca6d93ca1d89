"""The doctor complains of what is wrong, of nothing else, and changes nothing on record."""

import hashlib
import io
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness import cli, paths
from harness.doctor import Finding, diagnose, examination, examine, show
from harness.doctor.rules import RULES, Case
from harness.errors import MachineError, UserError
from harness.scores.soundness import SIGNS
from harness.spec import Result, TrialSpec
from harness.study import SCORES, Ablation, Budget, Hypothesis, LoadedStudy, load_study
from harness.tracking import MlflowTracker, Record, on_record

HEALTHY = {
    "test/kl": 6.5,
    "test/active_units": 2.0,
    "test/iw_effective_samples": 40.0,
    "validation/dead_units": 0.0,
    "test/exact_resolution": 0.001,
    "diagnostics/nan_count": 0.0,
    "diagnostics/scale_at_floor": 0.0,
    "diagnostics/effective_beta": 1.0,
    "diagnostics/late_gain": 0.1,
    "diagnostics/lost_elbo": 0.0,
    "diagnostics/over_histogram": -0.5,
    "test/exact_resolved": 1.0,
}
TAGS = {"device": "a CPU", "features.sha256": "f" * 64, "git.commit": "c" * 12, "git.dirty": "false"}
STUDY = Ablation(
    base=TrialSpec(dataset="digits"),
    arms={"shared": {"likelihood": "gaussian_shared"}, "mse": {"likelihood": "mse"}},
    budgets={"default": Budget(epochs=2, seeds=range(6))},
    hypotheses=(Hypothesis(better="shared", worse="mse", metric="test/squared_error"),),
)


def findings(
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
    *,
    study: Ablation = STUDY,
    bad: int = 3,
    finished: int = 6,
    failures: Mapping[str, str] | None = None,
    whole: Collection[str] = (),
) -> list[Finding]:
    """Of a study in which the first seeds of the arm `mse` have other scores or tags, and only the first seeds finished."""
    cells = study.cells("default")
    records = {}
    for c in cells:
        odd = c.arm == "mse" and c.seed < bad
        if c.seed < finished:
            records[c.spec.id] = Record(
                "run", HEALTHY | (metrics if odd and metrics else {}), TAGS | (tags if odd and tags else {})
            )
    return diagnose(study, "a_study", "default", cells, records, failures, whole=whole)


def test_healthy_runs_get_no_complaint() -> None:
    assert findings() == []


@pytest.mark.parametrize(
    ("metric", "well", "ill", "severity", "words"),
    [
        ("test/kl", 0.11, 0.09, "wrong", "3 of 6 seeds: posterior collapse, KL below 0.1 nats: 0.09"),
        ("test/active_units", 1, 0, "wrong", "3 of 6 seeds: posterior collapse, no active unit: 0"),
        ("diagnostics/nan_count", 0, 2, "wrong", "3 of 6 seeds: weights that are not finite: 2"),
        ("diagnostics/scale_at_floor", 0.009, 0.02, "careful", "3 of 6 seeds: sigma on its floor (share of pixels): 0.02"),
        ("diagnostics/effective_beta", 1.45, 26.0, "careful", "3 of 6 seeds: effective beta away from 1: 26"),
        ("diagnostics/effective_beta", 0.7, 0.5, "careful", "3 of 6 seeds: effective beta away from 1: 0.5"),
        ("test/iw_effective_samples", 10, 9, "careful", "3 of 6 seeds: few effective importance samples: 9"),
        ("diagnostics/late_gain", 0.5, 0.6, "careful", "not converged, ELBO gained over the last fifth of the epochs (nats): 0.6"),
        ("diagnostics/late_gain", -0.5, -0.6, "careful", "overfitting, ELBO of validation lost over the last fifth"),
        ("test/exact_resolved", 1, 0, "careful", "3 of 6 seeds: exact likelihood not resolved and left out"),
        (
            "diagnostics/lost_elbo",
            0.5,
            23.0,
            "wrong",
            "3 of 6 seeds diverged: worse than an untrained model: ELBO lost since the start",
        ),
        (
            "diagnostics/over_histogram",
            1.0,
            57.0,
            "wrong",
            "3 of 6 seeds diverged: codes cost more than they save: common head above",
        ),
        ("test/exact_resolution", 0.01, 0.02, "careful", "difference to cells twice as wide (nats): 0.02"),
        ("validation/dead_units", 0.05, 0.06, "careful", "3 of 6 seeds: dead hidden units (share): 0.06"),
    ],
)
def test_a_score_that_tells_of_trouble(metric: str, well: float, ill: float, severity: str, words: str) -> None:
    assert findings({metric: well}) == []
    (found,) = findings({metric: ill})
    assert (found.severity, found.arm) == (severity, "mse")
    assert words in found.what
    assert found.advice


def test_every_rule_is_tried_above_and_its_advice_names_scores_that_exist() -> None:
    assert {s.score.key for s in (*RULES, *SIGNS)} == HEALTHY.keys()
    case = Case(spec=TrialSpec(dataset="digits"), others={}, longer="take more epochs")
    named = {name for rule in RULES for name in re.findall(r"(?:test|validation)/\w+", rule.advice(case))}
    assert named <= SCORES.keys()


def test_only_scores_on_record_are_recommended() -> None:
    """Where quadrature ran out of its budget, the exact likelihood is left out."""
    loose = {"test/iw_effective_samples": 9.0}
    (found,) = findings(loose, bad=6)
    assert "take test/exact_log_px" not in found.advice
    (found,) = findings(loose | {"test/exact_log_px": -100.0}, bad=6)
    assert "take test/exact_log_px" in found.advice


def test_one_epoch_is_not_called_a_collapse() -> None:
    study = replace(STUDY, budgets={"default": Budget(epochs=1, seeds=range(6))})
    (found,) = findings({"test/kl": 0.04, "test/active_units": 0.0}, study=study)
    assert (found.severity, found.what[:36]) == ("careful", "3 of 6 seeds: the code is not used y")
    assert "too few steps" in found.advice


def test_scores_of_several_seeds_are_one_complaint_with_their_range() -> None:
    cells = STUDY.cells("default")
    records = {c.spec.id: Record("run", HEALTHY | {"test/kl": 0.01 * (1 + c.seed)}, TAGS) for c in cells}
    found = diagnose(STUDY, "a_study", "default", cells, records)
    assert [(c.arm, c.what) for c in found] == [
        (arm, "6 of 6 seeds: posterior collapse, KL below 0.1 nats: 0.01 to 0.06") for arm in ("shared", "mse")
    ]


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    assert on_record("loss_ablation", "default") == ({}, {})
    assert not other.exists()


def test_older_runs_without_a_score_or_tag_are_passed_over() -> None:
    cells = STUDY.cells("default")
    assert diagnose(STUDY, "a_study", "default", cells, {c.spec.id: Record("run", {}, {}) for c in cells}) == []


def with_mse(**changes: object) -> Ablation:
    return replace(STUDY, arms=STUDY.arms | {"mse": {"likelihood": "mse", **changes}})


def test_a_beta_on_purpose_is_said_and_its_effect_not_judged() -> None:
    (found,) = findings({"diagnostics/effective_beta": 4.0}, study=with_mse(beta=4.0))
    assert (found.severity, found.arm) == ("note", "mse")
    assert "beta is 4 on purpose" in found.what


@pytest.mark.parametrize(("patience", "advised"), [(0, False), (5, True)])
def test_a_trial_that_patience_may_have_ended_is_given_more_of_it(patience: int, advised: bool) -> None:
    (found,) = findings({"diagnostics/late_gain": 0.6}, study=with_mse(patience=patience))
    assert found.what.startswith("3 of 6 seeds: not converged")
    assert ("longer patience" in found.advice) is advised
    assert "more epochs" in found.advice


def test_a_pseudo_likelihood_is_named() -> None:
    study = replace(STUDY, arms=STUDY.arms | {"bce": {"likelihood": "bce"}})
    (found,) = findings(study=study)
    assert (found.severity, found.arm) == ("note", "bce")
    assert "pseudo-likelihood" in found.what


def test_few_seeds_for_a_claim() -> None:
    found = findings(finished=5)
    assert [(c.severity, c.arm, c.what) for c in found] == [("careful", arm, "5 of 6 seeds finished") for arm in ("shared", "mse")]
    assert findings(finished=5, study=replace(STUDY, hypotheses=())) == []


@pytest.mark.parametrize(("seeds", "claims", "enough"), [(5, 1, False), (6, 1, True), (6, 6, True), (5, 3, False)])
def test_fewer_seeds_than_could_show_anything(seeds: int, claims: int, enough: bool) -> None:
    metrics = [
        s.key for s in STUDY.scores.values() if s.better and s.images == "test" and s.tier in "CD" and "exact" not in s.needs
    ]
    hypotheses = tuple(replace(STUDY.hypotheses[0], metric=metric) for metric in metrics[:claims])
    study = replace(STUDY, hypotheses=hypotheses, budgets={"default": Budget(epochs=2, seeds=range(seeds))})
    hopeless = [c for c in findings(study=study) if c.arm is None]
    assert [c.severity for c in hopeless] == ([] if enough else ["careful"])
    assert all(f"{seeds} seeds would show" in c.what and "looks that nobody planned" in c.advice for c in hopeless)


def test_a_winner_chosen_on_the_test_set() -> None:
    (found,) = findings(study=replace(STUDY, objective="test/squared_error"))
    assert (found.severity, found.arm) == ("wrong", None)
    assert "test set" in found.what


def test_a_divergence_comes_first_whatever_else_is_wrong() -> None:
    found = findings({"diagnostics/lost_elbo": 23.0, "test/kl": 0.0, "test/active_units": 0.0}, {"features.sha256": "e" * 64})
    assert [c.severity for c in found] == ["wrong"] * 4
    assert "diverged" in found[0].what


def test_a_warm_up_that_a_short_budget_does_not_finish_is_said() -> None:
    budgets = {"default": Budget(epochs=5, seeds=range(6)), "smoke": Budget(epochs=1, seeds=range(6))}
    slow = {"mse": {"likelihood": "mse", "kl_warmup": 5.0, "learning_rate_warmup": 3.0}}
    study = replace(STUDY, arms=STUDY.arms | slow, budgets=budgets)
    cells = study.cells("smoke")
    found = diagnose(study, "a_study", "smoke", cells, {c.spec.id: Record("run", HEALTHY, TAGS) for c in cells})
    assert [(c.severity, c.arm, c.what) for c in found] == [
        ("careful", "mse", "kl_warmup=5 takes longer than the 1 epoch of training"),
        ("careful", "mse", "learning_rate_warmup=3 takes longer than the 1 epoch of training"),
    ]


BUDGETS = {"default": Budget(epochs=2, seeds=range(2)), "full": Budget(epochs=9, seeds=range(6))}


@pytest.mark.parametrize(
    ("whole", "epochs", "seeds"),
    [
        ((), "run the full budget, with 9 epochs: make study NAME=a_study", "run the full budget, with 6 seeds: make study"),
        (
            ("full",),
            "read the full budget, which is on record with 9 epochs",
            "on record with 6 seeds",
        ),
    ],
)
def test_a_larger_budget_is_advised_until_it_is_on_record(whole: tuple[str, ...], epochs: str, seeds: str) -> None:
    found = findings({"diagnostics/late_gain": 0.6}, study=replace(STUDY, budgets=BUDGETS), whole=whole)
    advice = {c.what.partition(":")[0]: c.advice for c in found}
    assert len(advice) == 2
    assert advice["2 of 2 seeds"].startswith(epochs)
    assert seeds in advice["2 seeds would show no difference at all, for 1 hypothesis (80 % power)"]


def test_without_a_larger_budget_more_is_to_be_stated() -> None:
    (found,) = findings({"diagnostics/late_gain": 0.6})
    assert found.advice.startswith("give the study more epochs")


@pytest.mark.parametrize(
    ("metric", "value", "changes", "said", "not_said"),
    [
        ("test/kl", 0.0, {}, "warm the KL up (kl_warmup)", "for longer"),
        (
            "test/kl",
            0.0,
            {"kl_warmup": 1.0, "free_bits": 0.1},
            "up for longer (kl_warmup) or allow it more nats",
            "some nats",
        ),
        ("diagnostics/lost_elbo", 9.0, {}, "warm it up (learning_rate_warmup)", "for longer"),
        (
            "diagnostics/lost_elbo",
            9.0,
            {"clip_norm": 1.0, "learning_rate_warmup": 1.0},
            "warm it up for longer",
            "clip the gradients (",
        ),
        ("diagnostics/effective_beta", 9.0, {}, "compare it with shared, which learns sigma", "learn sigma (gaussian_shared)"),
        ("test/iw_effective_samples", 1.0, {"latent": 9}, "more draws, with evaluation full or thorough", "exact_log_px"),
        ("validation/dead_units", 0.5, {"activation": "relu"}, "as shared does", "(elu)"),
        ("validation/dead_units", 0.5, {"activation": "elu"}, "lower the learning rate", "activation"),
    ],
)
def test_nothing_is_advised_that_is_done(metric: str, value: float, changes: dict, said: str, not_said: str) -> None:
    (found,) = findings({metric: value}, study=with_mse(**changes))
    assert said in found.advice
    assert not_said not in found.advice


def test_the_deepest_evaluation_is_not_told_to_go_deeper() -> None:
    budgets = {"default": Budget(epochs=2, seeds=range(6), evaluation="thorough")}
    study = replace(with_mse(latent=9), budgets=budgets)
    (found,) = findings({"test/iw_effective_samples": 1.0}, study=study)
    assert found.advice.endswith("quote it as a bound")


def test_the_best_epoch_is_not_advised_to_those_that_keep_it() -> None:
    assert findings({"diagnostics/late_gain": -0.6}, study=with_mse(patience=3)) == []


def test_failures_come_with_their_reasons() -> None:
    ids = [c.spec.id for c in STUDY.cells("default") if c.arm == "mse" and c.seed >= 3]
    failures = dict(zip(ids, ["loss is not finite\nmore of it", "loss is not finite", "worker lost"], strict=True))
    found = findings(failures=failures)
    assert [(c.severity, c.arm, c.what) for c in found] == [
        ("wrong", "mse", "2 of 6 seeds failed: loss is not finite"),
        ("wrong", "mse", "1 of 6 seeds failed: worker lost"),
    ]


@pytest.mark.parametrize(
    ("tags", "severity", "words"),
    [
        ({"features.sha256": "e" * 64}, "wrong", "2 feature extractors: eeeeeeeeeeee, ffffffffffff"),
        ({"device": "a GPU"}, "note", "2 devices: a CPU, a GPU"),
        ({"git.commit": "d" * 12}, "note", "2 states of the code: cccccccccccc, dddddddddddd"),
        ({"git.dirty": "true"}, "note", "2 states of the code: cccccccccccc, cccccccccccc+dirty"),
    ],
)
def test_runs_of_one_study_that_differ_in_origin(tags: dict[str, str], severity: str, words: str) -> None:
    (found,) = findings(tags=tags)
    assert (found.severity, found.arm, found.what) == (severity, None, words)


def test_one_commit_with_changed_files_is_no_code_to_go_back_to() -> None:
    cells = STUDY.cells("default")
    (found,) = diagnose(
        STUDY, "a_study", "default", cells, {c.spec.id: Record("run", HEALTHY, TAGS | {"git.dirty": "true"}) for c in cells}
    )
    assert found.what == "changed files: cccccccccccc+dirty"


def test_complaints_are_shown_wrong_first_on_80_columns_with_arms_of_one_trouble_together() -> None:
    screen = io.StringIO()
    found = findings({"test/kl": 0.0, "diagnostics/late_gain": 2.0}, {"device": "a [GPU]"}, finished=5)
    assert list(dict.fromkeys(c.severity for c in found)) == ["wrong", "careful", "note"]
    show(found, Console(file=screen, width=80))
    lines = screen.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [line for line in lines if not line.startswith(" ")] == [
        "Do now: these numbers do not mean what they claim",
        "Look at: right numbers, easily misread",
        "Good to know",
    ]
    assert "  shared, mse: 5 of 6 seeds finished" in lines
    assert "  2 devices: a CPU, a [GPU]" in lines


def state_of(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


SMOKE = load_study("activation_ablation").cells("smoke")


@pytest.fixture
def recorded(mlflow_store: Path, tmp_path: Path) -> MlflowTracker:
    """The smoke budget of a real study: one arm finished, after a failure; one failed; one failed and under way; one cut off."""
    tracker = MlflowTracker("activation_ablation", "smoke", "a note")
    (tmp_path / "files").mkdir()
    done, failed, again, stopped = SMOKE
    runs = {}
    for trial, cell in enumerate([done, done, failed, again, again, stopped]):
        runs[trial] = tracker.begin(cell.spec, cell.arm, trial, 1, {"dataset.digest": "d", **TAGS})
    tracker.fail(runs[0], "worker lost")
    tracker.finish(runs[1], Result(done.spec, HEALTHY | {"validation/dead_units": 0.25}), tmp_path / "files")
    tracker.fail(runs[2], "loss is not finite")
    tracker.fail(runs[3], "worker lost")
    tracker.fail(runs[5], "stopped", killed=True)
    return tracker


def test_what_is_on_record_is_read_and_left_as_it_is(
    recorded: MlflowTracker, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state_of(home)
    assert cli.main(["doctor", "activation_ablation", "--budget", "smoke"]) == 1
    said = capsys.readouterr().out
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out == said
    assert cli.main(["doctor", "--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)["studies"]
    assert (told["study"], told["budget"], told["finished"], told["planned"]) == ("activation_ablation", "smoke", 1, 4)
    assert told["findings"][0] == {
        "group": "do now",
        "severity": "wrong",
        "arm": "relu lr=3e-4",
        "what": "1 of 1 seed failed: loss is not finite",
        "advice": "what is left is a selection of seeds: mend the cause, then make study NAME=activation_ablation BUDGET=smoke",
    }
    assert state_of(home) == before
    said = " ".join(said.split())
    assert said.startswith(
        "1 of 4 trials of activation_ablation (smoke budget): Do now: these numbers do not mean what they claim "
        "relu lr=3e-4: 1 of 1 seed failed: loss is not"
    )
    assert "elu lr=3e-4: 1 of 1 seed: dead hidden units (share): 0.25" in said
    assert said.count("seed failed") == 1
    assert "1 seed would show no difference at all, for 4 hypotheses" in said


def test_a_clean_study_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    records = {c.spec.id: Record("run", HEALTHY, TAGS) for c in STUDY.cells("default")} | {
        "of an older plan": Record("run", {}, {})
    }
    loaded = LoadedStudy(
        name="a_study", reference="a_study", question="Is it so?", study=STUDY, path=Path("a_study.py"), source=b""
    )
    monkeypatch.setattr(examination, "load", lambda _: loaded)
    monkeypatch.setattr(examination, "experiments", lambda: {"a_study"})
    monkeypatch.setattr(examination, "on_record", lambda *_: (records, {"of an older plan": "why"}))
    screen = io.StringIO()
    assert examine("a_study", None, Console(file=screen, width=80)) == 0
    assert screen.getvalue() == "nothing to complain about: 12 trials of a_study (default budget)\n"


def test_studies_and_budgets_without_runs_are_not_asked_for(recorded: MlflowTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are dozens of them, at several requests each."""
    asked: list[tuple[str, ...]] = []
    for name, function in {"load": examination.load, "on_record": on_record}.items():
        monkeypatch.setattr(examination, name, lambda *words, call=function: asked.append(words) or call(*words))
    examine("", None, Console(file=io.StringIO()))
    assert asked == [("activation_ablation",), ("activation_ablation", "smoke")]


def test_nothing_of_this_budget_on_record_says_what_to_run(recorded: MlflowTracker) -> None:
    with pytest.raises(UserError, match=r"make study NAME=activation_ablation BUDGET=default\non record: smoke \(BUDGET=smoke\)"):
        examine("activation_ablation", None, Console(file=io.StringIO()))
    with pytest.raises(UserError, match=r"\(full budget\) is on record\nmake study NAME=\.\.\."):
        examine("", "full", Console(file=io.StringIO()))


def test_a_store_that_does_not_answer_is_told_without_a_traceback(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MachineError, match=r"cannot read the tracking store http://127\.0\.0\.1:9"):
        examine("activation_ablation", "smoke", Console(file=io.StringIO()))
    assert not paths.mlruns().exists()
