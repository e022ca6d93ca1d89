"""Whatever is done to a study after its results are known, nothing says "registered" that was not, and all places say the same."""

import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from homes import home_at
from made_up import PLAIN, reported, store_of, train
from mlflow.tracking._tracking_service import utils

from harness import paths, plans
from harness.report import page

LOSS, BITS = "bce beats mse on squared error", "laplace beats mse on common head"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Path:
    """A home in which a study has all its results."""
    home = tmp_path_factory.mktemp("finished")
    with home_at(home):
        (home / "mlruns").mkdir()
        shutil.copy(mlflow_template, home / "mlruns" / "mlflow.db")
        file = home / "a_study.py"
        file.write_text(PLAIN)
        assert train(file) == 18
    return home


@pytest.fixture
def study(home: Path, finished: Path) -> Path:
    """The study, in this test's home."""
    utils._artifact_repos_cache.clear()  # by run, and this run lies elsewhere in every test
    shutil.copytree(finished, home, dirs_exist_ok=True)
    with sqlite3.connect(home / "mlruns" / "mlflow.db") as database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            database.execute(f"update {table} set {column} = replace({column}, ?, ?)", (str(finished), str(home)))
    return home / "a_study.py"


def edit(study: Path, old: str, new: str) -> None:
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new))


def optuna_db(statement: str, *values: object) -> list[tuple[str]]:
    with sqlite3.connect(paths.mlruns() / "optuna.db") as database:
        return list(database.execute(statement, values))


def stored_entry(number: int) -> dict[str, object]:
    ((text,),) = optuna_db("select value_json from study_user_attributes where key = ?", f"plan.{number}")
    entry: dict[str, object] = json.loads(json.loads(text))
    return entry


def overwrite(number: int, entry: dict[str, object]) -> None:
    text = json.dumps(json.dumps(entry))
    optuna_db("update study_user_attributes set value_json = ? where key = ?", text, f"plan.{number}")


def test_what_was_stated_before_is_registered(study: Path) -> None:
    shown = reported(study)
    assert [row["standing"] for row in shown.rows] == ["registered", "registered"]
    assert shown.row(LOSS)["outcome"] == "confirmed"
    assert shown.row(BITS)["outcome"] == "not shown"
    assert not shown.faults
    again = reported(study)
    assert again.rows == shown.rows
    assert len(store_of(study)[0].tracker.client.get_run(store_of(study)[0].tracker.parent).data.tags["plan"]) == 64


def test_a_flipped_hypothesis_is_amended(study: Path) -> None:
    edit(study, 'better="bce", worse="mse"', 'better="mse", worse="bce"')
    shown = reported(study)
    assert shown.standing("mse beats bce") == "amended"
    assert shown.row("mse beats bce")["results_known"] == 12
    assert shown.row("mse beats bce")["outcome"] == "refuted"  # the test has two sides: flipping gains nothing
    assert shown.standing(BITS) == "registered"
    edit(study, 'better="mse", worse="bce"', 'better="bce", worse="mse"')
    assert reported(study).standing(LOSS) == "registered"  # it was stated like this before the runs


def test_an_added_hypothesis_is_amended_and_counts(study: Path) -> None:
    before = reported(study).row(LOSS)["p_holm"]
    added = '        Hypothesis(better="laplace", worse="bce", metric="test/common_bits"),\n'
    edit(study, "    hypotheses=(\n", f"    hypotheses=(\n{added}")
    shown = reported(study)
    assert shown.standing("laplace beats bce") == "amended"
    assert shown.standing(LOSS) == "registered"
    assert shown.row(LOSS)["p_holm"] > before


def test_a_deleted_hypothesis_stays_in_the_family_and_on_the_page(study: Path) -> None:
    before = reported(study).row(LOSS)
    edit(study, '        Hypothesis(better="laplace", worse="mse", metric="test/common_bits"),\n', "")
    shown = reported(study)
    assert shown.standing(BITS) == "withdrawn"
    assert shown.row(BITS)["results_known"] == 12
    assert shown.row(LOSS)["p_holm"] == before["p_holm"]


def test_a_hypothesis_that_is_deleted_before_any_result_is_gone(study: Path) -> None:
    file = study.with_name("another.py")
    file.write_text(PLAIN.replace("latent=2", "latent=4"))
    train(file, most=0)
    edit(file, '        Hypothesis(better="laplace", worse="mse", metric="test/common_bits"),\n', "")
    edit(file, "latent=4", "latent=3")
    train(file)
    assert [row["standing"] for row in reported(file).rows] == ["registered"]


def test_a_changed_margin_is_amended(study: Path) -> None:
    edit(study, "margin=3.0", "margin=30.0")
    shown = reported(study)
    assert shown.standing(LOSS) == "amended"
    assert shown.standing(BITS) == "registered"


def test_a_dropped_seed_still_counts(study: Path) -> None:
    before = reported(study).row(LOSS)
    edit(study, "range(6)", "(0, 1, 2, 4, 5)")
    shown = reported(study)
    assert {row["standing"] for row in shown.rows} == {"amended"}
    assert shown.row(LOSS)["seeds"] == 6
    assert shown.row(LOSS)["difference"] == before["difference"]


def test_a_run_that_was_deleted_leaves_no_verdict(study: Path) -> None:
    store, ablation = store_of(study)
    cell = ablation.cells("default")[0]
    (run,) = (r for r in store.tracker.matching("tags.kind = 'trial'") if r.data.tags["cell"] == cell.spec.id)
    store.tracker.client.delete_run(run.info.run_id)
    shown = reported(study)
    assert shown.row(LOSS)["outcome"] == "no verdict"
    assert "5 of 6 seeds are done" in str(shown.row(LOSS)["sentence"])


def test_seeds_added_until_a_verdict_are_looks_that_cost(study: Path) -> None:
    assert reported(study).row(BITS)["outcome"] == "not shown"
    for seeds in (7, 8, 9):
        edit(study, f"range({seeds - 1})", f"range({seeds})")
        train(study)
        shown = reported(study)
        assert {row["standing"] for row in shown.rows} == {"amended"}
        assert shown.row(BITS)["seeds"] == seeds
        assert "any number of looks" in str(shown.row(BITS)["rule"])
        assert f"{seeds - 5} looks at results" in shown.html
    assert len(reported(study).rows) == 2  # a comparison with more seeds is no further comparison
    assert "4 looks at results" in reported(study).html  # the same look again is no further look


@pytest.mark.parametrize("rehash", [False, True])
def test_an_edited_plan_in_the_store_is_found(study: Path, rehash: bool) -> None:
    edit(study, 'better="bce", worse="mse"', 'better="mse", worse="bce"')
    assert reported(study).standing("mse beats bce") == "amended"
    first = stored_entry(1)
    first["content"]["hypotheses"][0] |= {"better": "mse", "worse": "bce"}  # type: ignore[index]
    if rehash:
        first["sha256"] = plans.Entry(**first).digest()  # type: ignore[arg-type]
    overwrite(1, first)
    shown = reported(study)
    assert {row["standing"] for row in shown.rows} == {"not verifiable"}
    assert shown.faults


def test_a_whole_chain_that_is_rewritten_is_found(study: Path) -> None:
    """With the parent's tag and file too: the runs name the plan that they were begun under."""
    edit(study, 'better="bce", worse="mse"', 'better="mse", worse="bce"')
    store, ablation = store_of(study)
    optuna_db("delete from study_user_attributes where key like 'plan.%'")
    with store.ablation_queue(ablation, ablation.cells("default"), "") as queue:
        forged = plans.PlanRecord().and_plan(plans.stated(ablation, name="a_study", budget="default", question="", data={}), {})
        plans.add(queue.store, forged)
    store.tracker.keep_plan(forged.head, forged.as_text())
    shown = reported(study)
    assert {row["standing"] for row in shown.rows} == {"not verifiable"}
    assert "runs were begun under plan" in shown.faults[0]


def test_a_deleted_plan_is_found(study: Path) -> None:
    optuna_db("delete from study_user_attributes where key like 'plan.%'")
    shown = reported(study)
    assert not {row["standing"] for row in shown.rows} & {"registered"}
    assert shown.faults


def test_an_edited_plan_file_is_found(study: Path) -> None:
    (file,) = (study.parent / "mlruns" / "artifacts").rglob("plan.json")
    file.write_text(file.read_text().replace("squared_error", "squared_errors"))
    shown = reported(study)
    assert {row["standing"] for row in shown.rows} == {"not verifiable"}
    assert shown.faults == ["plan.json of the parent run was edited"]


def test_a_renamed_arm_is_the_arm_that_it_was(study: Path) -> None:
    study.write_text(study.read_text().replace('"bce"', '"cross_entropy"'))
    shown = reported(study)
    assert [row["standing"] for row in shown.rows] == ["registered", "registered"]
    assert shown.row("cross_entropy beats mse")["outcome"] == "confirmed"


def test_arms_that_swap_their_names_do_not_swap_their_claims(study: Path) -> None:
    mse, laplace = '{"likelihood": "mse"}', '{"likelihood": "laplace"}'
    edit(study, f'"mse": {mse}, "laplace": {laplace}', f'"laplace": {mse}, "mse": {laplace}')
    shown = reported(study)
    assert "registered" not in {row["standing"] for row in shown.rows}


def test_a_report_from_another_checkout_is_one_of_another_plan(study: Path, tmp_path: Path) -> None:
    before = reported(study)
    elsewhere = tmp_path / "checkout" / study.name
    elsewhere.parent.mkdir()
    elsewhere.write_text(study.read_text())
    edit(elsewhere, 'better="bce", worse="mse"', 'better="mse", worse="bce"')
    assert reported(elsewhere).standing("mse beats bce") == "amended"
    assert reported(study).rows == before.rows


def test_a_changed_base_supersedes_its_runs_and_claims(study: Path) -> None:
    edit(study, "latent=2", "latent=3")
    train(study)
    shown = reported(study)
    assert [row["standing"] for row in shown.rows] == ["amended", "amended", "withdrawn", "withdrawn"]
    runs = store_of(study)[0].tracker.matching("tags.kind = 'trial'")
    labels = [(run.data.params["latent"], run.data.tags["superseded"]) for run in runs]
    assert set(labels) == {("2", "plan 2"), ("3", "no")}
    assert page.folder("a_study", "default").exists()


@pytest.mark.parametrize("changes", ["budget.seeds=range(5)", "budget.seeds=range(6,12)", "budget.evaluation=full"])
def test_results_of_another_study_are_known_too(study: Path, changes: str) -> None:
    """More seeds, other seeds, a deeper evaluation: the same arms under another name."""
    store, ablation = store_of(f"{study}[{changes}]")
    with store.ablation_queue(ablation, ablation.cells("default"), "") as queue:
        plan = store.keep_plan(ablation, queue.store, {})
    assert plan.plans[0].known == {"bce": 0, "mse": 0, "laplace": 0}
    assert plan.plans[0].elsewhere == {"bce": 6, "mse": 6, "laplace": 6}
    for claim in plans.claims_of(plan):
        assert claim.standing_in_words == "amended after 12 results of its arms, 12 of them in other studies"


def test_one_arm_of_another_study_tells_nothing_of_a_difference(study: Path) -> None:
    file = study.with_name("another.py")
    file.write_text(PLAIN.replace('"mse": {"likelihood": "mse"}', '"mse": {"likelihood": "mse", "beta": 2.0}'))
    train(file)
    assert [row["standing"] for row in reported(file).rows] == ["registered", "registered"]


def test_a_deeper_evaluation_is_a_change_and_no_further_comparison(study: Path) -> None:
    edit(study, "epochs=1", 'epochs=1, evaluation="full"')
    train(study)
    shown = reported(study)
    assert [row["standing"] for row in shown.rows] == ["amended", "amended"]
    assert shown.row(LOSS)["seeds"] == 6


def test_a_plan_that_is_slipped_in_afterwards_registers_nothing(study: Path) -> None:
    """With every digest right, and a claim that no result was known."""
    added = '        Hypothesis(better="laplace", worse="bce", metric="test/common_bits"),\n'
    edit(study, "    hypotheses=(\n", f"    hypotheses=(\n{added}")
    store, ablation = store_of(study)
    with store.ablation_queue(ablation, ablation.cells("default"), "") as queue:
        record = store.plan_of(queue.store)
        content = plans.stated(
            ablation, name="a_study", budget="default", question="Does the loss matter?", data={"digits": "d" * 64}
        )
        forged = record.and_plan(content, {"bce": 0, "mse": 0, "laplace": 0})
        plans.add(queue.store, forged)
    store.tracker.keep_plan(forged.head, forged.as_text())
    shown = reported(study)
    assert not shown.faults
    assert shown.standing("laplace beats bce") == "amended"
    assert shown.row("laplace beats bce")["results_known"] == 12
    assert shown.standing(LOSS) == "registered"


def test_what_a_kill_left_undone_is_done_by_the_next_start(study: Path) -> None:
    edit(study, "margin=3.0", "margin=30.0")
    store, ablation = store_of(study)
    kept = store.tracker.plan_on_record()
    with store.ablation_queue(ablation, ablation.cells("default"), "") as queue:
        record = store.keep_plan(ablation, queue.store)
        store.tracker.keep_plan(*kept)  # as if the driver had been killed between the two stores
        store.tracker.client.delete_tag(store.tracker.parent, "superseded.by")
        assert store.keep_plan(ablation, queue.store).head == record.head
    assert store.tracker.plan_on_record() == (record.head, record.as_text())
    assert store.tracker.study_tag("superseded.by") == "plan 2"


def test_verdicts_of_an_earlier_report_go_when_training_goes_on(study: Path) -> None:
    reported(study)
    store, _ = store_of(study)
    store.tracker.reopen_study()
    client = store.tracker.client
    assert not [name for name in client.get_run(store.tracker.parent).data.tags if name.startswith("verdict.")]
    assert "confirmed" not in client.get_experiment(store.tracker.experiment_id).tags["mlflow.note.content"]


def test_the_second_look_is_shown_again_as_it_was(study: Path) -> None:
    """Verdicts, tables and winner of a report rest on the same look, however often it is made."""
    file = study.with_name("looks.py")
    text = PLAIN.replace("latent=2", "latent=5").replace("seeds=range(6)", "seeds=range(12), looks=(6, 9, 12)")
    file.write_text(text.replace('        Hypothesis(better="bce", worse="mse", metric="test/squared_error", margin=3.0),\n', ""))
    for seeds in (6, 9):
        train(file, most=3 * seeds - (0 if seeds == 6 else 18))
        for _ in range(2):
            shown = reported(file)
            assert shown.row(BITS)["seeds"] == seeds
            assert re.search(rf">bce</a></td><td><a [^>]*>{seeds}</a></td>", shown.html)
