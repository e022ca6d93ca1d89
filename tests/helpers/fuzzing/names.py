"""Names of arms, studies and questions, where they are shown and where stores are asked for them."""

import io
from typing import Any

from hypothesis import strategies as st
from rich.console import Console

from fuzzing import Target
from fuzzing.bounds import Refusal, a_home, attempt, few_calls
from fuzzing.values import texts
from harness import errors, paths
from harness.spec import TrialSpec
from harness.study import Ablation, Budget
from harness.tracking.layout import views


def _command(given: str) -> None:
    """A name comes out of an advised command as it went in: it can be pasted."""
    import shlex

    with few_calls():
        assert given in shlex.split(paths.command("study", name=given))[-1] or not given


def _advised(given: tuple[str, list[str]]) -> None:
    """A name that nobody knows is shown as it is, on whatever channel."""
    with few_calls():
        text = str(errors.unknown("arm", *given))
        shown = io.StringIO()
        Console(file=shown, soft_wrap=True, highlight=False, markup=False, emoji=False).print(text)
        assert repr(given[0]) in shown.getvalue()


def _arms(given: list[str]) -> None:
    with a_home():
        arms = {name: {"latent": i + 1} for i, name in enumerate(given)}
        study: Any = attempt(
            lambda: Ablation(
                base=TrialSpec(dataset="digits"), arms=arms, budgets={"default": Budget(epochs=1, seeds=range(2))}, objective=None
            ),
            2,
        )
        if not isinstance(study, Refusal):
            assert {cell.arm for cell in study.cells("default")} == set(given)
            assert views(study.scores, study.varied, 1, "parent")


printable = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
TARGETS = {
    "name in a command": Target(printable, _command),
    "unknown name": Target(st.tuples(printable, st.lists(printable, max_size=3)), _advised),
    "names of arms": Target(st.lists(texts, min_size=1, max_size=3, unique=True), _arms),
}
