"""Changes from the command line: `--set KEY=VALUE`, `--arms a,b`, and names with changes in brackets."""

from typing import Any

from hypothesis import strategies as st

from fuzzing import Target
from fuzzing.bounds import Refusal, a_home, attempt
from fuzzing.values import changed, texts
from harness import study
from harness.spec import FIELDS
from harness.study.overrides import Overrides, apply, data_set, split

STUDIES = ("loss_ablation", "learning_rate_search", "latent_size")
KEYS = (*FIELDS, "budget.epochs", "epochs", "seeds", "budget.seeds", "trials", "looks", "refit_seeds",
    "likelihood_args.sigma", "network_args.norm",
        "budget", "budget.x", "seed")  # fmt: skip
VALUES = ("10", "1e-3", "range(3)", "range(2,8)", "(0,1,2)", "(64,32)", "relu", "'mlp'", "True", "None", "nan", "inf", "-1",
    "1e999", "[", "{'df': 3}",
          "9" * 5_000, "0x" + "f" * 5_000, "(" * 300, "range(10**7)", "range(0,10000000)", "range(1,2,0)", "1_0", "'\\x00'",
              "b'x'", "{1}", "...", "1j",
          "((0,),)", "x.py:F", "[1,[2]]", "-" * 500 + "1", "range(3,)", "{}", "()", "(1,)", "'a,b'", "\"", "=")  # fmt: skip
settings = changed(st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from(VALUES)), texts)
arms = st.one_of(st.sampled_from(("bce", "mse", "bernoulli", "bec", "a+b", "a,b", "[", "]", "x" * 300, "('bce',)")), texts)
inputs = st.tuples(st.sampled_from(STUDIES), st.lists(settings, max_size=2), st.lists(arms, max_size=2))


def _changed(given: tuple[str, list[str], list[str]]) -> None:
    name, changes, kept = given
    overrides = Overrides(tuple(changes), tuple(kept))
    with a_home():
        original = study.load(name).study
        result = attempt(lambda: apply(original, overrides), 2)
        if isinstance(result, Refusal):
            return
        built, suffix = result
        assert "/" not in suffix
        assert len(suffix) < 150
        loaded = attempt(lambda: study.load(f"{name}{overrides}"), 2)
        if overrides and not isinstance(loaded, Refusal):
            assert loaded.name == name + suffix
            assert loaded.study == built
        for budget in built.budgets:
            assert built.runs(budget)
            assert built.shape(budget)


def _split(given: str) -> None:
    name, overrides = split(given)
    assert given == name or overrides or given.endswith("[]") or "[" in given
    assert split(name + str(overrides))[0] == name or "[" in name


def _loaded(given: str) -> None:
    with a_home():
        attempt(lambda: study.check(given, "default"), 2)


def _data_set(given: tuple[str, list[str]]) -> None:
    with a_home():
        attempt(lambda: data_set(given[0], given[1]), 2)


references = changed(
    st.sampled_from(
        (
            "loss_ablation",
            "loss_ablation[latent=10,arms=bce+mse]",
            "harness.studies.loss_ablation",
            "./x.py",
            "a.b",
            "~nobody/x.py",
            "learning_rate[x",
        )
    ),
    texts,
)
sets: Any = st.tuples(
    changed(st.sampled_from(("shapes", "digits", "mnist", "npz:x.npz", "images:.", "idx:.", "x.py:f")), texts),
    st.lists(
        changed(
            st.builds("dataset_args.{}={}".format, st.sampled_from(("size", "channels", "resize")), st.sampled_from(VALUES)), texts
        ),
        max_size=2,
    ),
)
TARGETS = {
    "override": Target(inputs, _changed),
    "brackets": Target(references, _split),
    "reference": Target(references, _loaded),
    "data set": Target(sets, _data_set),
}
