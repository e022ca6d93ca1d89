"""The MLflow server that `harness ui` starts, over real HTTP and in a real browser."""

import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import tracking
from harness.scores import COST, SCORES, Score
from harness.spec import Result, TrialSpec
from harness.tracking import MlflowTracker, server
from harness.tracking.layout import sections, shared_view

START_S = 90


def test_a_taken_port_gives_the_next_free_one():
    import socket

    with socket.socket() as taken:
        taken.bind((server.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert server.free_port(port) > port


def test_the_view_is_small_enough_for_a_tag_and_charts_every_section():
    text = shared_view(SCORES, ("likelihood",))
    view = json.loads(text)
    assert len(text) < 20_000
    assert [c["metricKey"] for c in view["compareRunCharts"]] == [s.key for charts in sections(SCORES).values() for s in charts]
    assert all(sections(SCORES).values())
    assert view["selectedColumns"][:3] == ["params.`arm`", "params.`seed`", "params.`likelihood`"]
    assert "metrics.`test/common_bits`" in view["selectedColumns"]


def test_a_score_of_a_study_is_charted_and_a_column() -> None:
    own = Score(key="test/fid", label="FID", better="lower", compute=lambda trained: {})
    view = json.loads(shared_view(SCORES | {own.key: own}, ()))
    assert own.key in {c["metricKey"] for c in view["compareRunCharts"]}
    assert "metrics.`test/fid`" in view["selectedColumns"]


@contextmanager
def _server(port: int):
    environment = server.environment(tracking.store_uri())
    process = subprocess.Popen(server.command(port), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(START_S * 4):
            try:
                if _status(port, f"{server.HOST}:{port}") == 200:
                    break
            except OSError:
                assert process.poll() is None, "the server ended before it answered"
            try:
                process.wait(0.25)
            except subprocess.TimeoutExpired:
                continue
        yield
    finally:
        process.terminate()
        process.wait(20)


def _status(port: int, host: str) -> int:
    request = urllib.request.Request(f"http://{server.HOST}:{port}/", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


def _page(url: str) -> str:
    """A page's text after its scripts ran, in headless Chromium."""
    with tempfile.TemporaryDirectory() as profile:
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        flags += f" --disable-component-update --disable-sync --user-data-dir={profile} --virtual-time-budget=30000 --dump-dom"
        done = subprocess.run(["chromium", *flags.split(), url], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.mark.slow
def test_it_answers_to_its_own_names_only_and_shows_the_study(mlflow_store, tmp_path: Path):
    tracker = MlflowTracker("loss_ablation", "default", "Does it show?")
    spec = TrialSpec(epochs=1)
    for number, arm in enumerate(("bce", "mse")):
        run = tracker.begin(spec.derive(seed=number), arm, number, 1, {"dataset.digest": "digest"})
        for epoch in (1, 2):
            tracker.log(run, epoch, {"elbo/validation": -150.0 + epoch, "kl/validation": 5.0})
        files = tmp_path / str(number)
        files.mkdir()
        tracker.finish(run, Result(spec, {"test/squared_error": 40.0 + number}), files)
    port = server.free_port(15_000)
    with _server(port):
        assert _status(port, f"localhost:{port}") == 200
        for foreign in ("evil.example", "10.evil.example", "192.168.evil.example:80", f"{server.HOST}:{port}.evil.example"):
            assert _status(port, foreign) == 403
        if shutil.which("chromium") is None:
            pytest.skip("chromium is not installed: the arrangement of charts was not looked at")
        text = _page(f"http://{server.HOST}:{port}{tracker.ui_path}")
    for section in sections(SCORES):
        if section != COST:  # nothing of it was logged, and empty charts are hidden
            assert section in text
    assert "bce" in text
    assert "mse" in text
