"""An ablation: arms x seeds, and hypotheses about the arms. Torch is not imported here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness import catalog
from harness.errors import Faults, UserError, counted, look_up, shown
from harness.scores import Scores, compared
from harness.scores.rows import VALIDATION_SQUARED_ERROR
from harness.spec import TrialSpec, flattened, unfinished
from harness.study import forms
from harness.study.kinds import LOOKS, NUMBER_OR_NONE, TEXT, TEXT_OR_NONE, WHOLE, wrong
from harness.study.scores import comparable, impossible, row_named, rows_with, take_metrics
from harness.study.sizes import check_number, in_digits, number_of


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """The claim that arm `better` beats arm `worse` on the score `metric`.

    It is registered if it is in the study's file when the first trial of its arms is begun (docs/honesty.md).

    Attributes:
        better, worse: names of arms.
        metric: the key of the score.
        margin: a difference of the score that would not matter. With one, the verdict may also be "equal": shown to differ by less.
    """

    better: str
    worse: str
    metric: str
    margin: float | None = None

    def in_words(self, scores: Scores) -> str:
        """Return the claim as a sentence, with the label that its score has in `scores`."""
        return f"{self.better} beats {self.worse} on {scores[self.metric].label}"

    def fault(self) -> str:
        """Return what is wrong with the claim itself, whatever the study; empty if nothing is."""
        if kinds := wrong(self, {"better": TEXT, "worse": TEXT, "metric": TEXT, "margin": NUMBER_OR_NONE}):
            return "\n".join(kinds)
        if self.better == self.worse:
            return f"hypothesis on {self.metric}: an arm cannot beat itself, got {self.better!r} twice"
        if self.margin is not None and not self.margin > 0:
            return f"hypothesis on {self.metric}: margin must be a finite number above 0, got {self.margin!r}"
        return ""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much a study spends.

    Attributes:
        epochs: of every trial.
        seeds: of every arm.
        evaluation: how deep the final scores go.
        looks: the numbers of seeds at which verdicts are due, such as (6, 10, 16), the last of which is all; a study stops at the
            first at which all claims are settled. Empty for one look, at all seeds.
    """

    epochs: int
    seeds: Sequence[int]
    evaluation: str = "quick"
    looks: Sequence[int] = ()

    @property
    def planned_looks(self) -> tuple[int, ...]:
        """The numbers of seeds at which verdicts are due: `looks`, or else all seeds."""
        return tuple(self.looks) or (len(self.seeds),)

    def fault(self) -> str:
        """Return what is wrong with seeds or looks; empty if nothing is."""
        fault = "\n".join(wrong(self, {"epochs": WHOLE, "evaluation": TEXT, "looks": LOOKS})) or forms.seeds_fault(self.seeds)
        if fault or not number_of(self.looks):
            return fault
        whole = number_of(self.looks) <= len(self.seeds) and all(type(n) is int and n >= 2 for n in self.looks)
        if whole and list(self.looks) == sorted(set(self.looks)) and self.looks[-1] == len(self.seeds):
            return ""
        return (
            f"looks must be rising numbers of seeds from 2 up to all, which are {len(self.seeds)}, such as "
            f"({max(2, len(self.seeds) // 2)}, {len(self.seeds)}); got {shown(self.looks)}"
        )


class Cell(NamedTuple):
    """One trial of the plan: an arm, a seed and the spec of both."""

    arm: str
    seed: int
    spec: TrialSpec


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Arms x seeds. Each arm is a change to `base`; all arms have the same seeds, so that they are compared in pairs.

    Attributes:
        base: the spec that the arms change.
        arms: the changed fields of the base by name of the arm. Differences are taken against the first arm.
        budgets: how much the study may spend, by name; one is called `default`.
        hypotheses: what is claimed; the verdicts on all of them share one level of 5 %, so each makes the others harder to show.
        objective: the score on validation that picks the winner, whose model is kept; its row says which way is better.
        metrics: scores of the study's own, as references such as `sharpness.py:SHARPNESS`.

    Raises:
        UserError: an unknown field, name, arm or score, or a ranking across scales; before anything runs.
    """

    base: TrialSpec
    arms: Mapping[str, Mapping[str, Any]]
    budgets: Mapping[str, Budget]
    hypotheses: tuple[Hypothesis, ...] = ()
    objective: str | None = VALIDATION_SQUARED_ERROR.key
    metrics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lists = {"hypotheses": (self.hypotheses, Hypothesis), "metrics": (self.metrics, object)}
        faults, of_parts = Faults(forms.arm_faults(self.arms)), forms.faults(self.base, self.budgets, Budget, lists)
        for name, budget in () if faults.found or of_parts else self.budgets.items():
            arms, seeds = len(self.arms), number_of(budget.seeds)
            check_number(name, arms * seeds, f"{arms:,} arms x {in_digits(seeds)} seeds")
        specs: dict[str, TrialSpec] = {}
        if isinstance(self.base, TrialSpec) and not forms.arm_faults(self.arms):
            with faults.noted():
                take_metrics(self)
            object.__setattr__(self, "arms", {arm: catalog.pinned_in(fields) for arm, fields in self.arms.items()})
            for arm, changes in self.arms.items():
                with faults.noted():
                    specs[arm] = self._spec(arm)
                faults.found += [
                    f"arm {arm!r}: a budget sets the {field}, for all arms alike" for field in forms.OF_BUDGETS if field in changes
                ]
        faults.found += [*of_parts, *wrong(self, {"objective": TEXT_OR_NONE})]
        faults.check()
        with faults.noted():
            self._check_arms(specs)
        for hypothesis in self.hypotheses:
            with faults.noted():
                self._check_claim(hypothesis, specs)
        faults.check()
        compared = [(frozenset((h.better, h.worse)), h.metric) for h in self.hypotheses]
        for pair in dict.fromkeys(compared):
            if compared.count(pair) > 1:
                faults.found.append(
                    f"two hypotheses compare {' and '.join(sorted(pair[0]))} on {pair[1]!r}\n"
                    "one is enough: its verdict says whether it or the reverse is shown"
                )
        for name in self.budgets:
            with faults.noted():
                self._check_budget(name)
        faults.check()

    def _check_arms(self, specs: Mapping[str, TrialSpec]) -> None:
        """Raise an error if arms cannot be compared, or not by the objective.

        Raises:
            UserError: they are of several data sets, or the objective is unknown or cannot rank them.
        """
        datasets = sorted({spec.dataset for spec in specs.values()})
        if len(datasets) > 1:
            raise UserError(f"arms are compared on one data set, got {', '.join(datasets)}")
        arguments = {repr(spec.dataset_args): None for spec in specs.values()}
        if len(arguments) > 1:
            raise UserError(f"arms are compared on one data set, got dataset_args {' and '.join(arguments)}")
        if self.objective is not None:
            objective = row_named(self.scores, self.objective)
            comparable(objective, specs, f"objective {self.objective!r} ranks all arms", self.scores)
            if "exact" in objective.needs:
                raise UserError(
                    f"objective {self.objective!r}: a trial has none where the quadrature does not resolve it; name another"
                )

    def _check_claim(self, hypothesis: Hypothesis, specs: Mapping[str, TrialSpec]) -> None:
        """Raise an error if a hypothesis cannot be judged.

        Raises:
            UserError: an unknown score or arm, a claim that says nothing, or a score that cannot rank the two.
        """
        if hypothesis.fault():
            raise UserError(hypothesis.fault())
        score = row_named(self.scores, hypothesis.metric)
        for arm in (hypothesis.better, hypothesis.worse):
            look_up(self.arms, arm, "arm")
        claim = f"hypothesis '{hypothesis.in_words(self.scores)}'"
        if not score.better:
            raise UserError(f"{claim}: {hypothesis.metric!r} has no better or worse direction")
        comparable(score, {a: specs[a] for a in (hypothesis.better, hypothesis.worse)}, claim, self.scores)

    def _check_budget(self, name: str) -> None:
        """Raise an error if a budget makes no sense.

        Raises:
            UserError: its seeds or looks are wrong, or its trials are, are equal, or would train for nothing.
        """
        budget = self.budgets[name]
        if budget.fault():
            raise UserError(f"budget {name!r}: {budget.fault()}")
        if budget.looks and not self.hypotheses:
            raise UserError(f"budget {name!r}: looks are at hypotheses, and the study states none")
        cells = self.cells(name)
        self._check_scored(name)
        if not budget.seeds or len(set(budget.seeds)) < len(budget.seeds):
            raise UserError(f"budget {name!r}: seeds must be given and differ, such as range(3); got {shown(budget.seeds)}")
        same: dict[str, str] = {}
        for cell in cells:
            if (other := same.setdefault(cell.spec.id, cell.arm)) != cell.arm:
                raise UserError(f"budget {name!r}: arms {other!r} and {cell.arm!r} are the same trial: change one, or leave it out")

    def _check_scored(self, budget: str) -> None:
        """Raise an error if trials of a budget would train for nothing, which would be found after their training only.

        Raises:
            UserError: an arm has no objective by which to choose, or a rise that is set in epochs takes more of them than the
                default budget has. Shorter budgets, for trying a study out, say so instead.
        """
        for cell in {c.arm: c for c in self.cells(budget)}.values():
            reason = impossible(self.scores[self.objective], cell.spec) if self.objective is not None else ""
            if reason:
                raise UserError(
                    f"arm {cell.arm!r}, budget {budget!r}: objective {self.objective!r} {reason}, so that none can be computed\n"
                    "name another objective, or None"
                )
            if budget == "default" and unfinished(cell.spec):
                raise UserError(
                    f"arm {cell.arm!r}, budget {budget!r}: {'; '.join(unfinished(cell.spec))}\n"
                    "give the budget more epochs, or the arm less of it"
                )

    def _spec(self, arm: str) -> TrialSpec:
        """Return the spec of an arm, with the base's seed.

        Raises:
            UserError: a wrong field or value; the message names the arm.
        """
        try:
            return self.base.derive(**self.arms[arm])
        except UserError as fault:
            raise UserError(f"arm {arm!r}: {fault}") from None

    @property
    def scores(self) -> Scores:
        """The rows of all scores that the study may name and that its report shows, by key."""
        return rows_with(self.metrics)

    def trials(self, budget: str) -> tuple[TrialSpec, ...]:
        """Return the trials of a budget."""
        return tuple(cell.spec for cell in self.cells(budget))

    def cells(self, budget: str, seeds: int | None = None) -> tuple[Cell, ...]:
        """Return the trials of a budget, seed by seed; of its first `seeds` seeds, or of all.

        In this order whatever is finished first is balanced over the arms.
        """
        chosen = look_up(self.budgets, budget, "budget")
        return tuple(
            Cell(arm, seed, self._spec(arm).derive(seed=seed, epochs=chosen.epochs, evaluation=chosen.evaluation))
            for seed in tuple(chosen.seeds)[:seeds]
            for arm in self.arms
        )

    @property
    def search(self) -> None:
        """None, because an ablation searches nothing before its arms are trained."""
        return None

    @property
    def part(self) -> str:
        """The empty name, because the trials of an ablation are the whole study."""
        return ""

    @property
    def varied(self) -> tuple[str, ...]:
        """The fields of a trial that differ between arms, in the order in which arms name them."""
        return tuple(dict.fromkeys(name for changes in self.arms.values() for name in flattened(changes)))

    def judged(self, budget: str, winners: Mapping[str, TrialSpec]) -> "Ablation":
        """Return this ablation, because all its arms are stated in it."""
        return self

    def runs(self, budget: str) -> int:
        """Return the number of runs of a budget."""
        return len(self.cells(budget))

    def shape(self, budget: str) -> str:
        """Return the size of a budget in words."""
        chosen = self.budgets[budget]
        looks = f", judged at {', '.join(map(str, chosen.looks))}" if chosen.looks else ""
        rises = {words: None for cell in self.cells(budget) for words in unfinished(cell.spec)}
        return "; ".join([f"{counted(len(self.arms), 'arm')} x {counted(len(chosen.seeds), 'seed')}{looks}", *rises])

    def note(self, budget: str) -> str:
        """Return the text above the experiment in MLflow, in Markdown, to which a report adds the verdicts."""
        shown = [s.key for rows in compared(self.scores).values() for s in rows if s.headline and s.better and s.images == "test"]
        return (
            f"Budget `{budget}`: {self.shape(budget)}, {counted(self.budgets[budget].epochs, 'epoch')}.\n\n"
            "ELBO = reconstruction - KL, nats per image, beta = 1. Native ELBOs of different likelihoods live on different scales: "
            f"compare arms by {', '.join(f'`{key}`' for key in shown)}."
        )
