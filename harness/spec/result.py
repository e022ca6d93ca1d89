"""What comes out of a trial."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.spec.trial import TrialSpec

EXECUTION = "execution.json"  # in the folder of a result: how it was made, told to the driver by the process that made it


@dataclass(frozen=True)
class Result:
    """The result of a finished trial.

    Attributes:
        spec: the trial.
        metrics: its scores by metric key.
    """

    spec: TrialSpec
    metrics: Mapping[str, float]
