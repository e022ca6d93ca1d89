"""Changes from the command line: the study that they give, its name, and what is refused, all at once."""

from pathlib import Path

import pytest

from harness import cli, paths, study
from harness.errors import UserError
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis, Overrides, Pruner, Real, Search, SearchBudget
from harness.study.overrides import apply, split

PLAN = Ablation(
    base=TrialSpec(dataset="digits"),
    arms={
        "bce": {},
        "mse": {"likelihood": "mse"},
        "relu lr=1e-3": {"activation": "relu", "learning_rate": 1e-3},
        "a+b": {"latent": 9},
    },
    budgets={"smoke": Budget(epochs=1, seeds=[0]), "default": Budget(epochs=4, seeds=range(6))},
    hypotheses=(
        Hypothesis(better="bce", worse="mse", metric="test/squared_error"),
        Hypothesis(better="bce", worse="a+b", metric="test/squared_error"),
    ),
)
SEARCH = Search(
    base=TrialSpec(dataset="digits"),
    space={"learning_rate": Real(1e-4, 1e-2, log=True)},
    objectives=("elbo/validation",),
    pruner=Pruner(name="asha"),
    budgets={"default": SearchBudget(trials=4, epochs=2)},
)


def changed(*settings: str, arms: str = "") -> tuple[Ablation, str]:
    kept = tuple(arms.split(",")) if arms else ()
    result, suffix = apply(PLAN, Overrides(settings, kept))
    assert isinstance(result, Ablation)
    return result, suffix


def test_a_change_is_that_of_a_file_and_holds_for_all_budgets() -> None:
    result, suffix = changed("beta=4", "seeds=range(3)", "budget.epochs=3", "activation=tanh", "batch_size=64", arms="mse,bce")
    assert suffix == "[activation=tanh,arms=bce+mse,batch_size=64,beta=4.0,budget.epochs=3,budget.seeds=range(3)]"
    assert result.base == PLAN.base.derive(beta=4.0, activation="tanh", batch_size=64)
    assert dict(result.budgets) == {name: Budget(epochs=3, seeds=range(3)) for name in ("smoke", "default")}
    assert list(result.arms) == ["bce", "mse"]
    assert result.hypotheses == PLAN.hypotheses[:1]
    assert PLAN.base.beta == 1


def test_equal_changes_have_one_name_and_others_another() -> None:
    def name(*settings: str, arms: str = "") -> str:
        return changed(*settings, arms=arms)[1]

    assert name("beta=4", "epochs=3") == name("budget.epochs=3", "beta=4.0") == "[beta=4.0,budget.epochs=3]"
    assert name("seeds=[0, 1]") == name("seeds=(0,1)") == "[budget.seeds=(0,1)]"
    assert name("learning_rate=1e-2", arms="bce,mse") == name("learning_rate=0.01", arms="mse,bce")
    names = [name(arms=arms) for arms in ("bce", "mse", "a+b", "bce,mse", "relu lr=1e-3")]
    assert len(set(names)) == len(names)
    for text in [*names, changed("seeds=(" + ",".join(map(str, range(99))) + ")")[1]]:
        assert not set(text) & set("/' \"\\:%"), text
        assert len(text) < 120


def test_a_reference_carries_its_changes() -> None:
    for settings, arms in [(("latent=10",), ()), (("hidden=(64, 32)", "seeds=[0,1]"), ("bce", "a+b")), ((), ("relu lr=1e-3",))]:
        name, overrides = split(f"./folder/mine.py{Overrides(settings, arms)}")
        assert (name, tuple(overrides.settings), tuple(overrides.arms)) == ("./folder/mine.py", settings, arms)
    typed = Overrides(("seeds=0,1,2", "hidden=256, 128", "latent=10,epochs=3", "widths=(256, 128)"), ("a", "b"))
    _, overrides = split(f"mine{typed}")
    assert overrides.settings == ("seeds=(0,1,2)", "hidden=(256,128)", "latent=10", "epochs=3", "widths=(256, 128)")
    assert split("mine") == ("mine", Overrides())
    assert split("a[1]/mine.py") == ("a[1]/mine.py", Overrides())


def test_a_name_on_record_is_a_reference_again() -> None:
    loaded = study.load("loss_ablation[seeds=range(3),latent=10,arms=mse+bce]")
    assert loaded.name == "loss_ablation[arms=bce+mse,budget.seeds=range(3),latent=10]"
    again = study.load(loaded.name)
    assert (again.name, again.study) == (loaded.name, loaded.study)
    assert loaded.study.base.latent == 10
    assert study.load("loss_ablation").study.base.latent == 2


@pytest.mark.parametrize(
    ("settings", "arms", "messages"),
    [
        (
            ("latnt=3", "activation=rleu", "bugdet.epochs=3", "epochs=0", "evaluation=ful"),
            "bce,mze",
            (
                "unknown field of a trial 'latnt'; did you mean 'latent'",
                "unknown activation 'rleu'; did you mean 'relu'",
                "unknown field of a trial 'bugdet'",
                "epochs must be a whole number from 1",
                "unknown evaluation 'ful'; did you mean 'full'",
                "unknown arm 'mze'; did you mean 'mse'",
            ),
        ),
        (("budget.epoch=3",), "", ("unknown field of a budget 'epoch'; did you mean 'epochs'",)),
        (("seed=3",), "", ("a budget sets the seeds of its trials",)),
        (("seeds=3",), "", ("seeds are whole numbers",)),
        (("seeds=()",), "", ("budget 'smoke': seeds must be given",)),
        (("latent",), "", ("--set latent: a key and its value are needed",)),
        (("latent=3", "latent=4"), "bce", ("latent is set twice",)),
        (("hidden.first=3",), "", ("hidden has no parts, got 'hidden.first'",)),
        (("latent=3.5",), "bce", ("latent must be a whole number",)),
        (
            ("latent=3",),
            "",
            ("--set latent: arm 'a+b' of the study would ignore it", "without them: --arms 'bce,mse,relu lr=1e-3'"),
        ),
        (("likelihood_args.sigma=2",), "", ("likelihood 'bce' takes no argument 'sigma'",)),
        (("sigma=2",), "", ("unknown field of a trial 'sigma'",)),
    ],
)
def test_all_that_is_wrong_is_said_at_once(settings: tuple[str, ...], arms: str, messages: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as fault:
        changed(*settings, arms=arms)
    for message in messages:
        assert message in str(fault.value)


def test_an_argument_may_be_set_by_its_name() -> None:
    loaded = study.load("latent_size[likelihood=mse,likelihood_args.sigma=0.5]")
    assert loaded.study.base.likelihood_args == {"sigma": 0.5}
    assert loaded.name == "latent_size[likelihood=mse,likelihood_args.sigma=0.5]"


def test_a_field_of_an_arm_that_is_left_out_may_be_set() -> None:
    assert changed("latent=3", arms="bce,mse")[0].base.latent == 3


def test_a_search_has_its_own_budget_and_no_arms() -> None:
    result, suffix = apply(SEARCH, Overrides(("trials=2", "latent=5", "budget.refit_seeds=range(1,7)")))
    assert suffix == "[budget.refit_seeds=range(1,7),budget.trials=2,latent=5]"
    assert result.budgets["default"] == SearchBudget(trials=2, epochs=2)
    assert result.base.latent == 5
    with pytest.raises(UserError) as fault:
        apply(SEARCH, Overrides(("learning_rate=1", "trials=0"), ("bce",)))
    for message in ("the search looks for its best value", "trials must be a whole number", "a search finds its arms itself"):
        assert message in str(fault.value)


def test_the_command_line_says_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "loss_ablation", "--set", "latnt=3", "--set", "activation=rleu"]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'latent'" in said
    assert "did you mean 'relu'" in said
    assert cli.main(["doctor", "--set", "latent=3"]) == 2
    assert "of which study?" in capsys.readouterr().err


@pytest.mark.slow
def test_an_overridden_study_is_on_record_under_its_own_name(
    home: Path, mlflow_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(
        '"""Is it so?"""\nfrom harness.spec import TrialSpec\nfrom harness.study import Ablation, Budget\n'
        "STUDY = Ablation(base=TrialSpec(dataset='digits'), arms={'bce': {}, 'mse': {'likelihood': 'mse'}},"
        " budgets={'default': Budget(epochs=5, seeds=range(6))})\n"
    )
    monkeypatch.chdir(tmp_path)
    changes = ["--set", "epochs=1", "--set", "seeds=range(1)", "--set", "latent=3", "--arms", "mse"]
    name = "mine[arms=mse,budget.epochs=1,budget.seeds=range(1),latent=3]"
    assert cli.main(["study", "./mine.py", *changes, "--device", "cpu", "--executor", "local"]) == 0
    said = capsys.readouterr().out
    assert f"{name}, default budget: 1 arm x 1 seed" in said.replace("\n", " ")
    assert (paths.mlruns() / "reports" / name / "report.html").exists()
    assert cli.main(["report", "mine", *changes]) == 0
    whole = capsys.readouterr().out
    assert cli.main(["report", "mine", *changes, "--quiet"]) == 0
    brief = capsys.readouterr().out
    assert "test scores, mean" in whole
    assert brief.splitlines() == [line for line in whole.splitlines() if line.startswith(("report: ", "browse: "))]
    assert cli.main(["study", "./mine.py", *changes, "--device", "cpu", "--executor", "local", "--quiet"]) == 0
    assert capsys.readouterr().out == brief
    assert cli.main(["doctor", "mine", *changes]) in (0, 1)
    assert f"1 trial of {name}" in capsys.readouterr().out.replace("\n", " ")
    assert cli.main(["doctor", name]) in (0, 1)
    assert cli.main(["doctor", "mine"]) == 2

    from harness.tracking import server

    assert [page_name for page_name, _ in server.study_pages()] == [name]
