"""The MLflow server that `harness ui` starts, over real HTTP; in a browser: test_page_in_browser.py."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from mlflow_server import serving, status

from harness import paths
from harness.figures.schedule import KEYS
from harness.scores import SCORES, Score
from harness.spec import Result, TrialSpec
from harness.tracking import MlflowTracker, server
from harness.tracking.layout import VIEW_KEY, sections, views


def test_a_taken_port_gives_the_next_free_one():
    import socket

    with socket.socket() as taken:
        taken.bind((server.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert server.free_port(port) > port


@pytest.mark.parametrize("own", ["", "always"])
def test_one_warning_of_the_server_is_silenced_and_no_other(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", own)
    words = (f"{server.DEPRECATION} and will be removed", "starlette is old", f"it says: {server.DEPRECATION}")
    program = "import warnings\nclass W(UserWarning): pass\n" + "".join(f"warnings.warn({text!r}, W)\n" for text in words)
    told = subprocess.run([sys.executable, "-c", program], env=server.environment("sqlite://"), capture_output=True, text=True)
    assert told.returncode == 0
    assert [text for text in words if f"W: {text}" in told.stderr] == list(words[1:])


def test_the_views_are_small_enough_for_a_tag_and_chart_every_section():
    for key, text in views(SCORES, ("likelihood",), 6, "parent").items():
        view = json.loads(text)
        assert len(text) < 40_000
        shown = [c for c in view["compareRunCharts"] if not c["deleted"]]
        charted = [score.key for scores in sections(SCORES).values() for score in scores]
        assert sorted(c["metricKey"] for c in shown if c["type"] != "IMAGE") == sorted(charted)
        assert [c["imageKeys"] for c in shown if c["type"] == "IMAGE"] == [[k] for k in KEYS if key == VIEW_KEY]
        assert {c["metricSectionId"] for c in shown} <= {s["uuid"] for s in view["compareRunSections"]}
        assert len({c["uuid"] for c in view["compareRunCharts"]}) == len(view["compareRunCharts"])
        assert all(sections(SCORES).values())
        assert view["selectedColumns"][:3] == ["params.`arm`", "params.`seed`", "params.`likelihood`"]
        assert "metrics.`test/common_bits`" in view["selectedColumns"]


def test_a_score_of_a_study_is_charted_and_a_column() -> None:
    own = Score(key="test/fid", label="FID", better="lower", compute=lambda trained: {})
    view = json.loads(views(SCORES | {own.key: own}, (), 6, "parent")[VIEW_KEY])
    assert own.key in {c.get("metricKey") for c in view["compareRunCharts"] if not c["deleted"]}
    assert "metrics.`test/fid`" in view["selectedColumns"]


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
def test_it_answers_to_its_own_names_only(mlflow_store, tmp_path: Path):
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
    with serving(port):
        assert status(port, f"localhost:{port}") == 200
        for foreign in ("evil.example", "10.evil.example", "192.168.evil.example:80", f"{server.HOST}:{port}.evil.example"):
            assert status(port, foreign) == 403
        _check_files(port, run)
        page = _answer(port, "/")[1]
    assert page.count(b"autoOpenedOnFirstLoad") == 1
    assert page.rstrip().endswith(b"</html>")
