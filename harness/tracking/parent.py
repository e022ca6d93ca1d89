"""The parent run of a study in MLflow: its state, its plan, its report, its winner, and which trials' runs it still counts."""

import re
import time
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from harness import provenance
from harness.plans import PLAN_FILE, PLAN_TAG
from harness.scores import COST, Scores, compared, in_groups
from harness.scores.rows import TRAIN_S
from harness.tracking import library
from harness.tracking.description import NOTE, trial_note
from harness.tracking.layout import NOT_SUPERSEDED, SUPERSEDED, SUPERSEDED_BY
from harness.tracking.registry import register
from harness.tracking.store import OLDEST_FIRST, search_all

if TYPE_CHECKING:
    from torch import Tensor

TAG_LIMIT = 4_900  # characters of a tag's value; MLflow refuses long ones
NO_KEY = r"[^\w\-. :]"  # a character that the key of a metric cannot have, or that would part it
MOST_POINTS = 1_000  # of metrics in a request
VERDICT_TAG = "verdict."  # of a parent run: verdict.1, verdict.2, ...


class ParentRun:
    """The part of a tracker that keeps a study's parent run.

    Attributes:
        client: of MLflow.
        experiment_id: of the study's experiment.
        parent: the id of the parent run.
        note: the text above the experiment while there is no report.
        experiment: its name.
        scores: the rows of the study's scores.
    """

    client: Any
    experiment_id: str
    parent: str
    note: str
    experiment: str
    scores: Scores

    def matching(self, condition: str) -> list[Any]:
        """Return every run of the experiment that meets a condition, the oldest first."""
        return search_all(self.client, self.experiment_id, condition, OLDEST_FIRST)

    def describe(self, text: str) -> None:
        """Set the text above the experiment and of the parent run, in Markdown."""
        self.client.set_experiment_tag(self.experiment_id, NOTE, text)
        self.client.set_tag(self.parent, NOTE, text)

    def close(self, run: str, status: str) -> None:
        """Close a run with this status, now, but not before it was begun: the clock may have been set back since."""
        begun = self.client.get_run(run).info.start_time
        self.client.set_terminated(run, status, end_time=max(int(time.time() * 1000), begun))

    def reopen_study(self) -> None:
        """Mark the parent run as RUNNING, and take back what a report has said of it."""
        self.client.update_run(self.parent, status="RUNNING")
        self.describe(self.note)
        self._forget_verdicts(())

    def stop_study(self) -> None:
        """Mark the parent run as KILLED, because its driver was asked to stop."""
        self.close(self.parent, "KILLED")

    def plan_on_record(self) -> tuple[str, str]:
        """Return the digest and the text of the plan that the parent run keeps; empty texts if it keeps none."""
        with TemporaryDirectory(prefix="harness-") as folder:
            names = {f.path for f in self.client.list_artifacts(self.parent)}
            text = ""
            if PLAN_FILE in names:
                text = Path(self.client.download_artifacts(self.parent, PLAN_FILE, folder)).read_text(encoding="utf-8")
        return self.study_tag(PLAN_TAG) or "", text

    def keep_plan(self, digest: str, text: str) -> None:
        """Keep a plan in the parent run: its text as a file and then its digest as a tag."""
        self.client.log_text(self.parent, text, PLAN_FILE)
        self.client.set_tag(self.parent, PLAN_TAG, digest)

    def supersede(self, store: str, cells: Collection[str], by: str) -> None:
        """Tag the runs of a trial store by whether their trials are in the present plan, so that pages can leave out the others.

        Args:
            store: the name of the trial store.
            cells: the ids of the trials of the present plan.
            by: what the others are superseded by, in words.
        """
        for run in self.matching("tags.kind = 'trial'"):
            tags = run.data.tags
            own = tags.get("ledger") == store
            label = by if own and tags.get("cell") not in cells else tags.get(SUPERSEDED, NOT_SUPERSEDED)
            if own and tags.get("cell") in cells:
                label = NOT_SUPERSEDED
            if tags.get(SUPERSEDED) != label:
                self.client.set_tag(run.info.run_id, SUPERSEDED, label)
        self.client.set_tag(self.parent, SUPERSEDED_BY, by)

    def finish_study(self, files: Path, summary: Mapping[str, str], note: str) -> None:
        """Put the report's files, tags and text into the parent run and mark it as FINISHED. Verdicts of an earlier report go."""
        self.client.log_artifacts(self.parent, str(files))
        self._forget_verdicts(summary)
        self.describe(note)
        tags = [library.mlflow().entities.RunTag(k, v[:TAG_LIMIT]) for k, v in summary.items()]
        self.client.log_batch(self.parent, tags=tags)
        self._log_means()
        self._register_winner()
        self.close(self.parent, "FINISHED")

    def _log_means(self) -> None:
        """Record the mean headline scores of the arms as metrics, score by score, with the trials' number and seconds of training.

        What is on record with the same value is left alone: a report that is written again adds no points.
        """
        condition = f"tags.kind = 'trial' and attributes.status = 'FINISHED' and tags.`{SUPERSEDED}` = '{NOT_SUPERSEDED}'"
        runs = self.matching(condition)
        shown = [s for s in in_groups(self.scores, *compared(self.scores), COST) if s.headline]
        values: dict[str, list[float]] = {}
        for run in runs:
            arm = re.sub(NO_KEY, "_", run.data.tags.get("arm", ""))
            for score in shown:
                if score.key in run.data.metrics:
                    values.setdefault(f"{score.name}/{arm}", []).append(run.data.metrics[score.key])
        means = {key: fmean(found) for key, found in values.items()} | {"trials": float(len(runs))}
        means["trained_s"] = sum(run.data.metrics.get(TRAIN_S.key, 0.0) for run in runs)
        known, now = self.client.get_run(self.parent).data.metrics, int(time.time() * 1000)
        points = [library.mlflow().entities.Metric(k, v, now, 0) for k, v in means.items() if known.get(k) != v]
        for first in range(0, len(points), MOST_POINTS):
            self.client.log_batch(self.parent, metrics=points[first : first + MOST_POINTS])

    def _register_winner(self) -> None:
        """Enter the winner's model, if there is one, in the model registry, and tag the parent run with what came of that."""
        tags = self.client.get_run(self.parent).data.tags
        uri, cell = tags.get("winner.model", ""), tags.get("winner.cell", "")
        runs = self.matching(f"tags.cell = '{cell}' and attributes.status = 'FINISHED'") if cell else []
        if not uri.startswith("models:/") or not runs:
            return
        metrics, run = runs[-1].data.metrics, runs[-1].info.run_id
        table = trial_note(run, self.scores, metrics, [])
        said = f"{tags.get('winner', '')}.\n\n`predict` takes `what`: reconstruct, encode, decode or sample.\n\n{table}"
        entered = register(self.client, self.experiment, cell, uri, run, said)
        if tags.get("winner.registered") != entered:
            self.client.set_tag(self.parent, "winner.registered", entered)

    def _forget_verdicts(self, kept: Collection[str]) -> None:
        """Delete the tags of verdicts but those of these names."""
        for name in self.client.get_run(self.parent).data.tags:
            if name.startswith(VERDICT_TAG) and name not in kept:
                self.client.delete_tag(self.parent, name)

    @property
    def study_finished(self) -> bool:
        """True if the study's report is in the parent run. That is its end, unless something is trained after it."""
        return bool(self.client.get_run(self.parent).info.status == "FINISHED")

    def study_tag(self, key: str) -> str | None:
        """Return a tag of the parent run, or None."""
        tags: dict[str, str] = self.client.get_run(self.parent).data.tags
        return tags.get(key)

    def log_model(self, programs: Path, example: "Tensor", latent: int) -> str:
        """Save exported programs in the parent run as a model that loads without pickle and without this package; return its URI.

        Its `predict` takes images as floats on [0, 1], (N, P), and the parameters `what` and `seed` (exported_model.py).
        """
        library.mlflow().start_run(run_id=self.parent)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                info = library.mlflow().pyfunc.log_model(
                    name="winner",
                    python_model=str(Path(__file__).with_name("exported_model.py")),
                    artifacts={name: str(programs / f"{name}.pt2") for name in ("encoder", "decoder")},
                    model_config={"pixels": example.shape[1], "latent": latent},
                    input_example=example.numpy(),
                    signature=library.signature({"what": "reconstruct", "seed": 0}),
                    pip_requirements=[f"{name}=={provenance.version(name).split('+')[0]}" for name in ("mlflow", "torch", "numpy")],
                )
        finally:
            library.mlflow().end_run("RUNNING")  # not FINISHED, which means that the report is complete
        return str(info.model_uri)
