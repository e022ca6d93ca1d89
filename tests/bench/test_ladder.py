"""The ladder: arithmetic against counted FLOP, rungs that must agree, a page that keeps what others wrote, a peer not there."""

import math
import sys
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness import devices, provenance
from harness.bench import jax_peer, ladder, ladder_page, machine, peers, rungs
from harness.bench.ladder import Ladder, LadderRow
from harness.bench.machine import BATCH, LAYERS, Spent
from harness.bench.rungs import LOOP_VARIANTS, REFERENCE, ReferenceModel, Rung
from harness.errors import UserError
from harness.models.vae import build, parameters_of_one
from harness.spec import CHUNK, TrialSpec

CPU = torch.device("cpu")


def row(*figures: Any) -> LadderRow:
    """A row by its figures, in their order."""
    names = ("name", "lanes", "wall_ms", "cpu_ms", "images_per_s", "ratio", "low", "high", "peak", "compile_s")
    return LadderRow(**dict(zip(names, figures, strict=False)))


def made() -> Ladder:
    """A ladder by hand."""
    return Ladder(
        rows=(
            row(REFERENCE, 1, 14.6, 14.6, 8767, 1.0, 1.0, 1.0, 0.12),
            row("8 lanes, eager", 8, 5.1, 5.0, 25600, 2.9, 2.8, 3.0, 0.35),
            row(rungs.GRAPH, 1, 3.7, 3.6, 35555, 4.0, 3.9, 4.1, 0.48, 21.0),
            LadderRow(name=rungs.JAX, reason=peers.absent(jax_peer.PACKAGES)),
        ),
        device="A Processor (R), 2 cores",
        threads=1,
        rounds=4,
        by_threads=True,
        by_cpu=True,
        gflops=160.0,
        versions="torch 2, Python 3",
        commit="0123456789ab",
        load=(0.1, 0.2),
        date="2026-11-23",
    )


@pytest.mark.parametrize("logits", [False, True])
def test_flop_are_those_that_torch_counts(logits: bool) -> None:
    model, x = ReferenceModel(logits), torch.rand(BATCH, 784)
    with FlopCounterMode(display=False) as counter:
        LOOP_VARIANTS["+ logits" if logits else REFERENCE].loss(model, x).backward()
    assert counter.get_total_flops() == BATCH * machine.flop_per_sample()


def test_layers_are_those_of_the_reference_model() -> None:
    assert machine.parameters() == parameters_of_one(build(TrialSpec(), (1, 28, 28))) == 439_956
    assert [tuple(m.weight.shape[::-1]) for m in ReferenceModel().modules() if isinstance(m, torch.nn.Linear)] == list(LAYERS)


def test_bytes_of_one_layer_by_hand() -> None:
    state, weight, batch = (3 * 5 + 5) * (6 + 2), 3 * 5, 7
    activations = 2 * batch * (3 + 5)  # forward: x in, y out; gradient of the weights: x and dy in
    assert machine.bytes_per_step([(3, 5)], batch) == 4 * (state + weight + activations)
    second = (5 * 2 + 2) * (6 + 2) + 2 * 5 * 2 + 3 * batch * (5 + 2)  # it also has a gradient of its inputs
    assert machine.bytes_per_step([(3, 5), (5, 2)], batch) == 4 * (state + weight + activations + second)


def test_rungs_have_the_same_loss_and_gradient() -> None:
    """Probabilities or logits: equal to rounding. In bfloat16: to its 8 bits."""
    x = torch.rand(BATCH, 784)
    weights = ReferenceModel().state_dict()
    losses, gradients = {}, {}
    for name, recipe in LOOP_VARIANTS.items():
        model = ReferenceModel(recipe.logits)
        model.load_state_dict(weights)
        torch.manual_seed(0)
        loss = recipe.loss(model, x)
        loss.backward()
        losses[name] = loss.item()
        gradients[name] = torch.cat([p.grad.flatten() for p in model.parameters()])
    for name, recipe in LOOP_VARIANTS.items():
        tolerance = 1e-2 if recipe.bf16 else 1e-6
        assert losses[name] == pytest.approx(losses[REFERENCE], rel=tolerance)
        distance = (gradients[name] - gradients[REFERENCE]).norm() / gradients[REFERENCE].norm()
        assert distance < (5e-2 if recipe.bf16 else 1e-4)


def test_each_rung_adds_one_thing() -> None:
    for before, after in pairwise(LOOP_VARIANTS.values()):
        assert sum(before.__dict__[field] != after.__dict__[field] for field in before.__dict__) == 1


def test_an_unread_loss_is_no_number() -> None:
    (total,) = islice(LOOP_VARIANTS[rungs.GOOD].steps(CPU), 1)
    assert math.isnan(total)


FORCED = dict(part.split("=") for part in machine.FORCED.split())


def test_a_class_of_instructions_has_a_section_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in machine.FORCED_BY:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert machine.described(CPU) == f"{devices.describe(CPU)}, AVX2"
    for variable, value in FORCED.items():
        monkeypatch.setenv(variable, value)
    assert machine.described(CPU) == f"AVX2 (forced on {devices.describe(CPU)})"
    assert ladder_page.slug(replace(made(), device=machine.described(CPU))).startswith("avx2-forced-on-")


@pytest.mark.parametrize("left_out", machine.FORCED_BY)
def test_a_class_that_is_forced_in_part_is_refused(monkeypatch: pytest.MonkeyPatch, left_out: str) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    for variable, value in FORCED.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv(left_out)
    with pytest.raises(UserError, match=f"{left_out}=.not set.*\nwrite HARNESS_KERNELS=avx2"):
        machine.described(CPU)


def test_race_takes_turns_and_counts_per_step_of_one_trial() -> None:
    calls: list[str] = []

    def contender(name: str, steps: int, lanes: int) -> Rung:
        return Rung(name, lambda: calls.append(name) or Spent(8.0, 4.0), steps, lanes)

    times = ladder.race([contender("a", 4, 1), contender("b", 2, 8)], 3)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert times == {"a": [Spent(2.0, 1.0)] * 3, "b": [Spent(0.5, 0.25)] * 3}


def test_a_peer_that_is_not_installed_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("jax", "optax", "lightning", "pythae"):
        monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    with ExitStack() as stack, ladder._progress(ladder.Console(quiet=True)) as progress:
        every = ladder.plan(torch.device("cpu"), 1, [], stack)
        every = {rungs.GOOD: every[rungs.GOOD]} | {name: every[name] for name in (rungs.JAX, *rungs.TRAINERS)}
        standing, missing = ladder._build(every, progress, 1.0)
    assert [rung.name for rung in standing] == [rungs.GOOD]
    assert missing == {
        rungs.JAX: "absent; pip install jax optax",
        rungs.LIGHTNING: "absent; pip install lightning",
        rungs.PYTHAE: "absent; pip install pythae",
    }
    assert "| absent; pip install jax optax |" in ladder_page._section(made(), "name")


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [1, 2])
def test_jax_learns_as_fast_as_the_usual_loop(lanes: int) -> None:
    pytest.importorskip("jax")
    pytest.importorskip("optax")
    totals = usual_totals(4 * CHUNK)
    with rungs.jax_peer(CPU, 1, lanes) as peer:
        losses = [peer.ask({})["loss"] for _ in range(4)]
    assert losses[-1] == pytest.approx((totals[-1] - totals[-2]) / BATCH, rel=0.1)
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", rungs.TRAINERS)
def test_a_trainer_learns_as_fast_as_the_usual_loop(name: str) -> None:
    """By the mean over its first chunk, in which the loss falls by two thirds."""
    if not all(find_spec(package) for package in rungs.TRAINERS[name]):  # importing it here would change this process
        pytest.skip(f"{name} is not installed")
    with rungs.trainer_peer(name, CPU, 1) as peer:
        loss = peer.ask({})["loss"]
    assert loss == pytest.approx(usual_totals(rungs.EPOCH)[-1] / rungs.EPOCH / BATCH, rel=0.1)


def usual_totals(steps: int) -> list[float]:
    """The losses so far of so many steps of the usual loop, in its form with logits."""
    torch.manual_seed(0)
    return list(islice(LOOP_VARIANTS["+ logits"].steps(CPU), steps))


def test_lanes_that_take_too_long_are_left_out() -> None:
    quick, slow = Rung("quick", lambda: Spent(1.0, 1.0), 1, 2), Rung("slow", lambda: Spent(9.0, 9.0), 1, 4)
    with ladder._progress(ladder.Console(quiet=True)) as progress:
        standing, absent = ladder._build({"quick": lambda: quick, "slow": lambda: slow}, progress, 5.0)
    assert standing == {quick: 1.0}
    assert absent == {"slow": "left out for time: 9.0 s a round"}


def test_packages_are_asked_for_before_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some may be absent where benchmarks run from a checkout, and a fault must not lose what minutes of rounds have measured."""
    asked = []

    def missing(package: str) -> str:
        asked.append(package)
        raise provenance.metadata.PackageNotFoundError(package)

    def no_rounds(*arguments: Any) -> None:
        assert {"torch", "mlflow", "optuna", "vae-harness"} <= set(asked)
        raise KeyboardInterrupt

    monkeypatch.setattr(provenance.metadata, "version", missing)
    monkeypatch.setattr(ladder, "plan", no_rounds)
    with pytest.raises(KeyboardInterrupt):
        ladder.ladder("cpu", 1, 2, [], ladder.Console(quiet=True))
    assert provenance.tags()["version.mlflow"] == provenance.tags()["version.harness"] == "absent"


def test_the_page_replaces_its_own_section_only(tmp_path: Path) -> None:
    first = made()
    page = ladder_page.write(first, tmp_path)
    name = ladder_page.slug(first)
    assert name == "a-processor-r-2-cores-1-thread"
    assert (tmp_path / f"performance-{name}.png").exists()
    page.write_text(f"{page.read_text()}\nwritten by hand\n")
    ladder_page.write(replace(first, threads=2), tmp_path)
    other = page.read_text().partition("written by hand")[2]
    ladder_page.write(replace(first, commit="fedcba987654"), tmp_path)
    text = page.read_text()
    assert text.startswith("# Performance\n")
    assert text.count(f"<!-- ladder:{name} -->") == text.count(f"<!-- /ladder:{name} -->") == 1
    assert "0123456789ab" not in text.partition("written by hand")[0]
    assert "fedcba987654" in text.partition("written by hand")[0]
    assert text.partition("written by hand")[2] == other
    assert "2-cores-2-threads" in other


def test_a_row_names_what_a_step_costs() -> None:
    cells = ladder_page._cells(made().rows[1])
    assert cells[0] == "8 lanes, eager"
    assert cells[6] == "2.28"  # GFLOP: 8 x 128 x 2,229,376
    assert made().rows[0].flop == 285_360_128


def test_a_busy_machine_is_said() -> None:
    quiet = made()
    assert "busy" not in ladder_page._provenance(quiet)
    waited = replace(quiet, rows=[replace(r, wall_ms=1.5 * r.cpu_ms) for r in quiet.rows])
    assert "50% above CPU time" in ladder_page._provenance(waited)
    assert "wait for one another" in ladder_page._provenance(replace(quiet, threads=2, by_cpu=False, load=(2.0, 3.0)))
