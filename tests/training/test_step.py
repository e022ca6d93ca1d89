"""The compiled step equals the same operations taken one by one, for every likelihood and activation, alone and mixed."""

from itertools import zip_longest

import pytest
import torch
from steps import NARROW, TERMS, assert_same, trained
from tables import ACTIVATIONS, LIKELIHOODS, OBJECTIVES, OPTIMIZERS

from harness.data import Data, load_dataset
from harness.models.vae import likelihood_of, mixable

# Two components do what five do, and compile three times faster.
ALONE = [{"likelihood": n} | ({"likelihood_args": {"components": 2}} if n == "logistic_mixture" else {}) for n in LIKELIHOODS]
WIDE = {"network": "reference", "hidden": None}
COMPILED = NARROW.derive(likelihood="discretized_logistic", objective="dreg")  # each program more takes its seconds
ONE_OUTPUT = [name for name in LIKELIHOODS if LIKELIHOODS[name].outputs == 1]


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


@pytest.mark.parametrize("change", ALONE + [{"activation": n} for n in ACTIVATIONS] + [WIDE], ids=str)
def test_the_graph_is_the_step(change: dict, digits: Data) -> None:
    assert_same([NARROW.derive(**change)], digits, "graph")


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_graph_is_the_step_for_every_objective_and_optimizer(objective: str, optimizer: str, digits: Data) -> None:
    fields = {"beta": 2.0, "free_bits": 0.3, "kl_warmup": 1.0} if objective == "elbo" else {}
    base = NARROW.derive(
        objective=objective, num_samples=2, optimizer=optimizer, weight_decay=1e-2, learning_rate_decay=0.1, **fields
    )
    assert_same([base, base.derive(seed=1, learning_rate=3e-4)], digits, "graph")


@pytest.mark.slow
def test_compiled_is_the_same(digits: Data) -> None:
    """The back end is torch's; the graphs are held by the tests above, one by one."""
    assert_same([COMPILED], digits, "compiled")


@pytest.mark.slow
def test_compiled_is_the_same_with_all_arms_in_one_program(digits: Data) -> None:
    arms = [NARROW.derive(activation=a or "elu", likelihood=n or "bce") for a, n in zip_longest(ACTIVATIONS, ONE_OUTPUT)]
    assert_same(arms, digits, "compiled")


@pytest.mark.slow
def test_equal_shapes_share_a_program(digits: Data) -> None:
    first, _ = trained([COMPILED], digits, execution="compiled")
    second, _ = trained([COMPILED.derive(seed=3, learning_rate=1e-4, epochs=9)], digits, execution="compiled")
    assert second.compile_s == 0
    assert first.bound is not None
    assert second.bound is not None
    assert first.bound.call is second.bound.call


@pytest.mark.parametrize(
    "arms",
    [
        [
            {"likelihood": "bce"},
            {"likelihood": "mse"},
            {"likelihood": "mse", "likelihood_args": {"sigma": 0.5}},
            {"likelihood": "gaussian_shared"},
        ],
        [
            {"likelihood": "continuous_bernoulli"},
            {"likelihood": "bernoulli"},
            {"likelihood": "bernoulli", "likelihood_args": {"binarisation": "threshold"}},
        ],
        [{"activation": "relu"}, {"activation": "tanh", "likelihood": "mse"}, {"activation": "elu"}],
    ],
    ids=["shared scalars", "pixel noise", "activations"],
)
def test_arms_in_one_program_train_as_alone(arms: list[dict], digits: Data) -> None:
    specs = [NARROW.derive(**arm, seed=seed) for arm in arms for seed in range(2)]
    together, rows = trained(specs, digits)
    for spec in specs:
        alone, own = trained([spec], digits)
        ours, theirs = together.trained(spec), alone.trained(spec)
        assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)
        assert [rows[1][spec.id][t] for t in TERMS] == pytest.approx([own[1][spec.id][t] for t in TERMS], rel=5e-3)


def test_what_cannot_share_a_program() -> None:
    assert mixable([NARROW, NARROW.derive(likelihood="mse", activation="relu", seed=4)])
    for other in ({"latent": 3}, {"likelihood": "gaussian_per_pixel"}, {"epochs": 3}, {"precision": "bf16"}):
        assert not mixable([NARROW, NARROW.derive(**other)])
    dynamic, static = (
        NARROW.derive(likelihood="bernoulli", likelihood_args={"binarisation": way}) for way in ("dynamic", "static")
    )
    assert not mixable([dynamic, static])
    mse = NARROW.derive(likelihood="mse")
    assert likelihood_of(mse.derive(likelihood_args={"sigma": 0.5})) != likelihood_of(mse)


def test_a_masked_lane_is_compacted_at_the_end_of_the_epoch(digits: Data) -> None:
    base = NARROW.derive(likelihood="mse", epochs=10_000)  # steps enough to pay for another program
    calm = [base.derive(seed=s) for s in range(2)]
    mad = [base.derive(seed=s, learning_rate=1e6) for s in range(2)]
    specs = [mad[0], calm[0], mad[1], calm[1]]
    cohort, rows = trained(specs, digits, epochs=1, execution="graph")
    assert list(rows[0]) == [s.id for s in calm]
    assert cohort.specs == cohort.lanes == calm
    assert set(cohort.failures) == {s.id for s in mad}
    rows.append(cohort.run_epoch())
    _, own = trained(calm, digits)
    for spec in calm:
        assert rows[1][spec.id]["elbo/train"] == pytest.approx(own[1][spec.id]["elbo/train"], rel=1e-3)


def test_a_cohort_with_a_program_stays_in_its_bucket(digits: Data) -> None:
    base = NARROW.derive(likelihood="mse", epochs=10_000)
    specs = [base.derive(seed=s, learning_rate=1e6 if s == 1 else 1e-3) for s in range(4)]
    cohort, rows = trained(specs, digits, execution="graph")
    assert [len(r) for r in rows] == [3, 3]
    assert (len(cohort.specs), len(cohort.lanes)) == (3, 4)  # three need the program of four: nothing is built anew


def test_bf16_is_near_and_leaves_scores_alone(digits: Data) -> None:
    _, rows = trained([NARROW], digits)
    half, own = trained([NARROW.derive(precision="bf16")], digits)
    assert all(p.dtype == torch.float32 for p in half.params)
    a, b = (next(iter(r[1].values()))["elbo/train"] for r in (rows, own))
    assert a != b
    assert a == pytest.approx(b, rel=0.02)
