"""Benchmarks: one thread, and beside every figure what it was measured on."""

import os
from collections.abc import Callable

import pytest
import torch

from harness import engine, manifest
from harness.cohort import CHUNK, Cohort
from harness.data import load
from harness.spec import TrialSpec


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    engine.one_thread()


@pytest.fixture
def provenance(benchmark) -> None:
    """Device, versions, commit and load, stored with the figures."""
    tags = manifest.tags()
    benchmark.extra_info.update(
        device=engine.describe(torch.device("cpu")),
        threads=torch.get_num_threads(),
        torch=tags["version.torch"],
        python=tags["version.python"],
        commit=manifest.commit(),
        load=os.getloadavg()[0],
    )


@pytest.fixture(scope="session")
def chunk_of() -> Callable[..., Callable[[], None]]:
    """A function of trial specs that gives a function which trains them for one chunk of steps, all costs of a step included."""
    data = load("mnist")

    def make(*specs: TrialSpec) -> Callable[[], None]:
        cohort = Cohort(specs, data, torch.device("cpu"))
        cohort.steps_per_epoch, cohort.eval_x = CHUNK, None  # an epoch of one chunk, without its evaluation

        def run() -> None:
            assert cohort.run_epoch()

        return run

    return make
