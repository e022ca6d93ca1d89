"""What comes back from disk and stores: checkpoints, manifests, plans, the attributes of trials; after something changed it."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import optuna
import torch
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from fuzzing import Target
from fuzzing.bounds import a_home, attempt, few_calls
from fuzzing.values import changed
from harness import plans, references
from harness.evidence.faults import Found, manifest_of, run_faults
from harness.evidence.reports import Known, report_faults
from harness.evidence.schema import SCHEMA, TAG, TRIAL
from harness.evidence.trials import store_faults
from harness.queue.inspection import _trial
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis
from harness.tracking import Inspected, Record
from harness.training.checkpoints import CheckpointError, Checkpoints

SPEC = TrialSpec(dataset="digits")
ABLATION = Ablation(
    base=SPEC,
    arms={"a": {}, "b": {"latent": 3}},
    budgets={"default": Budget(epochs=1, seeds=range(2))},
    hypotheses=(Hypothesis(better="a", worse="b", metric="test/squared_error"),),
)
PLAN = plans.stated(ABLATION, name="x", budget="default", question="?", data={})
RECORD = plans.PlanRecord().and_plan(PLAN, {"a": 0}).and_look({"looks": {"x": 2}}).and_plan(PLAN | {"seeds": [0, 1, 2]}, {"a": 1})
pieces = st.one_of(
    st.binary(max_size=6), st.sampled_from((b"null", b"[]", b"{}", b"NaN", b'""', b"1e999", b"[" * 5_000, b"9" * 5_000, b"\xff"))
)
json_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 9), st.floats(), st.text(max_size=4), st.sampled_from(("a", "b",
        "plan", "look", "1", "0"))),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(("a", "b", "arms", "looks", "seeds",
        "hypotheses", "0")), inner, max_size=2)),
    max_leaves=4,
)  # fmt: skip


def _paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in nested mappings and lists."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    return [prefix, *(path for key, item in items for path in _paths(item, (*prefix, key)))]


def put(whole: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return nested mappings and lists with another value at a path."""
    if not path:
        return value
    inner = put(whole[path[0]], path[1:], value)
    return {**whole, path[0]: inner} if isinstance(whole, Mapping) else [inner if i == path[0] else v for i, v in enumerate(whole)]


def edited(whole: Any) -> st.SearchStrategy[Any]:
    """Return a JSON value with one or two of the values in it replaced."""
    step = st.tuples(st.sampled_from(_paths(whole)), json_value)
    return st.one_of(step.map(lambda s: put(whole, *s)), json_value, st.just(whole))


def _entries(record: plans.PlanRecord) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(vars(entry))) for entry in record.entries]


def _sealed(values: Any) -> Any:
    """Return an entry whose digest is right, whatever it holds: somebody may have taken the trouble."""
    try:
        entry = plans.Entry(**values)
        return {**values, "sha256": entry.digest()}
    except (TypeError, ValueError):
        return values


entries = st.tuples(*(edited(entry) for entry in _entries(RECORD)), st.booleans())


def _plan(given: tuple[Any, ...]) -> None:
    *changed_entries, sealed = given
    values = [_sealed(v) if sealed else v for v in changed_entries]
    notes = {f"plan.{i}": json.dumps(v) for i, v in enumerate(values, 1)}
    with few_calls():
        record = plans.read(notes)
        checked = record.checked(tag="x", file=json.dumps(values), runs={SPEC.id: "x"})
        assert checked.faults
        if not record.faults:
            plans.claims_of(record)
            record.trainings_with(PLAN)


def _notes(given: dict[str, Any]) -> None:
    with few_calls():
        record = plans.read(given)
        if not record.faults:
            plans.claims_of(record)


def _checkpoint(given: tuple[bytes, bytes, str]) -> None:
    content, label, name = given
    with a_home(written=True) as folder:
        checkpoints = Checkpoints(folder, code="code")
        (folder / SPEC.id).mkdir()
        (folder / SPEC.id / f"{name}.pt").write_bytes(content)
        (folder / SPEC.id / f"{name}.json").write_bytes(label)
        with few_calls():
            epoch = checkpoints.newest(SPEC)
            assert epoch in (0, 1)
            if (content, label, name) != (*CHECKPOINT, "000001"):
                assert epoch == 0 or json.loads(label) == json.loads(CHECKPOINT[1])
            for what in (checkpoints.load, checkpoints.digest):
                with suppress(CheckpointError):
                    what(SPEC, 1)
            checkpoints.save(SPEC, 2, {"x": torch.zeros(2)})
            assert checkpoints.newest(SPEC) == 2


def _saved() -> tuple[bytes, bytes]:
    """Return the bytes of a checkpoint and of its label."""
    with a_home(written=True) as folder:
        Checkpoints(folder, code="code").save(SPEC, 1, {"x": torch.zeros(2), "images": "x"})
        path = folder / SPEC.id / "000001"
        return path.with_suffix(".pt").read_bytes(), path.with_suffix(".json").read_bytes()


CHECKPOINT = _saved()
checkpoints = st.tuples(
    changed(st.just(CHECKPOINT[0]), pieces),
    changed(st.just(CHECKPOINT[1]), pieces),
    st.sampled_from(("000001", "1", "x", "²", "9" * 50)),
)

MANIFEST: dict[str, Any] = {
    "schema": SCHEMA,
    **{group: dict.fromkeys(fields, "x") for group, fields in TRIAL.items()},
    "execution": {"executor": "x", "stints": [{"begun": "x"}], "evaluation": {}},
    "results": {"metrics": {"a": 1.0}, "history": {"a": "x"}, "trained_again": [1], "sha256": "x"},
    "lineage": {"files": {"a": "x"}, "tags": {"arm": "a"}},
    "spec": {"resolved": {"latent": 2}, "id": "x", "sha256": "x"},
    "report": {"files": {"verdicts.json": "x", "report.html": "x"}, "runs": {"a": "x"}, "winner": "x", "plan": "x"},
}
RUN = Inspected(record=Record("run", {"a": 1.0}, {TAG: "x", "arm": "a"}), params={}, status="FINISHED", files="")


class Histories:
    """A tracking store in which every metric was 1 at epoch 1."""

    def history(self, run: str, key: str) -> Mapping[int, list[float]]:
        return {1: [1.0]}


manifests = st.one_of(
    edited(MANIFEST).map(lambda v: json.dumps(v).encode()),
    changed(st.just(json.dumps(MANIFEST).encode()), pieces),
    st.binary(max_size=9),
)


def _manifest(given: tuple[bytes, bytes]) -> None:
    with a_home(written=True) as folder:
        (folder / "manifest.json").write_bytes(given[0])
        (folder / "verdicts.json").write_bytes(given[1])
        (folder / "report.html").write_bytes(given[1])
        found = Found()
        with few_calls():
            assert manifest_of(folder) is not None
            run_faults(found, RUN, folder, "x", Histories())  # type: ignore[arg-type]
            report_faults(found, RUN, folder, "here", Known(counted={"a": RUN}, wanted=["a"], heads=["x"], note="x"))
        assert found.lines


attributes = st.dictionaries(
    st.sampled_from(("cell", "run", "run.0", "run.x", "run.", "values.0", "values.1", "manifest", "manifest.0", "failure",
        "final", "again", "owner")),
    st.one_of(json_value, st.sampled_from(("[1.0]", "[NaN]", "{}", "[", "x", "[[1]]"))),
    max_size=4,
)  # fmt: skip


def _trial_read(given: dict[str, Any]) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    stored = json.loads(json.dumps(given))
    trial = create_trial(state=TrialState.COMPLETE, value=1.0, user_attrs=stored)
    with few_calls():
        store_faults(Found(), [RUN], [_trial("x", trial, replaced=False)], {SPEC.id: "a"})


CODE = json.dumps([{"module": "m", "files": {"m.py": "x = 1"}}, {"data": "npz:x.npz@000000000000", "path": "/nothing"}])
codes = st.one_of(edited(json.loads(CODE)).map(json.dumps), st.text(max_size=9))

TARGETS = {
    "plan": Target(entries, _plan),
    "notes": Target(
        st.dictionaries(st.sampled_from(("plan.1", "plan.2", "plan.²", "plan.x", "plan.", "1", "plan.01")),
            st.one_of(json_value, st.just(json.dumps(_entries(RECORD)[0])), json_value.map(json.dumps)), max_size=3),
        _notes,
    ),
    "checkpoint": Target(checkpoints, _checkpoint),
    "manifest": Target(st.tuples(manifests, st.one_of(manifests, edited({"verdicts": [{"sentence": "a",
        "standing_in_words": "b"}]}).map(lambda v: json.dumps(v).encode()))), _manifest),
    "trial of a store": Target(attributes, _trial_read),
    "code on record": Target(codes, lambda given: attempt(lambda: references.from_record(given), 2)),
}  # fmt: skip
