"""The shared servers of compose.yaml: what the file promises, and its PostgreSQL and MLflow commands run as they stand."""

import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import psycopg
import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client
from servers import DEPLOY, HOST, Postgres, make_secrets, mlflow_server

from harness import cli, paths, queue, tracking

COMPOSE = yaml.safe_load((paths.PROJECT / "compose.yaml").read_text(encoding="utf-8"))


def test_what_others_read_has_the_form_that_they_ask_for():
    workflows = sorted((paths.PROJECT / ".github" / "workflows").iterdir())
    for schema, files in {"compose-spec": [paths.PROJECT / "compose.yaml"], "github-workflows": workflows}.items():
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_workflows_run_is_there():
    """A target of the Makefile, or a command as the harness takes it."""
    targets = (paths.PROJECT / "Makefile").read_text(encoding="utf-8")
    workflows = sorted((paths.PROJECT / ".github" / "workflows").iterdir())
    jobs = [job for file in workflows for job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].values()]
    commands = [shlex.split(step["run"]) for job in jobs for step in job["steps"] if "run" in step]
    made = [command[-1] for command in commands if command[0] == "make"]
    assert set(made) >= {"test", "install", "dist"}
    assert all(f"\n{target}: " in targets for target in made)
    harness = [cli.parser().parse_args(words) for program, *words in commands if program == ".venv/bin/harness"]
    assert [options.command for options in harness] == ["data", "bench"]
    assert (harness[1].kind, harness[1].base, harness[1].no_counts) == ("compare", "HEAD^1", True)


def test_images_have_digests_so_that_a_tag_that_moves_changes_nothing():
    services = [service["image"] for service in COMPOSE["services"].values() if "image" in service]
    bases = re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.M)
    assert len(services + bases) == 3
    for image in services + bases:
        assert re.fullmatch(r"[a-z]+:[\d.]+-[a-z-]+@sha256:[0-9a-f]{64}", image), image


def test_ports_are_on_loopback_unless_told_otherwise():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 2
    assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in ports)


def test_every_secret_is_made_once_is_long_and_differs(tmp_path: Path):
    folder = make_secrets(tmp_path)
    made = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}
    assert {Path(s["file"]) for s in COMPOSE["secrets"].values()} == {Path("deploy/secrets") / name for name in made}
    assert {name for service in COMPOSE["services"].values() for name in service["secrets"]} == set(made)
    assert all(re.fullmatch(r"[\w-]{32}", value) for value in made.values())
    assert len(set(made.values())) == len(made)
    assert folder.stat().st_mode & 0o777 == 0o700
    subprocess.run(["bash", tmp_path / "deploy" / "make_secrets.sh"], check=True)
    assert made == {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}


def test_the_server_has_the_version_that_drivers_have():
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", (paths.PROJECT / "locks" / "servers.txt").read_text(encoding="utf-8"), re.M))
    pinned = re.findall(r'"(\w+)\[\w+\]==([\d.]+)"', (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    assert dict(pinned) == {name: locked[name] for name in ("mlflow", "psycopg")}


def status(port: int, path: str, host: str = "") -> int:
    """The answer's code."""
    request = urllib.request.Request(f"http://{HOST}:{port}{path}", headers={"Host": host or f"{HOST}:{port}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


@pytest.mark.slow
def test_a_user_with_a_name_logs_a_run_and_nobody_else_sees_it(postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("flask_wtf", reason="MLflow's basic-auth needs Flask-WTF: pip install 'mlflow[auth]'")
    with mlflow_server(postgres, tmp_path, workers=1) as uri:
        _check(uri, tmp_path / "deploy" / "secrets", postgres, monkeypatch, tmp_path)


def _check(uri: str, secrets: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    port = int(uri.rpartition(":")[2])
    assert status(port, "/api/2.0/mlflow/experiments/get?experiment_id=0") == 401
    for foreign in ("evil.example", f"10.evil.example:{port}", "localhost"):
        assert status(port, "/", foreign) == 403
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)

    def become(user: str, password: str) -> mlflow.MlflowClient:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        tracking.ensure_store()
        return mlflow.MlflowClient()

    become("admin", (secrets / "mlflow_admin_password").read_text(encoding="utf-8"))
    accounts = get_app_client("basic-auth", tracking_uri=uri)
    for user in ("ada", "ben"):
        accounts.create_user(user, f"{user}'s password")
    ada = become("ada", "ada's password")
    experiment = ada.create_experiment("study", tracking.artifact_location("study"))
    run = ada.create_run(experiment).info.run_id
    ada.log_metric(run, "value", 1.0)
    ada.log_dict(run, {"a": 1}, "spec.json")
    ada.set_terminated(run, "FINISHED")
    ben = become("ben", "ben's password")
    assert ben.get_run(run).data.metrics == {"value": 1.0}
    assert ben.get_run(run).info.artifact_uri.startswith("mlflow-artifacts:/")
    assert Path(ben.download_artifacts(run, "spec.json", str(tmp_path))).read_text(encoding="utf-8")
    with pytest.raises(MlflowException, match="Permission denied"):
        ben.log_metric(run, "value", 2.0)
    become("ada", "ada's password")
    accounts.grant_user_permission("ben", "experiment", experiment, "EDIT")
    become("ben", "ben's password").log_metric(run, "value", 2.0)
    with pytest.raises(MlflowException, match="401"):
        become("ada", "not her password").get_run(run)
    # The role of the trials' database may write there and has no way to MLflow's users.
    store = (secrets / "ledger_password").read_text(encoding="utf-8")
    assert queue.database(postgres.uri("ledger", "harness", store))
    with pytest.raises(psycopg.OperationalError, match="CONNECT"):
        psycopg.connect(host=HOST, port=postgres.port, user="harness", password=store, dbname="mlflow_auth")
