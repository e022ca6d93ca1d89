"""Benchmark results on record: one file and one finished run per session, in times per unit."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness import paths
from harness.bench import store
from harness.tracking import library


@pytest.fixture
def session() -> dict[str, Any]:
    """What pytest-benchmark writes, as far as it is read here."""
    origin = store.origin()
    extra = {"step": {"units": 32, "unit": "step"}, "share": {"share": 0.1, "seconds": {"figures": 2.5}, "note": "words"}}
    return {
        "origin": origin,
        "datetime": "2026-11-23T05:35:46.123456+00:00",
        "benchmarks": [
            {
                "fullname": "tests/bench/test_step_time.py::test_likelihood[bce]",
                "extra_info": origin | extra["step"],
                "stats": {"median": 0.64, "min": 0.32, "mean": 1.0},
            },
            {
                "fullname": "tests/bench/test_study.py::test_share",
                "extra_info": origin | extra["share"],
                "stats": {"median": 0.002, "min": 0.001},
            },
        ],
    }


def test_a_machine_is_a_folder_name() -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", store.machine())
    assert store.folder() == paths.mlruns() / "bench" / store.machine()


def test_metrics_are_per_unit_and_named_after_the_test(session: dict[str, Any]) -> None:
    assert store.metrics(session) == pytest.approx(
        {
            "median_ms/step_time/likelihood/bce": 20,
            "min_ms/step_time/likelihood/bce": 10,
            "median_ms/study/share": 2,
            "min_ms/study/share": 1,
            "study/share/share": 0.1,
            "study/share/seconds/figures": 2.5,
        }
    )


def test_files_are_whole_and_one_per_session(session: dict[str, Any], tmp_path: Path) -> None:
    first = store.save(session, tmp_path / "bench")
    second = store.save(session | {"datetime": "2026-11-23T06:00:00+00:00"}, tmp_path / "bench")
    assert first.name == f"20261123053546123456_{session['origin']['commit']}.json"
    assert sorted(p.name for p in (tmp_path / "bench").iterdir()) == sorted((first.name, second.name))
    assert json.loads(first.read_text(encoding="utf-8")) == session


@pytest.mark.usefixtures("mlflow_store")
def test_sessions_are_runs_of_one_experiment(session: dict[str, Any]) -> None:
    name = store.log(session)
    assert store.log(session) == name == f"bench/{store.machine()}"
    client = library.client()
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert len(runs) == 2
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.metrics == pytest.approx(store.metrics(session) | {"load": session["origin"]["load"]})
        assert run.data.params == {key: str(value) for key, value in session["origin"].items()}
        assert run.data.tags["kind"] == "bench"
        assert run.data.tags.get("git.commit", "unknown") == session["origin"]["commit"].partition("+")[0]
