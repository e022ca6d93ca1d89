"""Small cohorts, and two ways of taking the same steps, held against each other."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from harness.data import Data
from harness.spec import TrialSpec
from harness.training.cohort import Cohort
from harness.training.step import Execution

CPU = torch.device("cpu")
# 1197 images: 38 steps of 32, the last of 13 images, in two chunks.
SMALL = TrialSpec(dataset="digits", batch_size=32, epochs=2, learning_rate=1e-3)
NARROW = SMALL.derive(network="mlp", hidden=(32,))  # where widths do not matter: half of the time
TERMS = ("elbo/train", "kl/train", "objective/train", "diagnostics/gradient_norm", "elbo/validation", "kl/validation")


def trained(specs: Sequence[TrialSpec], data: Data, epochs: int = 2, **how: Execution) -> tuple[Cohort, list[dict]]:
    """A cohort after some epochs, and their rows."""
    cohort = Cohort(specs, data, CPU, **how)
    return cohort, [cohort.run_epoch() for _ in range(epochs)]


def weights(c: Cohort, spec: TrialSpec) -> list[Tensor]:
    """A trial's weights, of its lane alone."""
    return [p[0].detach() for p in c.trained(spec).parameters()]


def assert_close(got: list[Tensor], want: list[Tensor], tolerance: float = 2e-4) -> None:
    """Tensor by tensor, to the rounding of sums in another order."""
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=tolerance)


def assert_same(specs: Sequence[TrialSpec], data: Data, execution: Execution, tolerance: float = 2e-4) -> None:
    """After two epochs, of a chunk of 32 steps and one of 6 with a last batch of 13: weights, moments and every score.

    One weight in 1,000 may be a few learning rates away: Adam moves a weight by about one however small its gradient is, so that
    one whose first gradient is zero but for rounding goes either way. Its moments agree all the same.
    """
    plain, rows = trained(specs, data)
    one, own = trained(specs, data, execution=execution)
    for spec in specs:
        for a, b in zip(plain.trained(spec).parameters(), one.trained(spec).parameters(), strict=True):
            away = ((a - b).abs() > tolerance + 1e-3 * b.abs()).float().mean()
            torch.testing.assert_close(a, b, rtol=1e-3, atol=tolerance if away > 1e-3 else max(tolerance, 5 * spec.learning_rate))
        for before, after in zip(rows, own, strict=True):
            assert [after[spec.id][t] for t in TERMS] == pytest.approx([before[spec.id][t] for t in TERMS], rel=1e-3)
    for slot in plain.state.slots:
        for a, b in zip(plain.state.slots[slot], one.state.slots[slot], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2 * float(a.abs().max()) + 1e-12)
    assert plain.state.step == one.state.step == 2 * plain.steps_per_epoch
