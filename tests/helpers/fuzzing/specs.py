"""Trials: every field of a `TrialSpec`, right and wrong, and the arguments beside them."""

import json
import pickle
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fuzzing import Target
from fuzzing.bounds import Refusal, a_home, attempt
from fuzzing.values import anything, mostly, real, scalars, texts
from harness import catalog
from harness.spec import FIELDS, REAL_FIELDS, TrialSpec
from harness.spec.arguments import Arguments

REFERENCES = ("x.py:F", "npz:x.npz", "images:nothing/", "idx:", "a.b.c:D", "x:1", ":", "npz:\x00", "npz:~nobody/x")
ARGUMENTS = tuple(dict.fromkeys(name for table in (catalog.DATASETS, catalog.LIKELIHOODS, catalog.NETWORKS, catalog.DATA_FILES)
                                for entry in table.values() for name in entry.arguments))  # fmt: skip


def _right(name: str) -> SearchStrategy[Any]:
    """Return values of a field of which most are right."""
    if name in catalog.WORDS or name in catalog.TABLES:
        return st.sampled_from([*catalog.names(name), *REFERENCES] if name in ("dataset", "likelihood") else catalog.names(name))
    if name in catalog.ARGUMENTS:
        return st.dictionaries(
            st.sampled_from(ARGUMENTS), st.one_of(st.sampled_from((1, 3, 32, 0.5, True, (8, 16), "static")), scalars), max_size=2
        )
    if name in REAL_FIELDS:
        return st.one_of(st.integers(0, 3), st.floats(0, 1))
    if name == "hidden":
        return st.one_of(st.none(), st.lists(st.integers(1, 300), min_size=1, max_size=3), st.tuples(st.integers(1, 9)))
    return st.just(()) if name == "metrics" else st.integers(1, 300)


fields: SearchStrategy[dict[str, Any]] = st.dictionaries(st.sampled_from(FIELDS), st.none(), max_size=5).flatmap(
    lambda chosen: st.fixed_dictionaries({name: mostly(_right(name)) for name in chosen})
)
# As `derive` takes them: parts of arguments too, and names that are no fields.
changes: SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.one_of(
        st.sampled_from(FIELDS),
        st.builds("{}.{}".format, st.sampled_from((*catalog.ARGUMENTS, "latent", "x")), st.sampled_from((*ARGUMENTS, "", "a.b"))),
        texts,
    ),
    st.one_of(st.sampled_from(("mlp", "mse", "shapes", 1, 2.0, (8,))), scalars, anything),
    max_size=3,
)


def whole(spec: TrialSpec) -> None:
    """Assert that a spec comes back from JSON and from a pickle with its id, and that equal ids mean equal specs."""
    text = json.dumps(spec.as_dict(), sort_keys=True)
    again = TrialSpec.from_dict(json.loads(text))
    for other in (again, pickle.loads(pickle.dumps(spec)), spec.derive()):
        assert other == spec
        assert other.id == spec.id
        assert hash(other) == hash(spec)
    assert json.dumps(again.as_dict(), sort_keys=True) == text
    assert spec.cohort.cohort == spec.cohort
    assert spec.mixed.mixed == spec.mixed
    assert str(spec.scale)
    assert repr(spec)


def _made(given: dict[str, Any]) -> None:
    with a_home():
        spec = attempt(lambda: TrialSpec(**given), 2)
        if not isinstance(spec, Refusal):
            whole(spec)


def _derived(given: tuple[dict[str, Any], dict[str, Any]]) -> None:
    with a_home():
        base = attempt(lambda: TrialSpec(**real(given[0])), 2)
        spec = attempt(lambda: base.derive(**real(given[1])), 2) if not isinstance(base, Refusal) else base
        if not isinstance(spec, Refusal):
            whole(spec)
            assert (spec.id == base.id) == (spec == base), "equal ids, unequal specs, or the other way round"


def _read_back(given: Any) -> None:
    with a_home():
        spec = attempt(lambda: TrialSpec.from_dict(given), 2)
        if not isinstance(spec, Refusal):
            whole(spec)


def _one_form(given: dict[str, Any]) -> None:
    arguments = Arguments(given)
    assert arguments == Arguments(dict(arguments))
    assert hash(arguments) == hash(Arguments(json.loads(arguments.text)))


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)
# What a file spec.json may hold after somebody, or something, changed it.
stored = st.builds(
    lambda spec, other: {**spec.as_dict(), **other},
    st.just(TrialSpec()),
    st.dictionaries(st.sampled_from((*FIELDS, "x")), plain, max_size=3),
)

TARGETS = {
    "trial": Target(fields, _made),
    "derived trial": Target(st.tuples(fields, changes), _derived),
    "trial on record": Target(stored, _read_back),
    "arguments": Target(st.dictionaries(st.text(max_size=3), plain, max_size=3), _one_form),
}
