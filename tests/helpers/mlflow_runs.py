"""What MLflow holds of a study."""

from mlflow.entities import Run

from harness.tracking import MlflowTracker
from harness.tracking.store import search_all


def trial_runs(tracker: MlflowTracker) -> list[Run]:
    """Every run of a trial."""
    return search_all(tracker.client, tracker.experiment_id, "tags.kind = 'trial'")
