"""A search: a space, objectives on validation and a budget of trials. The best is trained again on new seeds and tested."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import catalog
from harness.errors import Faults, UserError, counted, look_up, shown
from harness.scores import Score, Scores, costs, on_test, qualities
from harness.scores.rows import ELBO_VALIDATION
from harness.spec import FIELDS, TrialSpec, unfinished
from harness.study import forms, kinds
from harness.study.ablation import Ablation, Budget, Cell, Hypothesis
from harness.study.scores import comparable, rows_with, take_metrics
from harness.study.sizes import check_number, number_of
from harness.study.space import Axis, Space, Suggest, check, conditional, corners, fields, pinned
from harness.study.strategy import MODEL_BASED, PRUNERS, SAMPLERS, Constraint, Pruner, SearchBudget

# Fields that define the comparison and so cannot be searched.
FIXED = ("dataset", "dataset_args", "fit_on", "seed", "epochs", "evaluation")
GP_TRIALS = 200  # with more trials a Gaussian process takes seconds to fit
BATCH = 8  # the most trials that a model-based sampler suggests at once
MOST_REFITS = 3
KINDS: Mapping[str, kinds.Kind] = {
    "sampler": kinds.TEXT_OR_NONE,
    "pruner": kinds.one(Pruner, optional=True),
    "batch": kinds.one(int, optional=True),
}


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search for the best point of a space, on validation only. The best and the base are then tested on new seeds.

    A point that is suggested again is trained on the next seed.

    Attributes:
        base: the spec that the points of the space are changes of.
        space: axes by field of a trial; later ones may depend on earlier ones by `when`.
        objectives: one score of quality, or it and scores of cost: the report then shows what one costs in terms of the others.
        budgets: how much the search may spend, by name; one is called `default`.
        seeds: a trial trains once on each, and its value is their mean.
        sampler: one of `SAMPLERS`; by default `gp` up to 200 trials, and `tpe` beyond or in a conditional space.
        pruner: how hopeless trials are ended early; None to end none.
        constraints: bounds that a winner must keep.
        batch: the trials suggested at once; by default as many as train at a time, for model-based samplers at most 8.
        metrics: scores of the search's own, as references such as `sharpness.py:SHARPNESS`. Those of validation may be objectives
            of quality, and those with a direction in the section of cost may be objectives and bounds.

    Raises:
        UserError: an unknown name, a bound that makes no sense, or an objective that cannot rank; before anything runs.
    """

    base: TrialSpec
    space: Space
    objectives: Sequence[str]
    budgets: Mapping[str, SearchBudget]
    seeds: Sequence[int] = (0,)
    sampler: str | None = None
    pruner: Pruner | None = None
    constraints: tuple[Constraint, ...] = ()
    batch: int | None = None
    metrics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        held = {
            "objectives": (self.objectives, str),
            "constraints": (self.constraints, Constraint),
            "metrics": (self.metrics, object),
        }
        faults = Faults(forms.faults(self.base, self.budgets, SearchBudget, held))
        faults.found += filter(None, (forms.axes_fault(self.space, Axis), forms.seeds_fault(self.seeds)))
        faults.found += kinds.wrong(self, KINDS)
        faults.check()
        for name, budget in self.budgets.items():
            trials = budget.trials if type(budget.trials) is int else 0  # what else it may be is judged below
            check_number(name, trials * number_of(self.seeds) + number_of(budget.refit_seeds), "search and refit")
        take_metrics(self)
        object.__setattr__(self, "space", {name: pinned(name, axis) for name, axis in self.space.items()})
        if self.base.fit_on != "train":
            raise UserError(f"fit_on={self.base.fit_on!r}: nothing is left to select on")
        for name in self.space:
            look_up(dict.fromkeys(FIELDS), name.partition(".")[0], "field of a trial")
            if name.partition(".")[0] in FIXED:
                raise UserError(f"space {name!r}: it says what is compared and cannot be searched")
        if not self.space:
            raise UserError("a search needs a space")
        check(self.space, self._fields)
        self._check_objectives(self._corners())
        for words in unfinished(self._longest_rises()):
            raise UserError(f"budget 'default': {words}\ngive the budget more epochs, or the base and the space less of it")
        self._check_sampler()
        self._check_pruner()
        for c in self.constraints:
            look_up({s.key: s for s in costs(self.scores)}, c.score, "score of cost")
            if (c.at_most is None) == (c.at_least is None):
                raise UserError(f"constraint on {c.score!r}: give at_most or at_least")
        for name, budget in self.budgets.items():
            if budget.fault():
                raise UserError(f"budget {name!r}: {budget.fault()}")
        for name, budget in self.budgets.items():
            if set(budget.refit_seeds) & set(self.seeds):
                raise UserError(f"budget {name!r}: the best must be tested on seeds that it was not chosen on")
            if (largest := self._beyond * budget.trials) >= 2**31:
                raise UserError(
                    f"budget {name!r}: a point that is suggested again takes seeds of its own, up to {largest:,}\n"
                    "give smaller seeds: trials times the largest must be below 2**31"
                )
            self.judged(name, {})

    @property
    def _fields(self) -> dict[str, Any]:
        """The fields of the base by name, and the arguments in them by names such as `likelihood_args.sigma`."""
        values = {name: getattr(self.base, name) for name in FIELDS}
        return values | {f"{of}.{name}": value for of in catalog.ARGUMENTS for name, value in values[of].items()}

    def _corners(self) -> list[TrialSpec]:
        """Return trials that together meet every bound and every choice of the space."""
        return [self._derive(point) for point in corners(self.space, self._fields)]

    def _longest_rises(self) -> TrialSpec:
        """Return the base for the epochs of the default budget, with the longest warm-ups that the space has."""
        points = self._corners()
        rises = {name: max(getattr(p, name) for p in points) for name in ("kl_warmup", "kl_cycle", "learning_rate_warmup")}
        return self.base.derive(**rises, epochs=self.budgets["default"].epochs)

    @property
    def scores(self) -> Scores:
        """The rows of all scores that the search may name and that its report shows, by key."""
        return rows_with(self.metrics)

    def trials(self, budget: str) -> tuple[TrialSpec, ...]:
        """Return trials with all that a budget may try: the base, and corners of the space."""
        return (self.base, *self._corners())

    def _derive(self, point: Mapping[str, Any]) -> TrialSpec:
        """Return the spec of a point of the space, with scores on validation alone.

        Raises:
            UserError: the point is no valid trial; the message shows the point.
        """
        try:
            return self.base.derive(**point, evaluation="validation")
        except UserError as fault:
            raise UserError(f"the space holds {shown(point)}: {fault}") from None

    def _check_objectives(self, points: Sequence[TrialSpec]) -> None:
        """Raise an error if the objectives cannot select among these points.

        Raises:
            UserError: an unknown objective, one on the test set, not exactly one score of quality, or one that cannot rank them.
        """
        qualities_by_key = {s.key: s for s in qualities(self.scores)}
        known = qualities_by_key | {s.key: s for s in costs(self.scores)}
        for name in self.objectives:
            if name in self.scores and self.scores[name].images == "test":
                raise UserError(f"objective {name!r}: the test set must not select\nknown: {', '.join(known)}")
            look_up(known, name, "objective")
        quality = [qualities_by_key[o] for o in self.objectives if o in qualities_by_key]
        if len(quality) != 1 or len(set(self.objectives)) < len(self.objectives):
            names_known = ", ".join(qualities_by_key)
            raise UserError(f"objectives: one of {names_known}, and beside it scores of cost; got {list(self.objectives)}")
        by_average = sorted(points, key=lambda spec: -spec.ema_decay)  # of equal likelihoods one without an average counts
        names = {", ".join((spec.likelihood, *map(str, spec.likelihood_args.values()))): spec for spec in by_average}
        try:
            comparable(quality[0], names, f"objective {quality[0].key!r}", self.scores)
        except UserError as fault:
            others = [key for key, score in qualities_by_key.items() if score.tier != "A" and "average" not in score.needs]
            raise UserError(f"{str(fault).splitlines()[0]}\nany likelihood can be ranked by {' or '.join(others)}") from None

    def _check_sampler(self) -> None:
        """Raise an error if the sampler or the batch is wrong.

        Raises:
            UserError: the sampler is unknown or takes no conditional space, or the batch is below 1.
        """
        if self.sampler is not None:
            look_up(SAMPLERS, self.sampler, "sampler")
        if self.sampler == "gp" and conditional(self.space):
            raise UserError("sampler 'gp' takes no conditional space (`when`, Widths of several layers)\n'tpe' would do")
        if self.batch is not None and self.batch < 1:
            raise UserError(f"batch must be at least 1, got {self.batch}")

    def _check_pruner(self) -> None:
        """Raise an error if the pruner or the seeds are wrong.

        Raises:
            UserError: an unknown pruner, or one that does not fit objectives or seeds; without one, missing or repeated seeds.
        """
        if self.pruner is None:
            if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
                raise UserError(f"seeds must be given and differ, got {list(self.seeds)}")
            return
        look_up(PRUNERS, self.pruner.name, "pruner")
        if len(self.objectives) > 1:
            raise UserError("a pruner ends trials by one objective, and this search has several")
        if self.pruner.name == "wilcoxon":
            min_seeds = self.pruner.seeds_to_judge + 1  # a trial pruned after its last seed would save nothing
            if len(self.seeds) < min_seeds:
                raise UserError(f"pruner 'wilcoxon' compares trials over seeds: give {min_seeds} or more, got {len(self.seeds)}")
        elif self.objectives[0] != ELBO_VALIDATION.key or len(self.seeds) > 1:
            raise UserError(
                f"pruner {self.pruner.name!r} looks at every epoch of one seed, where only {ELBO_VALIDATION.key!r} is known; "
                f"got {self.objectives[0]!r} on {len(self.seeds)} seeds"
            )

    def sampler_of(self, budget: str) -> str:
        """Return the name of the sampler of a budget: the one that the search names, or else the one that fits."""
        if self.sampler is not None:
            return self.sampler
        few_trials = look_up(self.budgets, budget, "budget").trials <= GP_TRIALS
        return "gp" if few_trials and not conditional(self.space) else "tpe"

    def batch_of(self, budget: str, workers: int) -> int:
        """Return the number of trials to suggest at once if `workers` trials train at a time."""
        return self.batch or (min(workers, BATCH) if self.sampler_of(budget) in MODEL_BASED else workers)

    @property
    def timed(self) -> bool:
        """True if the time of a trial is judged, so that it must train alone in its program."""
        return any(self.scores[s].timed for s in (*self.objectives, *(c.score for c in self.constraints)))

    def point(self, budget: str, suggest: Suggest) -> TrialSpec:
        """Return the trial at the point that `suggest` gives, parameter by parameter, on the first seed."""
        epochs = look_up(self.budgets, budget, "budget").epochs
        return self._derive(fields(self.space, self._fields, suggest) | {"epochs": epochs, "seed": self.seeds[0]})

    @property
    def _beyond(self) -> int:
        """A number above every seed of the search and of the test of its best."""
        return 1 + max(max((*self.seeds, *budget.refit_seeds)) for budget in self.budgets.values())

    def cells(self, number: int, spec: TrialSpec, repeat: int = 0) -> tuple[Cell, ...]:
        """Return the runs of a trial, one per seed.

        `repeat` is how often the point has been suggested before: it then gets seeds of its own, beyond those that the best is
        tested on.
        """
        shift = repeat * self._beyond
        return tuple(Cell(f"#{number}", s + shift, spec.derive(seed=s + shift)) for s in self.seeds)

    def judged(self, budget: str, winners: Mapping[str, TrialSpec]) -> Ablation:
        """Return the test of the search: the base and the winners, by name, as an ablation on new seeds."""
        look_up(self.budgets, budget, "budget")
        arms: dict[str, Mapping[str, Any]] = {"base": {}}
        for name, spec in winners.items():
            changed = {f: getattr(spec, f) for f in FIELDS if getattr(spec, f) != getattr(self.base, f) and f not in FIXED}
            if changed and changed not in arms.values():
                arms[name] = changed
        test_metric = on_test(self.quality, self.scores).key
        return Ablation(
            base=self.base,
            arms=arms,
            budgets={n: Budget(epochs=b.epochs, seeds=b.refit_seeds, evaluation=b.evaluation) for n, b in self.budgets.items()},
            hypotheses=tuple(Hypothesis(better=a, worse="base", metric=test_metric) for a in list(arms)[1:2]),
            objective=self.quality.key,
            metrics=self.metrics,
        )

    @property
    def varied(self) -> tuple[str, ...]:
        """The fields of a trial that are searched, in the order of the space."""
        return tuple(self.space)

    @property
    def quality(self) -> Score:
        """The objective that says how good a model is."""
        return next(s for s in qualities(self.scores) if s.key in self.objectives)

    @property
    def search(self) -> "Search":
        """This search, whose trials come before the judged arms."""
        return self

    @property
    def part(self) -> str:
        """The name of the judged trials within the study."""
        return "refit"

    @property
    def most_arms(self) -> int:
        """The most arms that are trained again: the base and the best, of which several objectives have several."""
        return 2 if len(self.objectives) == 1 else 1 + MOST_REFITS

    def runs(self, budget: str) -> int:
        """Return about how many runs a budget has."""
        chosen = self.budgets[budget]
        return chosen.trials * len(self.seeds) + self.most_arms * len(chosen.refit_seeds)

    def shape(self, budget: str) -> str:
        """Return the size of a budget in words."""
        chosen = self.budgets[budget]
        seeds = f" x {len(self.seeds)} seeds" if len(self.seeds) > 1 else ""
        refit = f"then the best against the base on {len(chosen.refit_seeds)} new seeds"
        return f"{counted(chosen.trials, 'trial')}{seeds} by {self.sampler_of(budget)}, {refit}"

    @property
    def constraints_in_words(self) -> str:
        """The constraints, each with its score and bound."""
        return "; ".join(
            f"{self.scores[c.score].label} of at {'most' if c.at_most is not None else 'least'} "
            f"{(c.at_most if c.at_most is not None else c.at_least):,g}"
            for c in self.constraints
        )

    def note(self, budget: str) -> str:
        """Return the text above the experiment in MLflow, in Markdown."""
        chosen = self.budgets[budget]
        constraints = f" Constraints: {self.constraints_in_words}." if self.constraints else ""
        pruner = f", pruned by {self.pruner.name}" if self.pruner else ""
        seeds = f" on each of {len(self.seeds)} seeds" if len(self.seeds) > 1 else ""
        return (
            f"Budget `{budget}`: {counted(chosen.trials, 'trial')} of {counted(chosen.epochs, 'epoch')}{seeds} "
            f"by {self.sampler_of(budget)}{pruner}, "
            f"over {', '.join(f'`{name}`' for name in self.space)}. "
            f"Objectives, on validation: {', '.join(f'`{o}`' for o in self.objectives)}.{constraints}\n\n"
            f"The best is then trained again beside the base on {len(chosen.refit_seeds)} new seeds, and both are tested: the arms "
            "`base` and the winners'. A trial's own value is the best of many draws and so looks better than it is."
        )
