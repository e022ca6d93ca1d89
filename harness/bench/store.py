"""Benchmark results kept per machine: a JSON file per session, and a run in the MLflow experiment `bench/<machine>`."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from harness import devices, paths, provenance, tracking
from harness.tracking import library

BenchSession = Mapping[str, Any]  # what pytest-benchmark writes, with `origin()` under "origin"

STATISTICS = ("median", "min")


def machine() -> str:
    """The device that benchmarks use, in a form for file names."""
    return re.sub(r"[^a-z0-9]+", "-", devices.describe(devices.device("auto")).lower()).strip("-")


def folder() -> Path:
    """Where this machine's files lie."""
    return paths.mlruns() / "bench" / machine()


def origin() -> dict[str, Any]:
    """What figures were measured on: device, threads, versions, commit, and the load average now."""
    tags = provenance.tags()
    return {
        "device": devices.describe(devices.device("auto")),
        "threads": torch.get_num_threads(),
        "torch": tags["version.torch"],
        "python": tags["version.python"],
        "commit": provenance.commit(),
        "load": round(os.getloadavg()[0], 2),
    }


def save(session: BenchSession, into: Path) -> Path:
    """Write a session's results as a file of their own, whole or not at all."""
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
    """Record a session as a finished run, one metric per benchmark and statistic. Returns the experiment's name."""
    tracking.ensure_store()
    client = library.client()
    name = f"bench/{machine()}"
    found = client.get_experiment_by_name(name)
    if found is None:
        experiment = client.create_experiment(name, artifact_location=tracking.artifact_location(name))
    else:
        experiment = found.experiment_id
    facts = session["origin"]
    run = client.create_run(experiment, tags=provenance.tags() | {"kind": "bench"}, run_name=facts["commit"]).info
    values = metrics(session) | {"load": facts["load"]}
    now = run.start_time
    client.log_batch(
        run.run_id,
        metrics=[library.mlflow().entities.Metric(key, value, now, 0) for key, value in values.items()],
        params=[library.mlflow().entities.Param(key, str(value)) for key, value in facts.items()],
    )
    client.set_terminated(run.run_id, "FINISHED")
    return name


def metrics(session: BenchSession) -> dict[str, float]:
    """Milliseconds by statistic and benchmark, of one unit where a round has several (`units`); other numbers of `extra_info`."""
    found: dict[str, float] = {}
    for bench in session["benchmarks"]:
        name, extra = _name(bench["fullname"]), dict(bench["extra_info"])
        units = extra.pop("units", 1)
        found |= {f"{s}_ms/{name}": 1e3 * bench["stats"][s] / units for s in STATISTICS}
        found |= _numbers({key: value for key, value in extra.items() if key not in session["origin"]}, name)
    return found


def _name(fullname: str) -> str:
    """`tests/bench/test_step_time.py::test_lanes[2]` as `step_time/lanes/2`."""
    file, _, test = fullname.partition("::")
    case, _, parameters = test.partition("[")
    parts = (Path(file).stem.removeprefix("test_"), case.removeprefix("test_"), parameters.removesuffix("]"))
    return "/".join(_key(p) for p in parts if p)


def _numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """Every number in nested dictionaries, by its path."""
    for key, value in values.items():
        path = f"{prefix}/{_key(key)}"
        if isinstance(value, Mapping):
            yield from _numbers(value, path)
        elif isinstance(value, int | float):
            yield path, float(value)


def _key(text: str) -> str:
    """As MLflow takes it."""
    return re.sub(r"[^\w. -]", "_", text)
