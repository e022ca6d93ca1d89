"""What an epoch takes, shows and leaves out: objective, data, a loss that is not finite, and fewer steps."""

import math
from collections.abc import Sequence

import pytest
import torch
from steps import CPU, SMALL, assert_close, trained, weights
from torch import Tensor

from harness.data import Data, frozen_noise, load_dataset
from harness.models.likelihoods import MAX_LEVEL
from harness.spec import TrialSpec
from harness.training.batches import BatchStream, beta
from harness.training.cohort import Cohort


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


# -------------------------------------------------------------------------------- objective and data


def test_the_weight_of_the_kl_ramps_up() -> None:
    lanes, n = [SMALL.derive(beta=2.0), SMALL.derive(beta=2.0, kl_warmup=2.0)], 38
    first, second, third = (beta(lanes, range(n), n, epoch) for epoch in range(3))
    assert (torch.stack([first, second, third])[:, :, 0] == 2).all()
    torch.testing.assert_close(torch.cat([first, second])[:, 1], 2 * torch.arange(1, 2 * n + 1) / (2 * n))
    assert (third[:, 1] == 2).all()


def test_a_cycle_starts_the_warm_up_again() -> None:
    n = 38
    weights = [beta([SMALL.derive(beta=2.0, kl_warmup=1.0, kl_cycle=2.0)], range(n), n, epoch)[:, 0] for epoch in range(4)]
    rise = 2 * torch.arange(1, n + 1) / n
    for epoch, wanted in enumerate((rise, torch.full((n,), 2.0), rise, torch.full((n,), 2.0))):
        torch.testing.assert_close(weights[epoch], wanted)


def test_the_kl_on_record_is_not_weighted(digits: Data) -> None:
    specs = [SMALL.derive(beta=beta) for beta in (0.0, 0.5, 3.0)]
    _, (row, _) = trained(specs, digits)
    for spec in specs:
        terms = row[spec.id]
        assert terms["objective/train"] == pytest.approx(terms["recon/train"] - spec.beta * terms["kl/train"], rel=1e-6)


class Watched:
    """A cohort's optimizer that keeps every step's gradients; after `poisoned_after` steps it ruins the first lane's weights."""

    def __init__(self, cohort: Cohort, poisoned_after: int = 0) -> None:
        self.inner, self.poisoned_after = cohort.config.optimizer, poisoned_after
        self.gradients: list[Sequence[Tensor]] = []
        cohort.config = cohort.config._replace(optimizer=self)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    @torch.no_grad()
    def update(self, params: Sequence[Tensor], grads: Sequence[Tensor], *rest: object) -> None:
        self.gradients.append(grads)
        self.inner.update(params, grads, *rest)
        if len(self.gradients) == self.poisoned_after:
            params[0][0] = math.nan


def test_the_gradient_norm_on_record_is_the_last_steps(digits: Data) -> None:
    specs = [SMALL, SMALL.derive(seed=1)]
    c = Cohort(specs, digits, CPU)
    watched = Watched(c)
    rows = c.run_epoch()
    for lane, spec in enumerate(specs):
        by_hand = torch.cat([g[lane].flatten() for g in watched.gradients[-1]]).double().norm().item()
        assert rows[spec.id]["diagnostics/gradient_norm"] == pytest.approx(by_hand, rel=1e-5)


def test_a_warm_up_lets_the_kl_grow(digits: Data) -> None:
    plain, warm = SMALL.derive(beta=4.0), SMALL.derive(beta=4.0, kl_warmup=20.0)
    _, rows = trained([plain, warm], digits, epochs=1)
    assert rows[0][warm.id]["kl/train"] > 2 * rows[0][plain.id]["kl/train"]


def seen(spec: TrialSpec, data: Data, epochs: int = 1) -> tuple[list[Tensor], list[Tensor]]:
    """Every batch as indices and as the model saw it."""
    c = Cohort([spec], data, CPU)
    indices: list[Tensor] = []
    images: list[Tensor] = []
    c.vae.encoder.register_forward_pre_hook(lambda _, x: images.append(x[0][0]))
    for epoch in range(epochs):
        order = BatchStream(c.lanes, c.levels, c.steps_per_epoch, epoch, c.config.optimizer).order[0]
        indices += order[: len(c.levels)].split(spec.batch_size)
        c.run_steps(c.steps_per_epoch)
    return indices, images


def test_every_image_is_used_once_an_epoch_and_the_last_batch_is_kept(digits: Data) -> None:
    indices, images = seen(SMALL, digits, epochs=2)
    n = len(digits.train)
    assert [len(i) for i in indices] == ([32] * 37 + [13]) * 2
    one, two = torch.cat(indices).view(2, n)
    assert sorted(one.tolist()) == sorted(two.tolist()) == list(range(n))
    assert not torch.equal(one, two)
    torch.testing.assert_close(torch.cat(images)[:n], digits.train.levels[one].float() / 255)


def test_train_and_validation_together(digits: Data) -> None:
    indices, _ = seen(SMALL.derive(fit_on="train+validation"), digits)
    assert sorted(torch.cat(indices).tolist()) == list(range(len(digits.train) + len(digits.validation)))


@pytest.mark.parametrize("way", ["threshold", "static", "dynamic"])
def test_binarisations(way: str, digits: Data) -> None:
    indices, images = seen(SMALL.derive(likelihood="bernoulli", likelihood_args={"binarisation": way}), digits, epochs=2)
    n, levels = len(digits.train), digits.train.levels
    one, two = (torch.empty(n, 64) for _ in range(2))
    one[torch.cat(indices)[:n]] = torch.cat(images)[:n]
    two[torch.cat(indices)[n:]] = torch.cat(images)[n:]
    assert one.unique().tolist() == [0, 1]
    assert torch.equal(one, two) == (way != "dynamic")
    match way:
        case "threshold":
            assert torch.equal(one, (levels >= 128).float())
        case "static":
            assert torch.equal(one, (frozen_noise(digits.train) < levels / MAX_LEVEL).float())
        case "dynamic":
            assert (one + two - levels.float() * (2 / MAX_LEVEL)).mean().abs() < 0.01
            assert (one[levels == 255] == 1).all()
            assert (one[levels == 0] == 0).all()


# -------------------------------------------------------------------------------- a loss that is not finite


@pytest.mark.parametrize("name", ["mse", "gaussian_per_pixel"])
def test_a_lane_that_diverges_stops_alone_with_step_and_reason(name: str, digits: Data) -> None:
    base = SMALL.derive(likelihood=name)
    mad, calm = base.derive(learning_rate=1e6), base.derive(seed=1)
    c, rows = trained([mad, calm], digits)
    assert [s.id for s in c.specs] == [calm.id]
    assert list(c.failures) == [mad.id]
    for word in ("not finite", "at step", "epoch 1", "learning_rate=1e+06"):
        assert word in c.failures[mad.id]
    assert all(set(row) == {calm.id} for row in rows)
    alone, own = trained([calm], digits)
    assert_close(weights(c, calm), weights(alone, calm))
    assert rows[1][calm.id]["elbo/train"] == pytest.approx(own[1][calm.id]["elbo/train"], rel=1e-3)


def test_gradient_norms_stay_with_their_lanes_when_one_stops(digits: Data) -> None:
    """In an epoch's last chunk too, after which nothing computes them anew."""
    specs = [SMALL, SMALL.derive(seed=1), SMALL.derive(seed=2)]
    whole, want = trained(specs, digits, epochs=1)
    c = Cohort(specs, digits, CPU)
    Watched(c, poisoned_after=34)
    rows = c.run_epoch()
    assert list(rows) == [s.id for s in specs[1:]]
    for spec in specs[1:]:
        norm = "diagnostics/gradient_norm"
        assert rows[spec.id][norm] == want[0][spec.id][norm]  # bitwise: the same step in the same company
    assert torch.equal(c.gradient_norm, whole.gradient_norm[1:])


def test_the_step_of_a_failure_is_the_first_bad_one(digits: Data) -> None:
    c = Cohort([SMALL], digits, CPU)
    Watched(c, poisoned_after=34)
    assert c.run_epoch() == {}
    assert "step 35 (epoch 1)" in c.failures[SMALL.id]
    assert c.specs == []


# -------------------------------------------------------------------------------- fewer steps than an epoch


def test_the_first_steps_of_an_epoch_are_those_of_a_whole_one(digits: Data) -> None:
    c = Cohort([SMALL], digits, CPU)
    watched = Watched(c)
    rows = c.run_steps(5)
    assert len(watched.gradients) == 5
    assert c.state.step == 5
    assert c.epoch == 1
    assert set(rows) == {SMALL.id}
    assert not any(name.endswith("/validation") for name in rows[SMALL.id])
    whole = Cohort([SMALL], digits, CPU)
    all_steps = Watched(whole)
    whole.run_epoch()
    for some, every in zip(watched.gradients, all_steps.gradients, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(some, every, strict=True))


@pytest.mark.parametrize("steps", [0, 39])
def test_steps_that_an_epoch_does_not_have_are_refused(steps: int, digits: Data) -> None:
    with pytest.raises(ValueError, match=f"has 38 steps, got {steps}"):
        Cohort([SMALL], digits, CPU).run_steps(steps)
