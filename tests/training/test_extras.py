"""Clipped gradients and averaged weights are those of torch's own tools in a plain loop, in every lane."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from steps import CPU, SMALL, assert_close, assert_same, trained, weights
from torch import Tensor

from harness import metrics
from harness.data import Data, load_dataset
from harness.models.vae import VAE
from harness.scores import SCORES
from harness.spec import TrialSpec
from harness.training.batches import BatchStream
from harness.training.cohort import Cohort
from harness.training.extras import AVERAGE, Extras, clipped, norms
from harness.training.step import Execution, StepInputs, gradients

LIMIT = 9.0  # of the norm: it falls from 12 to 4 within the epoch
CREW = [
    SMALL.derive(clip_norm=LIMIT, ema_decay=0.9, weight_decay=1e-2),
    SMALL.derive(seed=1),
    SMALL.derive(seed=2, clip_norm=3.0),
    SMALL.derive(seed=3, ema_decay=1.0, learning_rate=3e-4),
]


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


def by_torch(spec: TrialSpec, data: Data) -> tuple[list[list[Tensor]], list[float]]:
    """The weights of a trial after each step of an epoch of torch's own optimizer and clipping, and the norms before it."""
    cohort = Cohort([spec], data, CPU)
    params = cohort.params
    settings = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    optimizer = (
        torch.optim.SGD(params, momentum=0.9, **settings) if spec.optimizer == "sgd" else torch.optim.Adam(params, **settings)
    )
    stream = BatchStream([spec], cohort.levels, cohort.steps_per_epoch, 0, cohort.config.optimizer)
    after, found, step = [], [], 0
    for chunk in stream.chunks(cohort.steps_per_epoch, whole=False):
        for t in range(len(chunk.batch)):
            n = min(spec.batch_size, len(cohort.levels) - step * spec.batch_size)
            inputs = StepInputs(chunk.batch[t, :, :n], chunk.eps[t, :, :, :n], chunk.u[t, :, :n], chunk.beta[t])
            grads, _ = gradients(cohort.config, cohort.vae, params, cohort._constants(), inputs)
            for p, g in zip(params, grads, strict=True):
                p.grad = g
            most = spec.clip_norm or torch.inf
            found.append(torch.nn.utils.clip_grad_norm_(params, most).item())
            optimizer.step()
            after.append([p[0].detach().clone() for p in params])
            step += 1
    return after, found


def mean_of(after: list[list[Tensor]], decay: float) -> list[Tensor]:
    """The mean of all weights so far, weighed by their age in steps."""
    share = torch.tensor([decay**age for age in reversed(range(len(after)))], dtype=torch.float64)
    return [torch.einsum("t,t...->...", share / share.sum(), torch.stack(p).double()).float() for p in zip(*after, strict=True)]


@pytest.mark.parametrize(("optimizer", "execution"), [("adam", "eager"), ("sgd", "graph")])
def test_lanes_clip_and_average_as_torch_does(optimizer: str, execution: Execution, digits: Data) -> None:
    rate = {"learning_rate": 1e-2} if optimizer == "sgd" else {}
    crew = [s.derive(optimizer=optimizer, **rate) for s in CREW]
    together, _ = trained(crew, digits, epochs=1, execution=execution)
    for spec in crew:
        after, found = by_torch(spec, digits)
        if spec.clip_norm:
            assert sum(n > spec.clip_norm for n in found) > 5, "a limit that clips nothing tests nothing"
        assert_close(weights(together, spec), after[-1])
        if spec.ema_decay:
            average = [p[0].detach() for p in together.trained(spec, AVERAGE).parameters()]
            want = mean_of(after, spec.ema_decay)
            assert_close(average, want)
            assert max(float((a - b).abs().max()) for a, b in zip(want, after[-1], strict=True)) > 2e-3


def test_clipping_scales_all_gradients_of_a_lane_by_one_factor() -> None:
    draws = torch.Generator().manual_seed(0)
    grads = [
        torch.randn(3, *shape, generator=draws) * torch.tensor([100.0, 0.01, 1e25])[:, None, None] for shape in ((4, 5), (1, 5))
    ]
    wanted = copy.deepcopy(grads)
    for lane, most in enumerate((2.0, 2.0)):
        own = [torch.nn.Parameter(g[lane]) for g in grads]
        for p in own:
            p.grad = p.detach().clone()
        torch.nn.utils.clip_grad_norm_(own, most)
        for w, p in zip(wanted, own, strict=True):
            w[lane] = p.grad
    got = clipped(grads, torch.tensor([2.0, 2.0, torch.inf]))
    assert_close(list(got), wanted, tolerance=0)
    assert norms(got)[0].item() == pytest.approx(2, rel=1e-6)
    assert all(torch.equal(a[1:], b[1:]) for a, b in zip(got, grads, strict=True))  # small, or of a lane without a limit
    assert clipped(grads, None) is grads


def test_who_does_neither_has_no_part_in_it(digits: Data) -> None:
    """Bitwise the same beside lanes that do; and alone nothing is kept for it, in the state or in the program."""
    plain = [SMALL, SMALL.derive(seed=1)]
    alone, rows = trained(plain, digits)
    beside, own = trained([SMALL, SMALL.derive(seed=1, clip_norm=LIMIT, ema_decay=0.9)], digits)
    assert alone.config.extras == Extras()
    assert list(alone.state.slots) == ["mean", "square"]
    stream = BatchStream(plain, alone.levels, alone.steps_per_epoch, 0, alone.config.optimizer)
    assert torch.equal(stream.factors, alone.config.optimizer.factors(torch.arange(1, alone.steps_per_epoch + 1), stream.rates))
    assert all(torch.equal(a, b) for a, b in zip(weights(alone, SMALL), weights(beside, SMALL), strict=True))
    for before, after in zip(rows, own, strict=True):
        assert all(key.startswith("perf/") or after[SMALL.id][key] == value for key, value in before[SMALL.id].items())
    assert AVERAGE not in beside.training_state().snapshot(SMALL)


@pytest.mark.slow
def test_compiled_is_the_same(digits: Data) -> None:
    """Where the machine has a kernel for it, Adam is fused with the products of a lane that averages and does not clip."""
    assert_same([CREW[3]], digits, "compiled")


# -------------------------------------------------------------------------------- the state


def tensors_of(kept: Mapping[str, Any]) -> list[Tensor]:
    return [t for value in kept.values() if isinstance(value, Mapping) for t in value.values()]


def test_the_average_goes_on_from_a_checkpoint(digits: Data) -> None:
    crew = CREW[:2]
    whole = Cohort(crew, digits, CPU, "graph")
    whole.run_epoch()
    kept = [whole.training_state().snapshot(s) for s in crew]
    assert set(kept[0]) == {"epoch", "parameters", "mean", "square", AVERAGE}
    whole.run_epoch()
    again = Cohort(crew, digits, CPU, "graph")
    again.restore(kept)
    again.run_epoch()
    for spec in crew:
        ours, theirs = (tensors_of(c.training_state().snapshot(spec)) for c in (again, whole))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_average_goes_with_its_lane(digits: Data) -> None:
    """Compacted away with the last lane that has one, and taken along by the others."""
    crew = CREW[1::2]
    cohort, _ = trained(crew, digits, epochs=1)
    before = tensors_of(cohort.training_state().snapshot(crew[1]))
    cohort.prune([crew[0].id])
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(cohort.training_state().snapshot(crew[1])), before, strict=True))
    other, _ = trained(crew, digits, epochs=1)
    other.prune([crew[1].id])
    assert (other.config.extras, list(other.state.slots)) == (Extras(), ["mean", "square"])
    assert set(other.run_epoch()) == {crew[0].id}


def test_a_trial_joins_others_that_average(digits: Data) -> None:
    """From a checkpoint of its own that has no average."""
    stranger, own = SMALL.derive(seed=8), CREW[0]
    alone, _ = trained([stranger], digits, epochs=1)
    company, _ = trained([own], digits, epochs=1)
    mixed = Cohort([stranger, own], digits, CPU)
    mixed.restore([alone.training_state().snapshot(stranger), company.training_state().snapshot(own)])
    mixed.run_epoch()
    undisturbed, _ = trained([own], digits)
    assert_close(tensors_of(mixed.training_state().snapshot(own)), tensors_of(undisturbed.training_state().snapshot(own)))


# -------------------------------------------------------------------------------- the scores


def test_the_averaged_weights_are_scored_as_the_others(digits: Data) -> None:
    """The same images, draws and head: of equal weights the scores are equal."""
    spec = SMALL.derive(ema_decay=0.9)
    cohort, _ = trained([spec], digits, epochs=1)
    raw: VAE = cohort.trained(spec)
    plain = metrics.evaluate(spec, raw, digits).scores
    twins = metrics.averaged(spec, raw, digits)
    assert {key for key, row in SCORES.items() if "average" in row.needs} == set(twins)
    for key, value in twins.items():
        if key != "ema/validation/elbo":
            assert value == pytest.approx(plain[key.removeprefix("ema/")], rel=1e-6)
    (row,) = (Cohort([spec], digits, CPU).validation.score([spec], raw),)  # type: ignore[union-attr]  # it is fitted on train
    assert twins["ema/validation/elbo"] == pytest.approx(row[0]["elbo/validation"], rel=1e-5)
    own = metrics.averaged(spec, cohort.trained(spec, AVERAGE), digits)
    assert all(own[key] != value for key, value in twins.items())


@pytest.mark.parametrize(
    ("fields", "images"), [({"evaluation": "validation"}, {"validation"}), ({"fit_on": "train+validation"}, {"test"})]
)
def test_a_search_does_not_see_the_test_set_by_the_average_either(fields: dict, images: set[str], digits: Data) -> None:
    spec = SMALL.derive(ema_decay=0.9, **fields)
    cohort, _ = trained([spec], digits, epochs=1)
    assert {SCORES[key].images for key in metrics.averaged(spec, cohort.trained(spec, AVERAGE), digits)} == images
