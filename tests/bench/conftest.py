"""Benchmarks: one thread, a clock that waits for the device, beside every figure what it was measured on, and results on record."""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils.benchmark.utils.timer import timer

from harness import data, devices, executors, figures, metrics, study
from harness.bench import store
from harness.metrics import features
from harness.models.vae import VAE
from harness.spec import CHUNK, Result, TrialSpec
from harness.training.checkpoints import Checkpoints
from harness.training.cohort import Cohort
from harness.training.planner import execution_alone
from harness.training.step import Execution

TRACKING_URI = os.environ.get("MLFLOW_TRACKING_URI", "")  # the user's: MLflow puts there whatever store a test used last


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and "benchmark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.benchmark(timer=timer))


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    output_json["origin"] = store.origin()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """After the table: keep the results, whatever becomes of them on the screen."""
    bench = config._benchmarksession
    if bench.disabled or not bench.benchmarks:
        return
    hook = config.hook
    session = hook.pytest_benchmark_generate_json(
        config=config,
        benchmarks=bench.benchmarks,
        include_data=True,
        machine_info=bench.get_machine_info(),
        commit_info=hook.pytest_benchmark_generate_commit_info(config=config),
    )
    hook.pytest_benchmark_update_json(config=config, benchmarks=bench.benchmarks, output_json=session)
    terminalreporter.write_line(f"kept in {store.save(session, store.folder())}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", TRACKING_URI)
        terminalreporter.write_line(f"and in the MLflow experiment {store.log(session)}")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    devices.one_thread()


@pytest.fixture(autouse=True)
def provenance(request: pytest.FixtureRequest) -> None:
    """Device, versions, commit and load, stored with a benchmark's figures; other tests here measure nothing."""
    if "benchmark" in request.fixturenames:
        request.getfixturevalue("benchmark").extra_info.update(store.origin())


@pytest.fixture(scope="session")
def where() -> torch.device:
    """What is benchmarked: the GPU where there is one."""
    return devices.named("auto")


@pytest.fixture(scope="session")
def mnist() -> data.Data:
    return data.load_dataset("mnist")


@pytest.fixture(scope="session")
def chunk_of(mnist: data.Data, where: torch.device) -> Callable[..., Callable[[], None]]:
    """A function of trial specs that gives a function which trains them for one chunk of steps, all costs of a step included.

    One trial is trained as a short study would, unless said; several by operations.
    """

    def make(*specs: TrialSpec, execution: Execution | None = None) -> Callable[[], None]:
        alone = execution_alone(specs[0].derive(epochs=1), mnist, where) if len(specs) == 1 else "eager"
        cohort = Cohort(specs, mnist, where, execution or alone)

        def run() -> None:
            assert cohort.run_steps(CHUNK)

        return run

    return make


class Spent(NamedTuple):
    """Seconds on the wall and of this process's CPU time."""

    wall: float
    cpu: float


@contextmanager
def spending(into: dict[str, Spent], name: str) -> Iterator[None]:
    """Note under `name` what this block takes."""
    wall, cpu = timer(), time.process_time()
    yield
    into[name] = Spent(timer() - wall, time.process_time() - cpu)


@dataclass
class Trained:
    """A trial as its worker leaves it: model, scores, files, its rows by epoch, what its parts took and what each figure did."""

    spec: TrialSpec
    vae: VAE
    result: Result
    files: Path
    rows: list[Mapping[str, float]] = field(default_factory=list)
    parts: dict[str, Spent] = field(default_factory=dict)
    figures: dict[str, Spent] = field(default_factory=dict)


@pytest.fixture(scope="session")
def trained(mnist: data.Data, where: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The first trial of loss_ablation's default budget, through `executors.train`; parts: training, evaluation, figures, saving.

    Alone and not compiled, as that budget trains on a CPU. What only a worker's first trial pays (imports, fonts) is paid before.
    """
    spec = study.load_study("loss_ablation").cells("default")[0].spec
    features.feature_net(mnist, say=print)
    found: dict[str, Any] = {}
    rows: list[Mapping[str, float]] = []
    parts: dict[str, Spent] = {}
    each: dict[str, Spent] = {}
    evaluate, draw = metrics.evaluate, figures.draw

    def timed_evaluate(spec: TrialSpec, vae: VAE, images: data.Data) -> metrics.Evaluation:
        found["vae"] = vae
        with spending(parts, "evaluation"):
            return evaluate(spec, vae, images)

    def timed_draw(subject: figures.Subject, folder: Path, names: Collection[str]) -> Iterator[Path]:
        list(draw(subject, folder))
        with spending(parts, "figures"):
            start = timer(), time.process_time()
            for path in draw(subject, folder, names):
                now = timer(), time.process_time()
                each[path.stem], start = Spent(now[0] - start[0], now[1] - start[1]), now
                yield path
        found["drawn"] = timer(), time.process_time()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "evaluate", timed_evaluate)
        patch.setattr(figures, "draw", timed_draw)
        devices.one_thread()
        start = timer(), time.process_time()
        scratch = tmp_path_factory.mktemp("trial")
        job = executors.Job((spec,), draw_all_figures=frozenset({spec.id}))
        for event in executors.train(job, str(where), scratch, Checkpoints(scratch / "checkpoints")):
            now = timer(), time.process_time()
            match event:
                case executors.Epoch(row=row):
                    rows.append(row)
                    parts["training"] = Spent(now[0] - start[0], now[1] - start[1])
                case executors.Finished(result=result, files=files):
                    found.update(result=result, files=files)
                    parts["saving"] = Spent(now[0] - found["drawn"][0], now[1] - found["drawn"][1])
    return Trained(spec, found["vae"], found["result"], found["files"], rows, parts, each)
