"""The runs of a study in MLflow: one experiment per study and budget, with a parent run and a child run per trial."""

import sys
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness import provenance
from harness.errors import MachineError
from harness.figures.schedule import FOLDER as IMAGES
from harness.scores import SCORES, Scores, diverged
from harness.scores.rows import ELBO_TRAIN
from harness.spec import Result, TrialSpec, flattened
from harness.stores import databases
from harness.tracking import library
from harness.tracking.absent import refuse_deleted, refuse_renamed
from harness.tracking.description import NOTE, figures_among, trial_note
from harness.tracking.layout import MEANS_KEY, NOT_SUPERSEDED, SUPERSEDED, views
from harness.tracking.parent import TAG_LIMIT, ParentRun
from harness.tracking.protocol import MANIFEST, MANIFEST_TAG, Record
from harness.tracking.store import PAGE, PatientClient, artifact_location, ensure_store, experiment_name, run_page, study_page

PARENT = "mlflow.parentRunId"  # the tag by which MLflow nests a run in another
COLOUR, WITH_IMAGES = "mlflow.runColor", "mlflow.loggedImages"  # the tags of a run's colour in charts, and that it has images
PARAM_LIMIT = 6_000  # the same of a parameter's


def params_of(spec: Mapping[str, Any], trial: str, arm: str) -> dict[str, str]:
    """Return the parameters of the run of a trial, given the fields of its spec as JSON values, its id and its arm."""
    return {k: str(v)[:PARAM_LIMIT] for k, v in {"arm": arm, "spec": trial, **flattened(spec)}.items()}


class MlflowTracker(ParentRun):
    """The `Tracker` of one study and budget in MLflow.

    Its experiment and its parent run are created if there are none.

    Args:
        study: its name.
        budget: its name.
        note: the text above the experiment, in Markdown, until a report adds its verdicts.
        scores: the rows of the scores that the charts show.
        varied: the fields that differ between trials, which are shown as columns.
        epochs: of its trials.
        colours: of its arms in charts, "#rrggbb" by arm; of other arms MLflow chooses one for each run.

    Raises:
        MachineError: the tracking store cannot be used.
    """

    def __init__(
        self,
        study: str,
        budget: str,
        note: str,
        *,
        scores: Scores = SCORES,
        varied: Sequence[str] = (),
        epochs: int = 1,
        colours: Mapping[str, str] | None = None,
    ) -> None:
        self.study, self.budget, self.note = study, budget, note
        self.experiment = experiment_name(study, budget)
        uri = ensure_store()
        self.client = PatientClient()
        try:
            self.experiment_id = self._experiment(uri)
        except library.failures(OSError) as fault:
            raise MachineError(
                f"cannot use the tracking store {databases.redacted(uri)}\n{str(fault).splitlines()[0][:300]}"
            ) from None
        self.scores, self.colours = scores, dict(colours or {})
        self.parent = self._parent()
        arranged = views(scores, varied, epochs, self.parent)
        wanted = {f"mlflow.sharedViewState.{key}": text for key, text in arranged.items()}
        wanted["mlflow.experimentKind"] = "custom_model_development"
        existing = self.client.get_experiment(self.experiment_id).tags
        for key, value in wanted.items():
            if existing.get(key) != value:  # starting a finished study again must not change the store
                self.client.set_experiment_tag(self.experiment_id, key, value)
        if NOTE not in existing:
            self.describe(note)

    def _experiment(self, uri: str) -> str:
        """Return the id of the study's experiment, which is created if there is none."""
        experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is not None:
            refuse_deleted(experiment)
            return str(experiment.experiment_id)
        refuse_renamed(self.client, self.study, self.budget)
        return str(self.client.create_experiment(self.experiment, artifact_location=artifact_location(self.experiment)))

    def _search(self, condition: str, most: int = PAGE) -> list[Any]:
        """Return the first runs of the experiment that meet a condition, at most `most`."""
        return list(
            self.client.search_runs(
                [self.experiment_id], condition, library.mlflow().entities.ViewType.ACTIVE_ONLY, max_results=most
            )
        )

    def _parent(self) -> str:
        """Return the id of the study's parent run, which is created if there is none.

        A new one, after the first was deleted in MLflow, takes over its trials' runs.
        """
        parents = self._search("tags.kind = 'study'", 1)
        if parents:
            return str(parents[0].info.run_id)
        tags = self._code | {"kind": "study", "study": self.study, "budget": self.budget}
        orphans = self.matching("tags.kind = 'trial'")
        parent = str(self.client.create_run(self.experiment_id, tags=tags, run_name=f"{self.experiment}: the study").info.run_id)
        for orphan in orphans:
            self.client.set_tag(orphan.info.run_id, PARENT, parent)
        if orphans:
            print(f"the study's parent run was deleted in MLflow: {len(orphans)} runs have a new one", file=sys.stderr)
        return parent

    @cached_property
    def _code(self) -> dict[str, str]:
        """The tags that every run of this process has. Asking for the versions in them takes a third of a run's beginning."""
        return provenance.tags()

    def shown(self, arm: str) -> dict[str, str]:
        """Return the tags by which MLflow nests and colours a trial's run of this arm."""
        colour = self.colours.get(arm)
        return {PARENT: self.parent} | ({COLOUR: colour} if colour else {})

    @property
    def ui_path(self) -> str:
        """The path of the study's page in the MLflow UI."""
        return study_page(self.experiment_id)

    def run_path(self, run: str) -> str:
        """Return the path of a run's page in the MLflow UI."""
        return run_page(self.experiment_id, run)

    @property
    def pages(self) -> dict[str, str]:
        """The paths of the study's pages in the MLflow UI, by what they show."""
        return {
            "every seed": self.ui_path,
            "means of the arms": study_page(self.experiment_id, MEANS_KEY),
            "the study's own run, with report and winner": self.run_path(self.parent),
        }

    def begin(self, spec: TrialSpec, arm: str, trial: int, attempt: int, origin: Mapping[str, str]) -> str:
        """Open a run for a trial, with its tags, parameters, spec.json and data set, and return its id."""
        tags = self._code | {
            "kind": "trial",
            "study": self.study,
            "budget": self.budget,
            "cell": spec.id,
            "arm": arm,
            "seed": str(spec.seed),
            "trial": str(trial),
            "attempt": str(attempt),
            SUPERSEDED: NOT_SUPERSEDED,
            **origin,
            **self.shown(arm),
        }
        run = str(self.client.create_run(self.experiment_id, tags=tags, run_name=f"{arm} / seed {spec.seed}").info.run_id)
        params = params_of(spec.as_dict(), spec.id, arm)
        self.client.log_batch(run, params=[library.mlflow().entities.Param(k, v) for k, v in params.items()])
        self.client.log_dict(run, spec.as_dict(), "spec.json")
        self.client.log_inputs(run, [library.dataset_input(spec.dataset, origin["dataset.digest"])])
        return run

    def log(self, run: str, step: int, row: Mapping[str, float]) -> None:
        """Record the metrics of an epoch."""
        now = int(time.time() * 1000)
        self.client.log_batch(run, metrics=[library.mlflow().entities.Metric(k, v, now, step) for k, v in row.items()])

    def recorded(self, run: str) -> Record:
        """Return what is on record of a run that may not have finished."""
        found = self.client.get_run(run)
        return Record(run, found.data.metrics, found.data.tags)

    def finish(self, run: str, result: Result, files: Path) -> None:
        """Record files, the scores that are not yet recorded and what they show; then mark the run as FINISHED, the commit."""
        self.client.log_artifacts(run, str(files))
        if (files / IMAGES).is_dir():
            self.client.set_tag(run, WITH_IMAGES, "True")
        if (files / MANIFEST).is_file():
            self.client.set_tag(run, MANIFEST_TAG, sha256((files / MANIFEST).read_bytes()).hexdigest())
        recorded = self.recorded(run).metrics  # an earlier attempt may have been killed between these two calls
        self.log(run, result.spec.epochs, {k: v for k, v in result.metrics.items() if k not in recorded})
        finding = diverged(result.metrics)
        if finding:
            self.client.set_tag(run, "finding.diverged", finding)
        self.client.set_tag(run, NOTE, trial_note(run, self.scores, result.metrics, figures_among(files), finding))
        self.close(run, "FINISHED")

    def fail(self, run: str, why: str, *, killed: bool = False) -> None:
        """Tag a run with the reason and close it as FAILED, or as KILLED if its process has ended."""
        self.client.set_tag(run, "failure", why[:TAG_LIMIT])
        self.close(run, "KILLED" if killed else "FAILED")

    def prune(self, run: str, epoch: int) -> None:
        """Tag the run of a trial that was pruned after this epoch, and close it as KILLED."""
        self.client.set_tag(run, "pruned", f"after epoch {epoch}")
        self.close(run, "KILLED")

    def reopen(self, run: str) -> int | None:
        """Mark a run as RUNNING again and return its last epoch; None if there is no such run or it has finished."""
        status, metrics = self.look(run)
        if not status or status == "FINISHED":
            return None
        self.client.update_run(run, status="RUNNING")
        epochs = self.client.get_metric_history(run, ELBO_TRAIN.key) if ELBO_TRAIN.key in metrics else []
        return max((m.step for m in epochs), default=0)

    def look(self, run: str) -> tuple[str, Mapping[str, float]]:
        """Return a run's status and last metrics; an empty status if there is no such run or it was deleted."""
        if not run:
            return "", {}
        try:
            record = self.client.get_run(run)
        except library.failures() as fault:
            if library.is_missing(fault):
                return "", {}
            raise
        return (record.info.status, record.data.metrics) if record.info.lifecycle_stage == "active" else ("", {})

    def finished_runs(self, store: str) -> set[str]:
        """Return the ids of the FINISHED runs of a trial store."""
        return {r.info.run_id for r in self.matching(f"tags.ledger = '{store}' and attributes.status = 'FINISHED'")}

    def close_orphans(self, store: str, keep: set[str], older_than_s: float) -> int:
        """Mark a trial store's RUNNING runs as KILLED, except those in `keep` and younger ones; return their number.

        One that started in the future, as after a clock was set back, is as old as it is ahead.
        """
        now = time.time() * 1000
        running = self.matching(f"tags.ledger = '{store}' and attributes.status = 'RUNNING'")
        old = [r.info.run_id for r in running if abs(now - r.info.start_time) >= older_than_s * 1000]
        orphans = [run for run in old if run not in keep]
        for run in orphans:
            self.fail(run, "lost: its process ended", killed=True)
        return len(orphans)

    def results(self, runs: Mapping[str, str]) -> dict[str, Record]:
        """Return the records by cell id, the oldest first, for run ids by cell id. Runs that have not finished are left out."""
        finished = self.matching("tags.kind = 'trial' and attributes.status = 'FINISHED'")
        cells = {run: cell for cell, run in runs.items()}
        records = (Record(r.info.run_id, r.data.metrics, r.data.tags) for r in finished)
        return {cells[record.run]: record for record in records if record.run in cells}

    def series(self, run: str, key: str) -> dict[int, float]:
        """Return the values of a metric of a run by epoch."""
        return {point.step: point.value for point in self.client.get_metric_history(run, key)}

    def file(self, run: str, name: str) -> Path:
        """Return the path of a local copy of one of a run's files."""
        return Path(self.client.download_artifacts(run, name))
