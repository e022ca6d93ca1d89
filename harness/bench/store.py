"""Benchmark results, kept per machine: a JSON file per session, and a run in the MLflow experiment `bench/<machine>`."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from harness import devices, paths, provenance, tracking
from harness.tracking import library

BenchSession = Mapping[str, Any]  # the JSON that pytest-benchmark writes, with `origin()` under "origin"

STATISTICS = ("median", "min")


def machine() -> str:
    """Return the name of the device that benchmarks use, in a form for file names."""
    return re.sub(r"[^a-z0-9]+", "-", devices.describe(devices.named("auto")).lower()).strip("-")


def folder() -> Path:
    """Return the folder of this machine's files."""
    return paths.mlruns() / "bench" / machine()


def origin() -> dict[str, Any]:
    """Return what benchmarks were measured on: device, threads, versions, commit, and the load average now."""
    tags = provenance.tags()
    return {
        "device": devices.describe(devices.named("auto")),
        "threads": torch.get_num_threads(),
        "torch": tags["version.torch"],
        "python": tags["version.python"],
        "commit": provenance.commit(),
        "load": round(os.getloadavg()[0], 2),
    }


def save(session: BenchSession, into: Path) -> Path:
    """Write a session's results as a file of their own, whole or not at all, and return its path."""
    into.mkdir(parents=True, exist_ok=True)
    moment = re.sub(r"\D", "", session["datetime"][:26])
    file = into / f"{moment}_{session['origin']['commit']}.json"
    scratch = file.with_suffix(".building")
    with scratch.open("w", encoding="utf-8") as out:
        json.dump(session, out, indent=1, default=str)
        out.flush()
        os.fsync(out.fileno())
    return scratch.replace(file)


def log(session: BenchSession) -> str:
    """Record a session as a finished run with a metric per benchmark and statistic, and return the experiment's name."""
    tracking.ensure_store()
    client = library.client()
    name = f"bench/{machine()}"
    existing = client.get_experiment_by_name(name)
    if existing is None:
        experiment = client.create_experiment(name, artifact_location=tracking.artifact_location(name))
    else:
        experiment = existing.experiment_id
    origin_facts = session["origin"]
    run = client.create_run(experiment, tags=provenance.tags() | {"kind": "bench"}, run_name=origin_facts["commit"]).info
    values = metrics(session) | {"load": origin_facts["load"]}
    now = run.start_time
    client.log_batch(
        run.run_id,
        metrics=[library.mlflow().entities.Metric(key, value, now, 0) for key, value in values.items()],
        params=[library.mlflow().entities.Param(key, str(value)) for key, value in origin_facts.items()],
    )
    client.set_terminated(run.run_id, "FINISHED")
    return name


def metrics(session: BenchSession) -> dict[str, float]:
    """Return the milliseconds by statistic and benchmark, and all other numbers of `extra_info`.

    The milliseconds are those of one unit if a round has several (`units`).
    """
    values: dict[str, float] = {}
    for bench in session["benchmarks"]:
        name, extra_info = benchmark_name(bench["fullname"]), dict(bench["extra_info"])
        units = extra_info.pop("units", 1)
        values |= {f"{s}_ms/{name}": 1e3 * bench["stats"][s] / units for s in STATISTICS}
        values |= _numbers({key: value for key, value in extra_info.items() if key not in session["origin"]}, name)
    return values


def benchmark_name(fullname: str) -> str:
    """Return `tests/bench/test_step_time.py::test_lanes[2]` as `step_time/lanes/2`."""
    file, _, test = fullname.partition("::")
    case, _, parameters = test.partition("[")
    parts = (Path(file).stem.removeprefix("test_"), case.removeprefix("test_"), parameters.removesuffix("]"))
    return "/".join(_key(p) for p in parts if p)


def _numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """Yield every number in nested dictionaries, with its path."""
    for key, value in values.items():
        path = f"{prefix}/{_key(key)}"
        if isinstance(value, Mapping):
            yield from _numbers(value, path)
        elif isinstance(value, int | float):
            yield path, float(value)


def _key(text: str) -> str:
    """Return the text with every character replaced that MLflow refuses in a key."""
    return re.sub(r"[^\w. -]", "_", text)
