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

from harness import paths, tracking
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


def _answer(port: int, path: str, method: str = "GET", content: bytes | None = None, **headers: str) -> tuple[int, bytes, str]:
    """The code, the content and X-Frame-Options of an answer."""
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(f"http://{server.HOST}:{port}{path}", content, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers["X-Frame-Options"]
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read(), refused.headers.get("X-Frame-Options", "")


def _check_files(port: int, run: str) -> None:
    """Files of runs are shown, none is taken; no other site writes, and none shows the pages in a frame."""
    shown = _answer(port, f"/get-artifact?path=samples.txt&run_uuid={run}")
    assert shown == (200, b"mse", "DENY")
    kept = sorted(paths.mlruns().rglob("*"))
    for api in ("api", "ajax-api"):
        place = f"/{api}/2.0/mlflow-artifacts/artifacts/placed.txt"
        for method in ("PUT", "GET", "DELETE"):
            assert _answer(port, place, method, b"content" if method == "PUT" else None)[0] >= 400, (api, method)
        for origin in ("http://evil.example", f"http://localhost:{port + 1}", "null"):
            made = _answer(port, f"/{api}/2.0/mlflow/experiments/create", "POST", b'{"name": "made"}', Origin=origin)
            assert made[0] == 403
        assert _answer(port, f"/{api}/2.0/mlflow/runs/get?run_id={run}", Origin=f"http://localhost:{port + 1}")[0] == 403
    assert sorted(paths.mlruns().rglob("*")) == kept
    own = _answer(port, "/api/2.0/mlflow/experiments/create", "POST", b'{"name": "made"}', Origin=f"http://{server.HOST}:{port}")
    assert own[0] == 200


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
        (files / "samples.txt").write_text(arm)
        tracker.finish(run, Result(spec, {"test/squared_error": 40.0 + number}), files)
    port = server.free_port(15_000)
    with _server(port):
        assert _status(port, f"localhost:{port}") == 200
        for foreign in ("evil.example", "10.evil.example", "192.168.evil.example:80", f"{server.HOST}:{port}.evil.example"):
            assert _status(port, foreign) == 403
        _check_files(port, run)
        if shutil.which("chromium") is None:
            pytest.skip("chromium is not installed: the arrangement of charts was not looked at")
        text = _page(f"http://{server.HOST}:{port}{tracker.ui_path}")
    for section in sections(SCORES):
        if section != COST:  # nothing of it was logged, and empty charts are hidden
            assert section in text
    assert "bce" in text
    assert "mse" in text
