"""A study's runs in MLflow: one experiment per study and budget, a parent run, a child per trial."""

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import provenance
from harness.errors import MachineError
from harness.spec import Result, TrialSpec
from harness.stores import databases
from harness.tracking import library
from harness.tracking.layout import VIEW_KEY, shared_view
from harness.tracking.protocol import Record
from harness.tracking.store import PAGE, PatientClient, artifact_location, ensure_store, experiment_name, pages, study_page

TAG_LIMIT = 4_900  # characters; MLflow would refuse more


class MlflowTracker:
    """The `Tracker` of one study and budget in MLflow."""

    def __init__(self, study: str, budget: str, note: str) -> None:
        self.study, self.budget = study, budget
        self.experiment = experiment_name(study, budget)
        uri = ensure_store()
        self.client = PatientClient()
        try:
            self.experiment_id = self._experiment(uri)
        except (library.failure(), OSError) as fault:
            raise MachineError(
                f"cannot use the tracking store {databases.shown(uri)}\n{str(fault).splitlines()[0][:300]}"
            ) from None
        wanted = {
            f"mlflow.sharedViewState.{VIEW_KEY}": shared_view(),
            "mlflow.note.content": note,
            "mlflow.experimentKind": "custom_model_development",
        }
        there = self.client.get_experiment(self.experiment_id).tags
        for key, value in wanted.items():
            if there.get(key) != value:  # starting a finished study again must not touch the store
                self.client.set_experiment_tag(self.experiment_id, key, value)
        self.parent = self._parent()

    def _experiment(self, uri: str) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        if found is not None:
            return found.experiment_id
        return self.client.create_experiment(self.experiment, artifact_location=artifact_location(self.experiment))

    def _search(self, condition: str, most: int = PAGE) -> list:
        return list(
            self.client.search_runs(
                [self.experiment_id], condition, library.mlflow().entities.ViewType.ACTIVE_ONLY, max_results=most
            )
        )

    def _all(self, condition: str) -> list:
        """Every run that meets a condition, page by page."""
        return pages(self.client, self.experiment_id, condition)

    def _parent(self) -> str:
        found = self._search("tags.kind = 'study'", 1)
        if found:
            return found[0].info.run_id
        tags = provenance.tags() | {"kind": "study", "study": self.study, "budget": self.budget}
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=f"{self.experiment}: the study")
        return run.info.run_id

    @property
    def ui_path(self) -> str:
        """The study's page in the MLflow UI."""
        return study_page(self.experiment_id)

    def begin(self, spec: TrialSpec, arm: str, trial: int, attempt: int, origin: Mapping[str, str]) -> str:
        tags = provenance.tags() | {
            "kind": "trial",
            "study": self.study,
            "budget": self.budget,
            "cell": spec.id,
            "arm": arm,
            "seed": str(spec.seed),
            "trial": str(trial),
            "attempt": str(attempt),
            **origin,
            "mlflow.parentRunId": self.parent,
        }
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=f"{arm} / seed {spec.seed}").info.run_id
        shown = {"arm": arm, "seed": spec.seed, "likelihood": spec.likelihood, "activation": spec.activation}
        shown |= {"latent": spec.latent, "learning_rate": spec.learning_rate, "epochs": spec.epochs, "spec": spec.id}
        self.client.log_batch(run, params=[library.mlflow().entities.Param(k, str(v)) for k, v in shown.items()])
        self.client.log_dict(run, spec.as_dict(), "spec.json")
        self.client.log_inputs(run, [library.dataset_input(spec.dataset, origin["dataset.digest"])])
        return run

    def log(self, run: str, step: int, row: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(run, metrics=[library.mlflow().entities.Metric(k, v, now, step) for k, v in row.items()])

    def finish(self, run: str, result: Result, files: Path) -> None:
        self.client.log_artifacts(run, str(files))
        there = self.client.get_run(run).data.metrics  # an earlier attempt may have been cut off right here
        self.log(run, result.spec.epochs, {k: v for k, v in result.metrics.items() if k not in there})
        self.client.set_terminated(run, "FINISHED")

    def fail(self, run: str, why: str, *, killed: bool = False) -> None:
        self.client.set_tag(run, "failure", why[:TAG_LIMIT])
        self.client.set_terminated(run, "KILLED" if killed else "FAILED")

    def prune(self, run: str, epoch: int) -> None:
        self.client.set_tag(run, "pruned", f"after epoch {epoch}")
        self.client.set_terminated(run, "KILLED")

    def reopen(self, run: str) -> int | None:
        status, metrics = self.look(run)
        if not status or status == "FINISHED":
            return None
        self.client.update_run(run, status="RUNNING")
        epochs = self.client.get_metric_history(run, "elbo/train") if "elbo/train" in metrics else []
        return max((m.step for m in epochs), default=0)

    def look(self, run: str) -> tuple[str, Mapping[str, float]]:
        if not run:
            return "", {}
        try:
            found = self.client.get_run(run)
        except library.failure() as fault:
            if library.is_missing(fault):
                return "", {}
            raise
        return (found.info.status, found.data.metrics) if found.info.lifecycle_stage == "active" else ("", {})

    def finished_runs(self, store: str) -> set[str]:
        return {r.info.run_id for r in self._all(f"tags.ledger = '{store}' and attributes.status = 'FINISHED'")}

    def close_orphans(self, store: str, keep: set[str], older_than_s: float) -> int:
        before = (time.time() - older_than_s) * 1000
        running = self._all(f"tags.ledger = '{store}' and attributes.status = 'RUNNING'")
        lost = [r.info.run_id for r in running if r.info.run_id not in keep and r.info.start_time <= before]
        for run in lost:
            self.fail(run, "lost: its process ended", killed=True)
        return len(lost)

    def results(self, runs: Mapping[str, str]) -> dict[str, Record]:
        found = self._all("tags.kind = 'trial' and attributes.status = 'FINISHED'")
        records = {r.info.run_id: Record(r.info.run_id, r.data.metrics, r.data.tags) for r in found}
        return {cell: records[run] for cell, run in runs.items() if run in records}

    def file(self, run: str, name: str) -> Path:
        return Path(self.client.download_artifacts(run, name))

    def reopen_study(self) -> None:
        self.client.update_run(self.parent, status="RUNNING")

    def stop_study(self) -> None:
        self.client.set_terminated(self.parent, "KILLED")

    def finish_study(self, files: Path, summary: Mapping[str, str]) -> None:
        self.client.log_artifacts(self.parent, str(files))
        tags = [library.mlflow().entities.RunTag(k, v[:TAG_LIMIT]) for k, v in summary.items()]
        self.client.log_batch(self.parent, tags=tags)
        self.client.set_terminated(self.parent, "FINISHED")

    @property
    def study_finished(self) -> bool:
        """Whether the study's report is in the parent run: that is its end, unless something is trained after it."""
        return self.look(self.parent)[0] == "FINISHED"

    def study_tag(self, key: str) -> str | None:
        return self.client.get_run(self.parent).data.tags.get(key)

    def log_model(self, module: Any, example: Any, requirements: list[str]) -> str:
        library.mlflow().start_run(run_id=self.parent)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                info = library.mlflow().pytorch.log_model(
                    module,
                    name="winner",
                    input_example=example,
                    serialization_format="pt2",
                    pip_requirements=requirements,
                )
        finally:
            library.mlflow().end_run("RUNNING")  # not FINISHED: that is to say that the report is there
        return info.model_uri
