from collections import Counter
from pathlib import Path

import pytest

from harness import paths, study
from harness.errors import UserError
from harness.spec import TrialSpec
from harness.study import SCORES, Ablation, Budget, Hypothesis

ABLATIONS = [n for n in study.names() if isinstance(study.load_study(n), Ablation)]

HEAD = '''"""Is it so?"""
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of studies that a test may fill."""
    monkeypatch.setattr(paths, "studies", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ablation(**changes: object) -> Ablation:
    values = {
        "base": TrialSpec(dataset="digits", ema_decay=0.5),
        "arms": {"bce": {}, "mse": {"likelihood": "mse"}, "wide": {"latent": 8}},
        "budgets": {"default": Budget(epochs=2, seeds=range(3))},
    }
    return Ablation(**(values | changes))


@pytest.mark.parametrize("name", study.names())
def test_every_study_loads_and_asks(name: str) -> None:
    found = study.load_study(name)
    question = study.load(name).question
    assert question.rstrip().endswith(("?", "."))
    assert "?" in question
    assert {"smoke", "default"} <= set(found.budgets)


def test_there_are_studies() -> None:
    assert "loss_ablation" in study.names()


@pytest.mark.parametrize(("name", "budget"), [(n, b) for n in ABLATIONS for b in study.load_study(n).budgets])
def test_the_plan_holds_every_arm_and_seed_once(name: str, budget: str) -> None:
    found = study.load_study(name)
    cells = found.cells(budget)
    chosen = found.budgets[budget]
    assert [(c.seed, c.arm) for c in cells] == [(s, a) for s in chosen.seeds for a in found.arms]  # seed by seed
    assert len({c.spec.id for c in cells}) == len(cells)
    assert all(c.spec.seed == c.seed and c.spec.epochs == chosen.epochs for c in cells)


def test_an_arm_is_the_base_but_for_what_it_changes() -> None:
    plan = ablation()
    for cell in plan.cells("default"):
        assert cell.spec == plan.base.derive(**plan.arms[cell.arm], seed=cell.seed, epochs=2)


def test_an_unknown_study_suggests_the_nearest(folder: Path) -> None:
    (folder / "loss_ablation.py").write_text(HEAD)
    (folder / "_hidden.py").write_text("")
    with pytest.raises(UserError, match="unknown study 'los_ablation'; did you mean 'loss_ablation'") as fault:
        study.load_study("los_ablation")
    assert str(fault.value).endswith("known: loss_ablation\ntheir questions: harness list")
    assert study.names() == ["loss_ablation"]


def test_an_empty_folder_is_no_crash(folder: Path) -> None:
    assert study.questions() == ""
    with pytest.raises(UserError, match="unknown study 'x'"):
        study.load_study("x")


def test_a_syntax_error_is_named_by_line(folder: Path) -> None:
    (folder / "broken.py").write_text(HEAD + "x = 1\nSTUDY = Ablation(base=)\n")
    with pytest.raises(UserError, match=r"broken\.py:5:\d+: .*\n +STUDY = Ablation\(base=\)"):
        study.load_study("broken")
    assert "line 5" in study.questions()


FAULTS = {
    "arm_field": (
        "budgets = {'default': Budget(epochs=1, seeds=(0,))}; arms = {'a': {'lerning_rate': 1}}\n"
        "STUDY = Ablation(base=TrialSpec(), arms=arms, budgets=budgets)",
        r":5: arm 'a': unknown field of a trial 'lerning_rate'; did you mean 'learning_rate'",
    ),
    "arm_value": (
        "budgets = {'default': Budget(epochs=1, seeds=(0,))}; arms = {'a': {'activation': 'rleu'}}\n"
        "STUDY = Ablation(base=TrialSpec(), arms=arms, budgets=budgets)",
        r":5: arm 'a': unknown activation 'rleu'; did you mean 'relu'",
    ),
    "name": ("STUDY = Ablashun()", r":4: NameError: name 'Ablashun' is not defined"),
    "crash": ("x = 1\nSTUDY = {}['no']", r":5: KeyError: 'no'"),
    "nothing": ("x = 1", r"sets no STUDY; write STUDY = Ablation\(\.\.\.\) or STUDY = Search"),
    "class": ("from harness import Ablation\nSTUDY = Ablation", r"STUDY must be an Ablation or a Search, got the class Ablation"),
    "other": ("STUDY = 3", r"STUDY must be an Ablation or a Search, got int"),
    "module": ("import no_such_module", r":4: ModuleNotFoundError: No module named 'no_such_module'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_study_is_named_by_file_and_line(name: str, folder: Path) -> None:
    text, message = FAULTS[name]
    (folder / f"{name}.py").write_text(HEAD + text + "\n")
    with pytest.raises(UserError, match=message) as fault:
        study.load_study(name)
    assert str(folder / f"{name}.py") in str(fault.value)
    assert f"{name}  Is it so?" in study.questions()  # read without running it


def test_a_budget_without_a_look_at_the_test_set_is_refused(folder: Path) -> None:
    budgets = "{'default': Budget(epochs=1, seeds=[0], evaluation='validation')}"
    (folder / "untested.py").write_text(HEAD + f"STUDY = Ablation(base=TrialSpec(), arms={{'a': {{}}}}, budgets={budgets})\n")
    with pytest.raises(UserError, match="evaluation='validation' leaves nothing to report"):
        study.check("untested", "default")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {}}, "at least one arm"),
        ({"budgets": {"smoke": Budget(epochs=1, seeds=[0])}}, "default"),
        ({"budgets": {"default": Budget(epochs=1, seeds=[])}}, "budget 'default': seeds must be given"),
        ({"budgets": {"default": Budget(epochs=1, seeds=[0, 0])}}, r"differ, such as range\(3\); got \[0, 0\]"),
        ({"budgets": {"default": Budget(epochs=0, seeds=[0])}}, "epochs"),
        ({"arms": {"a": {}, "b": {}}}, "arms 'a' and 'b' are the same trial"),
        ({"arms": {"a": {}, "b": {"seed": 4}}}, "arm 'b': a budget sets the seed, for all arms alike"),
        ({"arms": {"a": {}, "b": {"latent": 3, "epochs": 9}}}, "arm 'b': a budget sets the epochs"),
        ({"objective": "validation/sqared_error"}, "did you mean 'validation/squared_error'"),
        ({"hypotheses": (Hypothesis(better="bce", worse="mze", metric="test/ssim"),)}, "unknown arm 'mze'; did you mean 'mse'"),
        (
            {"hypotheses": (Hypothesis(better="bce", worse="mse", metric="test/sim"),)},
            "unknown score 'test/sim'; did you mean 'test/ssim'",
        ),
        ({"hypotheses": (Hypothesis(better="bce", worse="wide", metric="test/kl"),)}, "no better or worse"),
        (
            {"arms": {"bce": {}, "late": {"fit_on": "train+validation"}}},
            "arm 'late', budget 'default': objective 'validation/squared_error' takes validation images that were not trained on",
        ),
        ({"objective": "test/exact_log_px", "arms": {"a": {}, "b": {"activation": "relu"}}}, "none where the quadrature does not"),
        ({"arms": {"slow": {"kl_warmup": 400}}}, "arm 'slow', budget 'default': kl_warmup=400 takes longer than the 2 epochs"),
        ({"base": TrialSpec(learning_rate_warmup=2.5)}, "arm 'bce', budget 'default': learning_rate_warmup=2.5 takes longer"),
        ({"arms": {"a": {"kl_warmup": 1, "kl_cycle": 3}}}, "arm 'a', budget 'default': kl_cycle=3 takes longer than the 2 epochs"),
    ],
)
def test_a_bad_plan_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ablation(**changes)


def test_a_rise_of_the_whole_training_is_taken_and_a_shorter_budget_says_that_it_is_not_over() -> None:
    budgets = {"default": Budget(epochs=2, seeds=[0]), "smoke": Budget(epochs=1, seeds=[0])}
    study = ablation(arms={"slow": {"kl_warmup": 2}, "plain": {}}, budgets=budgets)
    assert study.shape("default") == "2 arms x 1 seed"
    assert study.shape("smoke") == "2 arms x 1 seed; kl_warmup=2 takes longer than the 1 epoch of training"
    assert "kl_warmup=2 takes longer" in study.note("smoke")


def test_nothing_is_chosen_where_nothing_is_held_out() -> None:
    assert ablation(base=TrialSpec(fit_on="train+validation"), objective=None).objective is None
    assert ablation(objective="test/knn15_accuracy").objective  # whether there are labels is known of the data, not of a spec


def test_an_unknown_budget_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown budget 'defualt'; did you mean 'default'"):
        ablation().cells("defualt")


@pytest.mark.parametrize("metric", [m for m, s in SCORES.items() if s.tier == "A" and s.better and "exact" not in s.needs])
def test_native_scores_do_not_rank_across_scales(metric: str) -> None:
    with pytest.raises(UserError, match="cannot rank across scales") as fault:
        ablation(hypotheses=(Hypothesis(better="bce", worse="mse", metric=metric),))
    assert "bce is a pseudo on grey levels, mse is a density on v/255" in str(fault.value)
    assert all(m in str(fault.value) for m in ("test/squared_error", "test/knn15_accuracy"))
    assert "test/elbo," not in str(fault.value).splitlines()[-1]
    # Within one scale they may, even beside arms of another.
    assert ablation(hypotheses=(Hypothesis(better="wide", worse="bce", metric=metric),)).hypotheses


def test_a_native_objective_needs_one_scale() -> None:
    with pytest.raises(UserError, match="objective 'elbo/validation' ranks all arms"):
        ablation(objective="elbo/validation")
    assert ablation(objective="elbo/validation", arms={"a": {}, "b": {"latent": 8}}).objective


def test_binarisations_are_different_scales() -> None:
    base = TrialSpec(dataset="digits", likelihood="bernoulli")
    arms = {"dynamic": {}, "threshold": {"likelihood_args": {"binarisation": "threshold"}}}
    with pytest.raises(UserError, match="cannot rank across scales"):
        ablation(base=base, arms=arms, hypotheses=(Hypothesis(better="dynamic", worse="threshold", metric="test/elbo"),))


def test_counts_are_balanced_whatever_was_done_first() -> None:
    cells = ablation().cells("default")
    for stop in range(1, len(cells)):
        done = Counter(c.arm for c in cells[:stop])
        assert max(done.values()) - min(done[a] for a in ("bce", "mse", "wide")) <= 1


def test_tier_b_takes_a_pmf_of_grey_levels() -> None:
    with pytest.raises(UserError, match="takes a pmf of grey levels, bce has none") as fault:
        ranking(TrialSpec(), {"likelihood": "bce"}, {"likelihood": "laplace"}, "test/own_bits")
    assert "tier C would do: test/common_bits" in str(fault.value)
    ranking(TrialSpec(), {"likelihood": "beta_binomial"}, {"likelihood": "laplace"}, "test/own_bits")
    with pytest.raises(UserError, match="tier B would do: test/own_bits"):
        ranking(TrialSpec(), {"likelihood": "beta_binomial"}, {"likelihood": "laplace"}, "test/elbo")


@pytest.mark.parametrize("metric", [m for m, s in SCORES.items() if s.better and "exact" in s.needs])
def test_what_quadrature_gives_exists_up_to_two_latents(metric: str) -> None:
    base = TrialSpec(likelihood="bernoulli")
    ranking(base.derive(latent=2), {}, {"activation": "relu"}, metric)
    with pytest.raises(UserError, match="exists up to 2 latents, got 3") as fault:
        ranking(base.derive(latent=2), {}, {"latent": 3}, metric)
    assert "exact" not in str(fault.value).partition("\n")[2]


def test_arms_share_a_data_set() -> None:
    with pytest.raises(UserError, match="compared on one data set, got digits, mnist"):
        ranking(TrialSpec(), {}, {"dataset": "digits"}, "test/ssim")


def test_a_budget_says_how_deep_to_evaluate() -> None:
    study = Ablation(
        base=TrialSpec(),
        arms={"a": {}},
        budgets={"default": Budget(epochs=1, seeds=[0]), "full": Budget(epochs=1, seeds=[0], evaluation="full")},
    )
    assert [study.cells(b)[0].spec.evaluation for b in ("default", "full")] == ["quick", "full"]


def ranking(base: TrialSpec, a: dict, b: dict, metric: str) -> Ablation:
    """A study that ranks arm a above arm b, named by what they change."""
    names = [next(iter(arm.values()), "base") for arm in (a, b)]
    return Ablation(
        base=base,
        arms={str(names[0]): a, str(names[1]): b},
        budgets={"default": Budget(epochs=1, seeds=[0])},
        hypotheses=(Hypothesis(better=str(names[0]), worse=str(names[1]), metric=metric),),
        objective=None,
    )
