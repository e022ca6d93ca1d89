"""Learning-rate schedules: what they start from, where they end, and that torch's own agree."""

import pytest
import torch
from tables import SCHEDULES
from torch import Tensor

from harness.data import Data, load_dataset
from harness.errors import UserError
from harness.spec import TrialSpec
from harness.training.cohort import Cohort
from harness.training.schedules import learning_rates

STEPS = 7  # of an epoch
FIRST = 3e-3


def spec_of(schedule: str, **fields: float) -> TrialSpec:
    end = {} if schedule == "constant" else {"learning_rate_decay": 0.01}
    return TrialSpec(learning_rate=FIRST, epochs=5, learning_rate_schedule=schedule, **end).derive(**fields)


def rates(*specs: TrialSpec) -> Tensor:
    """All rates of these trials, (steps, trials)."""
    return torch.cat([learning_rates(specs, range(STEPS), STEPS, epoch) for epoch in range(specs[0].epochs)])


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_goes_from_the_first_rate_to_the_last(name: str) -> None:
    found = rates(spec_of(name))[:, 0]
    end = FIRST * spec_of(name).learning_rate_decay
    assert found[0].item() == pytest.approx(FIRST)
    assert found[-1].item() == pytest.approx(end)
    assert (found.diff() <= 1e-9).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_lane_has_its_own_schedule_whoever_trains_beside_it(name: str) -> None:
    own, others = spec_of(name, learning_rate_warmup=1.5), [spec_of(other, seed=1) for other in SCHEDULES]
    together = rates(own, *others)
    assert torch.equal(together[:, :1], rates(own))
    assert torch.equal(together[:, 1:], rates(*others))


@pytest.mark.parametrize("name", SCHEDULES)
def test_chunks_of_an_epoch_are_the_epoch(name: str) -> None:
    specs = [spec_of(name, learning_rate_warmup=0.5)]
    parts = [learning_rates(specs, steps, STEPS, 0) for steps in (range(3), range(3, 4), range(4, STEPS))]
    assert torch.equal(torch.cat(parts), learning_rates(specs, range(STEPS), STEPS, 0))


def test_the_exponential_falls_evenly_in_its_logarithm_from_epoch_to_epoch() -> None:
    specs = [TrialSpec(epochs=3, learning_rate=1e-3, learning_rate_decay=d) for d in (1.0, 0.01)]
    found = rates(*specs).view(3, STEPS, 2)
    assert (found == found[:, :1]).all()
    torch.testing.assert_close(found[:, 0], torch.tensor([[1e-3, 1e-3], [1e-3, 1e-4], [1e-3, 1e-5]]))


def test_the_cosine_is_torchs() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=FIRST)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5 * STEPS - 1, eta_min=0.01 * FIRST)
    wanted = []
    for _ in range(5 * STEPS):
        wanted.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    torch.testing.assert_close(rates(spec_of("cosine"))[:, 0], torch.tensor(wanted))


def test_a_warm_up_rises_linearly_and_leaves_the_rest_alone() -> None:
    warm, cold = spec_of("constant", learning_rate_warmup=2.0), spec_of("constant")
    found = rates(warm, cold)
    torch.testing.assert_close(found[: 2 * STEPS, 0], FIRST * torch.arange(1, 2 * STEPS + 1) / (2 * STEPS))
    assert torch.equal(found[2 * STEPS :, 0], found[2 * STEPS :, 1])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"learning_rate_schedule": "cosin"}, "did you mean 'cosine'"),
        ({"learning_rate_schedule": "cosine"}, "give it below 1"),
        ({"learning_rate_schedule": "constant", "learning_rate_decay": 0.1}, "for a schedule that falls"),
        ({"learning_rate_warmup": -1.0}, "learning_rate_warmup must be a finite number of at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        TrialSpec(**fields)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


def test_training_takes_the_rates_of_its_schedule(digits: Data) -> None:
    """With plain descent's one slot and no gradient scale in the way, the first step of a warm-up moves weights by its share."""
    base = TrialSpec(dataset="digits", batch_size=100, epochs=2, optimizer="sgd", learning_rate=1e-3)
    moved = []
    for warmup in (0.0, 1.0):
        cohort = Cohort([base.derive(learning_rate_warmup=warmup)], digits, torch.device("cpu"))
        before = [p.detach().clone() for p in cohort.params]
        cohort.run_steps(1)
        moved.append(torch.cat([(p.detach() - b).flatten() for p, b in zip(cohort.params, before, strict=True)]))
    torch.testing.assert_close(moved[1], moved[0] / cohort.steps_per_epoch, rtol=1e-3, atol=1e-7)
