"""What `make fuzz` has found: each ended in another exception than a refusal, and is a plain case here."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from fuzzing.values import Unwritable, real

from harness import cli, errors, plans, references, study
from harness.data.arrays import from_npz
from harness.errors import UserError
from harness.evidence.faults import manifest_of
from harness.evidence.schema import STINT, absent
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Constraint, Hypothesis, OneOf, Pruner, Real, Search, SearchBudget, Widths
from harness.study.overrides import Overrides, apply, data_set, split
from harness.training.checkpoints import CheckpointError, Checkpoints

HUGE, AWKWARD = real(Unwritable.HUGE), real(Unwritable.AWKWARD)
OWN = "x.py:F@0123456789ab"  # pinned code of the user's own, which is not asked here
FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "beyond-floats": ({"learning_rate": 10**400}, "learning_rate must be a finite number above 0, got 1000"),
    "more-digits-than-python-writes": ({"latent": HUGE}, "latent must be a whole number .* type int that cannot be written"),
    "widths-beyond-json": ({"network": "mlp", "hidden": (HUGE,)}, "hidden must be a tuple of widths"),
    "array-for-a-word": ({"fit_on": np.zeros(3)}, "unknown fit_on array"),
    "array-beside-others": ({"patience": np.zeros(3)}, "patience must be a whole number"),
    "object-without-words": ({"dataset": AWKWARD}, "unknown dataset a value of type Awkward"),
    "list-in-itself": ({"likelihood": OWN, "likelihood_args": {"x": real(Unwritable.ITSELF)}}, "must be numbers, words"),
    "half-a-character": ({"likelihood": OWN, "likelihood_args": {"x": "\ud800"}}, "must be numbers, words"),
    "array-as-an-argument": ({"dataset": "shapes", "dataset_args": {"size": np.zeros(2)}}, "must be numbers, words"),
    "equal-value-of-some-module": ({"metrics": [True]}, "True is no reference: give a class or function"),
    "path-of-nobody": ({"likelihood": "~nobody-here/x.py:F"}, "is no path"),
    "zero-byte": ({"likelihood": "\x00.py:F"}, "is no path"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_a_trial_is_refused(name: str) -> None:
    fields, says = FIELDS[name]
    with pytest.raises(UserError, match=says):
        TrialSpec(**fields)


def test_a_part_of_arguments_that_are_none_is_refused() -> None:
    with pytest.raises(UserError, match="dataset_args must be a mapping"):
        TrialSpec().derive(**{"dataset_args": 1, "dataset_args.size": 64})


@pytest.mark.parametrize("content", [None, [], 3, "x"])
def test_a_stored_trial_that_is_no_mapping_is_refused(content: Any) -> None:
    with pytest.raises(UserError, match="mapping of names to values"):
        TrialSpec.from_dict(content)


def test_real_numbers_of_numpy_have_the_form_of_plain_ones() -> None:
    spec = TrialSpec(learning_rate=np.float64(0.5))
    assert type(spec.learning_rate) is float
    assert spec.id == TrialSpec(learning_rate=0.5).id


BASE, BUDGETS = TrialSpec(dataset="digits"), {"default": Budget(epochs=1, seeds=range(2))}
STUDIES: dict[str, tuple[Any, str]] = {
    "base": (lambda: Ablation(base="mnist", arms={"a": {}}, budgets=BUDGETS), "base must be a TrialSpec, got 'mnist'"),
    "arms-as-a-list": (lambda: Ablation(base=BASE, arms=["a"], budgets=BUDGETS), "arms must be a mapping"),
    "an-arm-as-a-word": (lambda: Ablation(base=BASE, arms={"a": "mse"}, budgets=BUDGETS), "arm 'a' must be a mapping"),
    "budgets": (lambda: Ablation(base=BASE, arms={"a": {}}, budgets={"default": 3}), "budget 'default' must be a Budget, got 3"),
    "one-hypothesis": (
        lambda: Ablation(base=BASE, arms={"a": {}}, budgets=BUDGETS, hypotheses=Hypothesis(better="a", worse="b", metric="x")),
        "hypotheses must be a tuple of Hypothesis",
    ),
    "seeds-as-a-number": (lambda: _ablation(Budget(epochs=1, seeds=3)), r"seeds are whole numbers, such as range\(3\)"),
    "looks-as-a-number": (lambda: _ablation(Budget(epochs=1, seeds=range(3), looks=3)), "looks must be whole numbers, such as"),
    "arm-as-a-number": (lambda: _ablation(claims=(Hypothesis(better=1, worse="b", metric="x"),)), "better must be a name, got 1"),
    "trials-as-an-array": (lambda: _search(trials=np.arange(3), beta=Real(0, 1)), "trials must be a whole number"),
    "trials-as-none": (lambda: _search(trials=None, beta=Real(0, 1)), "trials must be a whole number"),
    "metrics-as-an-array": (
        lambda: Ablation(base=BASE, arms={"a": {}}, budgets=BUDGETS, metrics=np.zeros(3)),
        "metrics must be a tuple of references, got array",
    ),
    "p-without-digits": (lambda: Pruner(name="wilcoxon", p=HUGE), "p must be a finite number, got a value of type int"),
    "bound-not-a-number": (lambda: Constraint(score="x", at_most=float("nan")), "at_most must be a finite number or None"),
    "margin-beyond-floats": (
        lambda: _ablation(claims=(Hypothesis(better="a", worse="b", metric="test/squared_error", margin=10**400),)),
        "margin must be a finite number or None, got 1000",
    ),
    "looks-without-digits": (lambda: _ablation(Budget(epochs=1, seeds=range(3), looks=(2, HUGE))), "looks must be rising numbers"),
    "fewer-trials-than-digits": (lambda: _search(trials=-HUGE, beta=Real(0, 1)), "trials must be a whole number of at most 18"),
    "more-seeds-than-digits": (lambda: _ablation(Budget(epochs=1, seeds=range(HUGE))), r"2 arms x more than 10\*\*18 seeds are"),
    "looks-without-end": (lambda: _ablation(Budget(epochs=1, seeds=range(3), looks=range(2, 10**12))), "looks must be rising"),
    "layers-without-end": (lambda: _search(hidden=Widths((1, 10**9), (3, 4))), "takes at most 1,000 layers"),
    "seeds-that-leave-none": (
        lambda: _search(9, budget={"refit_seeds": range(2**31 - 6, 2**31 - 1)}, beta=Real(0, 1)),
        "a point that is suggested again takes seeds of its own, up to 19,327,352,823",
    ),
    "space-of-words": (
        lambda: Search(base=BASE, space={"latent": 3}, objectives=("x",), budgets={"default": SearchBudget(trials=1, epochs=1)}),
        "space must be a mapping of fields to axes",
    ),
    "no-pairs-of-widths": (lambda: _search(hidden=Widths(3, 4)), "takes two pairs of whole numbers"),
    "bounds-beyond-floats": (lambda: _search(beta=Real(0, 10**400)), "must go from a finite number"),
    "choices-with-a-list": (lambda: _search(latent=OneOf(([1], [2]))), "takes a tuple of two or more different choices"),
    "choices-of-one-text": (lambda: _search(hidden=OneOf(((8,), "(8,)"))), "takes a tuple of two or more different choices"),
    "conditions-as-a-list": (lambda: _search(beta=Real(0, 1, when=["latent"])), "`when` takes a mapping"),
}  # fmt: skip


def _ablation(budget: Budget = BUDGETS["default"], claims: tuple[Hypothesis, ...] = ()) -> Ablation:
    """Return a study of two arms with this budget and these claims."""
    return Ablation(base=BASE, arms={"a": {}, "b": {"latent": 3}}, budgets={"default": budget}, hypotheses=claims)


def _search(trials: Any = 1, budget: Mapping[str, Any] = MappingProxyType({}), **space: Any) -> Search:
    """Return a search of this space, with so many trials and other fields of its budget."""
    chosen = SearchBudget(trials=trials, epochs=1, **budget)
    base = BASE.derive(network="mlp")
    return Search(base=base, space=space, objectives=("validation/squared_error",), budgets={"default": chosen})


@pytest.mark.parametrize("name", STUDIES)
def test_a_part_of_a_study_is_refused(name: str) -> None:
    make, says = STUDIES[name]
    with pytest.raises(UserError, match=says):
        make()


@pytest.mark.parametrize("name", ["x[latent={[1]:2}]", "x[arms=(1,2)]", "x[arms=([1],)]", "x[budget.looks=range(2,10000000000)]"])
def test_brackets_that_hold_something_else_are_refused(name: str) -> None:
    with pytest.raises(UserError):
        apply(study.load_study("loss_ablation"), split(name)[1])


@pytest.mark.parametrize("setting", ["likelihood_args.sigma=2", "likelihood_args={'sigma':2}"])
def test_a_setting_that_arms_or_a_space_would_ignore_is_refused(setting: str) -> None:
    base = BASE.derive(likelihood="mse")
    arms = {"a": {"likelihood_args.sigma": 0.5}, "b": {"likelihood_args.sigma": 0.25}}
    searched = Search(
        base=base,
        space={"likelihood_args.sigma": Real(0.1, 1)},
        objectives=("validation/squared_error",),
        budgets={"default": SearchBudget(trials=1, epochs=1)},
    )
    for of in (Ablation(base=base, arms=arms, budgets=BUDGETS), searched):
        with pytest.raises(UserError, match=r"would ignore it|looks for its best value"):
            apply(of, Overrides((setting,)))


SETTINGS = ["latent=0x" + "f" * 5_000, "x" * 7_000, "latent=" + "x" * 7_000, "latent=1\x1b[2J\n2"]


@pytest.mark.parametrize("setting", SETTINGS, ids=["hexadecimal", "long", "long-value", "escapes"])
def test_a_setting_is_refused_in_short_and_plain_words(setting: str) -> None:
    with pytest.raises(UserError) as refused:
        apply(study.load_study("loss_ablation"), Overrides((setting,)))
    assert len(str(refused.value)) < 1_500
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("name", ["npz:" + "x" * 7_000, "x" * 7_000 + ".py:f", "~nobody-here/x.py:f"])
def test_a_name_of_data_is_refused_in_short_words(name: str) -> None:
    with pytest.raises(UserError) as refused:
        data_set(name, [])
    assert len(str(refused.value)) < 1_500


@pytest.mark.parametrize("name", ["~nobody-here/x.py", "x" * 7_000 + ".py", "x" * 7_000 + ".y"])
def test_a_name_of_a_study_is_refused_in_short_words(name: str) -> None:
    with pytest.raises(UserError) as refused:
        study.check(name, "default")
    assert len(str(refused.value)) < 4_000


def test_values_are_shown_in_few_words() -> None:
    assert errors.shown(HUGE) == "a value of type int that cannot be written"
    assert len(errors.shown("x" * 7_000)) < 300
    assert errors.cut("a\x1b[2J\nb") == r"a\x1b[2J\nb"
    assert len(str(errors.unknown("arm", "x" * 7_000, ["y" * 7_000] * 9))) < 3_000


def _entry() -> dict[str, Any]:
    """Return the first entry of a chain of plans, as a store has it."""
    ablation = Ablation(
        base=BASE,
        arms={"a": {}, "b": {"latent": 3}},
        budgets=BUDGETS,
        hypotheses=(Hypothesis(better="a", worse="b", metric="test/squared_error"),),
    )
    content = plans.stated(ablation, name="x", budget="default", question="?", data={})
    return vars(plans.PlanRecord().and_plan(content, {"a": 0}).entries[0])


@pytest.mark.parametrize(
    "other",
    [
        {"sha256": []},
        {"known": None},
        {"number": "1"},
        {"content": []},
        {"content": {"arms": 3, "hypotheses": []}},
        {"kind": ["plan"]},
    ],
)
def test_a_plan_with_something_else_in_it_is_a_fault(other: dict[str, Any]) -> None:
    values = _entry()
    assert not plans.read({"plan.1": json.dumps(values)}).faults
    changed = {**values, **other}
    if "sha256" not in other:  # somebody who edits it may mend its digest too
        changed["sha256"] = plans.Entry(**changed).digest()
    record = plans.read({"plan.1": json.dumps(changed)})
    assert record.faults
    assert record.checked(tag="x", file=json.dumps([changed]), runs={}).faults


def test_an_edited_claim_is_a_fault_though_its_digest_is_right() -> None:
    values = _entry()
    for name, value in {"digits": "2", "margin": [], "metric": None, "better": "c"}.items():
        claim = {**values["content"]["hypotheses"][0], name: value}
        changed = {**values, "content": {**values["content"], "hypotheses": [claim]}}
        changed["sha256"] = plans.Entry(**changed).digest()
        assert plans.read({"plan.1": json.dumps(changed)}).faults, name


@pytest.mark.parametrize("note", ["plan.²", "plan.", "plan.x", "plan.01", "plan." + "9" * 5_000])
def test_a_note_of_another_name_is_no_entry(note: str) -> None:
    assert plans.read({note: "{}"}) == plans.PlanRecord()


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "3",
        "[1]",
        "[" * 5_000,
        '[{"module": "m", "files": {}}]',
        '[{"module": null, "files": {}}]',
        '[{"module": "m", "files": {"m.py": "("}}]',
    ],
)
def test_a_record_of_code_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"code\.json"):
        references.from_record(text)


@pytest.mark.parametrize("label", ["null", "[]", "3", "[" * 5_000, '{"sha256": 3}', "\xff"])
def test_a_label_that_is_none_makes_no_checkpoint(label: str, tmp_path: Path) -> None:
    folder = tmp_path / BASE.id
    folder.mkdir()
    (folder / "000001.pt").write_bytes(b"x")
    (folder / "000001.json").write_text(label, encoding="latin-1")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest(BASE) == 0
    with pytest.raises(CheckpointError):
        checkpoints.load(BASE, 1)


@pytest.mark.parametrize("content", ["NaN", '{"x": NaN}', "[" * 5_000, "[]", "\xff"])
def test_a_manifest_that_is_none_cannot_be_read(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content, encoding="latin-1")
    assert manifest_of(tmp_path) == {}


@pytest.mark.parametrize("stint", [None, 3, "x", []])
def test_a_stint_that_is_none_lacks_its_fields(stint: Any) -> None:
    found = list(absent({"schema": 1, "execution": {"stints": [stint], "evaluation": {}}}, {"execution": ("stints",)}))
    assert {f"execution.stints.0.{name}" for name in STINT} <= set(found)


def test_what_damaged_bytes_are_called_is_told_in_brief(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as packed:
        packed.writestr("images" + "x" * 5_000 + ".npy", b"")
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[40] ^= 1  # the two places of the name differ
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError) as refused:
        from_npz(tmp_path / "a.npz", print)
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize("columns", ["0", "²", "x", "", "-1", "1" * 50])
def test_a_terminal_of_no_width_is_told_all_the_same(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert cli.main(["plan", "nothing"]) == 2
    assert "unknown study 'nothing'" in capsys.readouterr().err
