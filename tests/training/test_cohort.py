"""A trial is a function of its spec: alone or in company, and equal to a loop that anyone would write."""

import copy
import hashlib
import math

import pytest
import torch
from steps import CPU, SMALL, assert_close, trained, weights
from tables import LIKELIHOODS, OBJECTIVES
from torch import Tensor, nn

from harness.data import Data, load_dataset
from harness.models.activations import gain
from harness.spec import CHUNK, TrialSpec
from harness.training.batches import generator
from harness.training.cohort import Cohort
from harness.training.step import Execution


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


def digest(tensors: list[Tensor]) -> str:
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


# -------------------------------------------------------------------------------- an ordinary loop


class Oracle(nn.Module):
    """The reference VAE of one trial, as a textbook has it."""

    def __init__(self, spec: TrialSpec, pixels: int) -> None:
        super().__init__()
        likelihood = LIKELIHOODS[spec.likelihood]
        e = [nn.Linear(a, b) for a, b in ((pixels, 256), (256, 64), (64, 32), (32, 2 * spec.latent))]
        d = [nn.Linear(a, b) for a, b in ((spec.latent, 32), (32, 64), (64, 256), (256, pixels * likelihood.outputs))]
        self.encoder = nn.Sequential(e[0], nn.ELU(), e[1], nn.ELU(), e[2], nn.ELU(), e[3])
        self.decoder = nn.Sequential(d[0], d[1], nn.ELU(), d[2], nn.ELU(), d[3])
        self.shared = nn.Parameter(torch.zeros(likelihood.shared)) if likelihood.shared else None
        self.outputs = likelihood.outputs
        start, elu = generator(spec.seed, "weights", 0), gain("elu")
        for layer, g in zip((*e, *d), (1, elu, elu, elu, 1, 1, elu, elu), strict=True):
            bound = layer.in_features**-0.5
            weight = torch.empty(layer.in_features, layer.out_features).uniform_(-bound, bound, generator=start)
            layer.weight.data = g * weight.T.contiguous()
            layer.bias.data.uniform_(-bound, bound, generator=start)

    def loss(self, spec: TrialSpec, x: Tensor, eps: Tensor) -> Tensor:
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        out = self.decoder(mean + (log_var / 2).exp() * eps)
        kl = -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(1)
        if spec.likelihood in ("bce", "bernoulli"):
            nll = nn.functional.binary_cross_entropy_with_logits(out, x, reduction="none").sum(1)
        else:
            shared = () if self.shared is None else (self.shared.view(1, 1),)
            nll = -LIKELIHOODS[spec.likelihood].log_prob(x, *out.chunk(self.outputs, dim=1), *shared)
        return (nll + spec.beta * kl).mean()

    def weights(self) -> list[Tensor]:
        """In the cohort's order and orientation."""
        found = [] if self.shared is None else [self.shared.detach().view(1, 1)]
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                found += [layer.weight.detach().T, layer.bias.detach().view(1, -1)]
        return found


def oracle(spec: TrialSpec, data: Data) -> Oracle:
    v = data.train.levels.float()
    model = Oracle(spec, v.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay)
    likelihood, steps = LIKELIHOODS[spec.likelihood], math.ceil(len(v) / spec.batch_size)
    for epoch in range(spec.epochs):
        order = torch.randperm(len(v), generator=generator(spec.seed, "order", epoch))
        latent, pixels = generator(spec.seed, "latent", epoch), generator(spec.seed, "pixels", epoch)
        for step, index in enumerate(order.split(spec.batch_size)):
            if step % CHUNK == 0:
                size = min(CHUNK, steps - step), spec.batch_size
                eps = torch.randn(*size, spec.latent, generator=latent)
                u = torch.rand(*size, v.shape[1], generator=pixels) if likelihood.noise == "fresh" else None
            t, images = step % CHUNK, len(index)
            x = likelihood.observe(v[index], 0.5 if u is None else u[t, :images])
            optimizer.zero_grad()
            model.loss(spec, x, eps[t, :images]).backward()
            optimizer.step()
    return model


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_trial_is_what_an_ordinary_loop_trains(name: str, digits: Data) -> None:
    spec = SMALL.derive(likelihood=name, seed=5, beta=0.7, weight_decay=1e-3)
    c, _ = trained([spec], digits)
    start = weights(Cohort([spec], digits, CPU), spec)
    want = oracle(spec, digits).weights()
    assert_close(weights(c, spec), want)
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(start, want, strict=True))  # there was something to learn


# -------------------------------------------------------------------------------- alone and in company

COMPANY = [
    SMALL.derive(seed=1),
    SMALL.derive(seed=2, learning_rate=3e-4, beta=4.0, weight_decay=1e-2),
    SMALL.derive(seed=1, kl_warmup=1.5, learning_rate=2e-3),
]


@pytest.mark.parametrize(
    "change", [{}, {"likelihood": "gaussian_shared"}, {"likelihood": "bernoulli"}, {"optimizer": "adamw"}], ids=str
)
def test_a_trial_trains_alike_alone_and_in_company(change: dict, digits: Data) -> None:
    specs = [s.derive(**change) for s in COMPANY]
    fused, rows = trained(specs, digits)
    for spec in specs:
        alone, own = trained([spec], digits)
        assert_close(weights(fused, spec), weights(alone, spec))
        for together, by_itself in zip(rows, own, strict=True):
            for term in ("elbo/train", "kl/train", "elbo/validation", "kl/validation"):
                assert together[spec.id][term] == pytest.approx(by_itself[spec.id][term], rel=1e-3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_keeps_lanes_apart(objective: str, digits: Data) -> None:
    base = SMALL.derive(objective=objective, num_samples=3)
    specs = [base.derive(seed=1), base.derive(seed=2, learning_rate=3e-4), base.derive(seed=1, learning_rate=2e-3)]
    if objective == "elbo":
        own = {"free_bits": 2.0}, {"beta": 4.0, "free_bits": 0.2}, {"beta": 0.5, "kl_warmup": 0.5, "kl_cycle": 1.0}
        specs = [s.derive(**fields) for s, fields in zip(specs, own, strict=True)]
    fused, rows = trained(specs, digits)
    for spec in specs:
        alone, own_rows = trained([spec], digits)
        assert_close(weights(fused, spec), weights(alone, spec))
        for term in ("objective/train", "kl/train", "diagnostics/gradient_norm"):
            assert rows[1][spec.id][term] == pytest.approx(own_rows[1][spec.id][term], rel=5e-3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_and_the_elbo_on_record_is_at_beta_1(objective: str, digits: Data) -> None:
    fields = {"beta": 3.0, "free_bits": 0.1} if objective == "elbo" else {}
    specs = [SMALL.derive(objective=objective, num_samples=3, seed=s, **fields) for s in range(2)]
    _, rows = trained(specs, digits, epochs=3)
    for spec in specs:
        first, last = rows[0][spec.id], rows[-1][spec.id]
        assert last["objective/train"] > first["objective/train"]
        assert last["elbo/train"] == pytest.approx(last["recon/train"] - last["kl/train"])
        assert last["diagnostics/gradient_norm"] > 0
        if objective == "elbo":
            assert last["objective/train"] < last["elbo/train"]
        else:
            assert last["objective/train"] > last["elbo/train"]


def test_company_of_one_size_is_bitwise_no_matter_who(digits: Data) -> None:
    first, _ = trained(COMPANY, digits, epochs=1)
    second, _ = trained([COMPANY[2], COMPANY[1], SMALL.derive(seed=9)], digits, epochs=1)
    for spec in COMPANY[1:]:
        assert digest(weights(first, spec)) == digest(weights(second, spec))


def test_equal_specs_give_equal_bits(digits: Data) -> None:
    runs = [trained([SMALL], digits, epochs=1)[0] for _ in range(2)]
    other, _ = trained([SMALL.derive(seed=1)], digits, epochs=1)
    assert len({digest(weights(c, SMALL)) for c in runs}) == 1
    assert digest(weights(other, other.specs[0])) != digest(weights(runs[0], SMALL))


def test_looking_at_validation_changes_nothing(digits: Data) -> None:
    watched, rows = trained([SMALL], digits)
    blind = Cohort([SMALL], digits, CPU)
    for _ in range(2):
        assert "elbo/validation" not in blind.run_steps(blind.steps_per_epoch)[SMALL.id]
    assert "elbo/validation" in rows[0][SMALL.id]
    assert digest(weights(watched, SMALL)) == digest(weights(blind, SMALL))


def test_a_cohort_is_of_one_shape_and_different_trials(digits: Data) -> None:
    for specs in ([SMALL, SMALL], [SMALL, SMALL.derive(latent=3)]):
        with pytest.raises(ValueError, match="a cohort"):
            Cohort(specs, digits, CPU)


# -------------------------------------------------------------------------------- going on from a training state


def all_of(c: Cohort, spec: TrialSpec) -> str:
    """SHA-256 of a trial's weights and moments."""
    kept = c.training_state().snapshot(spec)
    return digest([t for group in ("parameters", "mean", "square") for t in kept[group].values()])


PLANNED = {"epochs": 3, "learning_rate_decay": 0.1, "weight_decay": 1e-2, "kl_warmup": 2.0}
CREWS = {
    "alone": [SMALL.derive(**PLANNED)],
    "seeds": [s.derive(epochs=3) for s in COMPANY],
    "pixel noise": [SMALL.derive(likelihood="bernoulli", seed=i, **PLANNED) for i in range(2)],
    "shared scalars beside none": [SMALL.derive(likelihood=n, **PLANNED) for n in ("mse", "gaussian_shared")],
}


@pytest.mark.parametrize("execution", ["eager", "graph"])
@pytest.mark.parametrize("crew", CREWS)
def test_a_cohort_that_goes_on_is_the_one_that_never_stopped(crew: str, execution: Execution, digits: Data) -> None:
    """Bitwise, from the end of every epoch on; tests/executors has the rest."""
    specs = CREWS[crew]
    whole = Cohort(specs, digits, CPU, execution)
    at_the_start = all_of(whole, specs[0])
    epoch_ends, rows = [], []
    for _ in range(3):
        epoch_ends.append(whole.training_state())
        rows.append(whole.run_epoch())
    for epoch in (1, 2):
        c = Cohort(specs, digits, CPU, execution)
        c.restore([epoch_ends[epoch].snapshot(s) for s in specs])
        again = [c.run_epoch() for _ in range(epoch, 3)]
        assert c.state.step == whole.state.step
        for spec in specs:
            assert all_of(c, spec) == all_of(whole, spec) != at_the_start
            for theirs, ours in zip(rows[epoch:], again, strict=True):
                for term in theirs[spec.id]:
                    assert term.startswith("perf/") or ours[spec.id][term] == theirs[spec.id][term]


def test_a_snapshot_is_of_the_trial_alone(digits: Data) -> None:
    """So that any company will do later."""
    specs = CREWS["shared scalars beside none"]
    together, _ = trained(specs, digits, epochs=1)
    for spec in specs:
        alone, _ = trained([spec], digits, epochs=1)
        ours, theirs = together.training_state().snapshot(spec), alone.training_state().snapshot(spec)
        assert ours["epoch"] == theirs["epoch"] == 1
        for group in ("parameters", "mean", "square"):
            assert list(ours[group]) == list(theirs[group])
            assert_close(list(ours[group].values()), list(theirs[group].values()))
    stranger = SMALL.derive(**PLANNED, seed=8)
    other, _ = trained([stranger], digits, epochs=1)
    crew = [stranger, specs[1]]
    mixed = Cohort(crew, digits, CPU)
    mixed.restore([other.training_state().snapshot(stranger), together.training_state().snapshot(specs[1])])
    mixed.run_epoch()
    undisturbed, _ = trained([specs[1]], digits)
    assert_close(weights(mixed, specs[1]), weights(undisturbed, specs[1]))


def test_a_training_state_is_a_copy(digits: Data) -> None:
    c, _ = trained([SMALL], digits, epochs=1)
    state, before = c.training_state(), all_of(c, SMALL)
    c.run_epoch()
    assert all_of(c, SMALL) != before
    kept = state.snapshot(SMALL)
    assert digest([t for group in ("parameters", "mean", "square") for t in kept[group].values()]) == before


def test_snapshots_of_different_epochs_do_not_mix(digits: Data) -> None:
    c = Cohort(COMPANY, digits, CPU)
    start = c.training_state()
    c.run_epoch()
    kept = [start.snapshot(COMPANY[0]), *(c.training_state().snapshot(s) for s in COMPANY[1:])]
    with pytest.raises(ValueError, match=r"different epochs.*\[0, 1\]"):
        Cohort(COMPANY, digits, CPU).restore(kept)


def test_a_dropped_trial_takes_no_time_and_leaves_the_others_as_they_are(digits: Data) -> None:
    c, _ = trained(COMPANY, digits, epochs=1)
    before = {s.id: all_of(c, s) for s in COMPANY}
    c.prune([COMPANY[1].id])
    assert c.specs == c.lanes == [COMPANY[0], COMPANY[2]]
    assert all(len(t) == 2 for t in (*c.params, *c.state.slots["mean"], *c.state.slots["square"]))
    assert all(all_of(c, s) == before[s.id] for s in c.specs)
    rows = c.run_epoch()
    assert set(rows) == {s.id for s in c.specs}
    alone, _ = trained([COMPANY[2]], digits)
    assert_close(weights(c, COMPANY[2]), weights(alone, COMPANY[2]))
    c.prune([s.id for s in c.specs])
    assert c.specs == []


def test_a_cohort_with_a_program_drops_to_a_smaller_one_if_the_steps_left_pay_for_it(digits: Data) -> None:
    for seconds, lanes in ((1.0, 4), (0.5, 1)):  # 38 steps of 25 ms are left, of which a quarter of the lanes saves 0.71 s
        c = Cohort([SMALL.derive(seed=i) for i in range(4)], digits, CPU, "graph")
        c.run_epoch()
        assert c.traced is not None
        c.traced, c.step_s = copy.copy(c.traced), 0.025
        c.traced.seconds = seconds
        c.prune([s.id for s in c.specs[1:]])
        assert (len(c.specs), len(c.lanes)) == (1, lanes)

    specs = [SMALL.derive(seed=i, epochs=10_000) for i in range(4)]
    c = Cohort(specs, digits, CPU, "graph")
    c.run_epoch()
    c.prune([specs[0].id])
    assert (len(c.specs), len(c.lanes)) == (3, 4)
    c.prune([specs[2].id])
    assert c.lanes == c.specs == [specs[1], specs[3]]
    assert set(c.run_epoch()) == {specs[1].id, specs[3].id}


# -------------------------------------------------------------------------------- subnormal numbers


@pytest.mark.parametrize("execution", ["eager", "manual"])
def test_moments_of_what_has_no_gradient_any_more_come_to_rest_at_zero(execution: Execution, digits: Data) -> None:
    """As of a ReLU unit that has died. Subnormal numbers, which rounding would hold for good, slow every step down."""
    cohort = Cohort([SMALL.derive(network="mlp", hidden=(32,))], digits, CPU, execution)
    blank = digits.train.levels.amax(0) == 0
    assert blank.any()
    mean, weight = cohort.state.slots["mean"][0], cohort.params[0]
    assert mean.shape[1] == len(blank)
    mean.fill_(2e-38)
    before = weight.clone()
    assert cohort.run_steps(CHUNK)
    assert (mean[:, blank] == 0).all()
    assert (mean[:, ~blank] != 0).any()
    assert torch.equal(weight[:, blank], before[:, blank])
    assert float(torch.tensor(2e-38) / 100) > 0  # outside of a step they are numbers as others are
