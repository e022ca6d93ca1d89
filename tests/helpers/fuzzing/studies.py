"""Ablations and searches, and all that they are made of, of values that are mostly right."""

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fuzzing import Target
from fuzzing.bounds import Refusal, a_home, attempt
from fuzzing.values import anything, mostly, real, texts
from harness import catalog, plans
from harness.scores import SCORES
from harness.spec import FIELDS, TrialSpec
from harness.study import Ablation, Budget, Hypothesis, OneOf, Real, Search, SearchBudget, Whole, Widths
from harness.study.space import Parameter, check, corners, fields
from harness.study.strategy import PRUNERS, SAMPLERS, Constraint, Pruner

DIGITS = TrialSpec(dataset="digits", network="mlp")
ARMS = ("a", "b", "[/red]", "", "3", "x" * 7_000, "a/../b", "ß\n", "%20", "a'b\"")
KEYS = (*SCORES, "test/nothing", "")
arms = st.sampled_from(ARMS)
scores = st.sampled_from(KEYS)
seeds: SearchStrategy[Any] = mostly(st.sampled_from((range(6), (0, 1, 2), [5, 3], range(1), range(1, 7), (0, 0), ())))
epochs = mostly(st.integers(1, 50))
numbers: SearchStrategy[Any] = mostly(st.one_of(st.integers(1, 9), st.floats(0.001, 10)))
arguments = st.sampled_from((*FIELDS, "likelihood_args.sigma", "network_args.norm", "latnt", "latent.x"))


def of(kind: Callable[..., Any], **values: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Return the making of an object: kind and values, some of which may be left out. It is made by `made`."""
    return st.tuples(st.just(kind), st.fixed_dictionaries({}, optional=values))


def made(given: Any) -> Any:
    """Return a value with all objects in it made, the inner ones first.

    Raises:
        UserError: one of them cannot be.
    """
    match given:
        case (kind, dict() as values) if isinstance(kind, type):
            return kind(**{name: made(value) for name, value in values.items()})
        case dict():
            return {name: made(value) for name, value in given.items()}
        case list() | tuple() if type(given) in (list, tuple):
            return type(given)(map(made, given))
    return real(given)


conditions = st.dictionaries(
    st.sampled_from((*FIELDS, "likelihood_args.sigma", "x")), st.sampled_from(("mlp", ("mlp", "conv"), 1, [], "x.py:F")), max_size=1
)
when = mostly(conditions)
axes = st.one_of(
    of(Real, low=numbers, high=numbers, log=mostly(st.booleans()), when=when),
    of(Whole, low=epochs, high=epochs, log=mostly(st.booleans()), when=when),
    of(
        OneOf,
        choices=mostly(st.sampled_from((("relu", "elu"), (1, 2), (1, 1.0, True), ((8,), (8, 8)), ("bce",), ("x.py:F", "elu")))),
        when=when,
    ),
    of(
        Widths,
        layers=mostly(st.tuples(st.integers(1, 3), st.integers(1, 4))),
        units=mostly(st.tuples(st.integers(4, 8), st.integers(9, 64))),
    ),
    anything,
)
spaces = st.dictionaries(arguments, axes, max_size=3)
budgets = st.dictionaries(
    st.one_of(st.just("default"), st.just("default"), texts),
    of(
        Budget,
        epochs=epochs,
        seeds=seeds,
        evaluation=mostly(st.sampled_from(catalog.WORDS["evaluation"])),
        looks=mostly(st.sampled_from(((), (3, 6)))),
    ),
    max_size=2,
)
hypotheses = of(Hypothesis, better=arms, worse=arms, metric=scores, margin=mostly(st.one_of(st.none(), numbers)))
bases = st.sampled_from((DIGITS, DIGITS.derive(latent=2, epochs=3), TrialSpec(likelihood="mse"), None, "digits"))
changes = st.dictionaries(arguments, mostly(st.sampled_from((1, 2, "mse", "relu", 0.5, (8,)))), max_size=2)
ablations = of(
    Ablation,
    base=bases,
    arms=mostly(st.dictionaries(arms, mostly(changes), max_size=3)),
    budgets=mostly(budgets),
    hypotheses=mostly(st.lists(hypotheses, max_size=2).map(tuple)),
    objective=mostly(st.one_of(st.none(), scores)),
    metrics=mostly(st.just(())),
)
searches = of(
    Search,
    base=bases,
    space=mostly(spaces),
    objectives=mostly(st.lists(scores, max_size=2).map(tuple)),
    budgets=mostly(
        st.dictionaries(st.just("default"), of(SearchBudget, trials=epochs, epochs=epochs, refit_seeds=seeds), max_size=1)
    ),
    seeds=seeds,
    sampler=mostly(st.one_of(st.none(), st.sampled_from(list(SAMPLERS)))),
    pruner=mostly(
        st.one_of(st.none(), of(Pruner, name=mostly(st.sampled_from(list(PRUNERS))), first=epochs, factor=epochs, p=numbers))
    ),
    constraints=mostly(st.lists(of(Constraint, score=scores, at_most=mostly(numbers)), max_size=1).map(tuple)),
    batch=mostly(st.one_of(st.none(), epochs)),
)
NEEDED = {Ablation: {"base", "arms", "budgets"}, Search: {"base", "space", "objectives", "budgets"}}


def complete(given: Any) -> bool:
    """Return whether the makings of a study have all keywords that have no default,
    inner ones too: Python says what is missing."""
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], type) and isinstance(given[1], dict):
        kind = given[0]
        needed = NEEDED.get(kind) or {
            name for name, f in getattr(kind, "__dataclass_fields__", {}).items() if f.default is f.default_factory
        }
        return needed <= given[1].keys() and all(map(complete, given[1].values()))
    if isinstance(given, Mapping):
        return all(map(complete, given.values()))
    return not isinstance(given, list | tuple) or all(map(complete, given))


def _ablation(given: Any) -> None:
    with a_home():
        study = attempt(lambda: made(given), 2)
        if isinstance(study, Refusal):
            return
        for budget in study.budgets:
            cells = study.cells(budget)
            assert len({cell.spec.id for cell in cells}) == len(cells) == study.runs(budget)
            assert study.shape(budget)
            assert study.note(budget)
            content = plans.stated(study, name="x", budget=budget, question="?", data={})
            assert plans.read({"plan.1": _text(content)}).faults == ()


def _text(content: Mapping[str, Any]) -> str:
    """Return the entry of a plan as a trial store has it."""
    import json

    return json.dumps(vars(plans.PlanRecord().and_plan(content, {}).entries[0]))


def _search(given: Any) -> None:
    with a_home():
        study = attempt(lambda: made(given), 2)
        if isinstance(study, Refusal):
            return
        for budget in study.budgets:
            assert study.shape(budget)
            assert study.note(budget)
            assert study.sampler_of(budget)
            spec = study.point(budget, lambda p: p.choices[0] if p.choices else p.low)
            assert study.cells(0, spec)
            assert study.judged(budget, {"best": spec}).cells(budget)


def _space(given: Any) -> None:
    """A space that is taken gives points within its bounds, whose values come back as the sampler's plain ones."""
    base = {name: getattr(DIGITS, name) for name in FIELDS}
    with a_home():
        space = attempt(lambda: made(given), 2)
        if isinstance(space, Refusal) or isinstance(attempt(lambda: check(space, base), 2), Refusal):
            return
        for point in corners(space, base):
            suggested: dict[str, Any] = {}

            def suggest(p: Parameter, suggested: dict[str, Any] = suggested) -> Any:
                suggested[p.name] = p.choices[-1] if p.choices else p.high
                assert not p.choices or all(c is None or isinstance(c, str | int | float | bool) for c in p.choices)
                return suggested[p.name]

            again = fields(space, base, suggest)
            assert fields(space, base, lambda p, suggested=suggested: suggested[p.name]) == again
            assert set(point) <= set(space)


TARGETS = {
    "ablation": Target(ablations.filter(complete), _ablation),
    "search": Target(searches.filter(complete), _search),
    "space": Target(spaces.filter(complete), _space),
}
