"""What comes from strangers: files that would run code when they are read, and what may reach the server of the UI."""

import ast
import os
import pickle
import re
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import LONGEST

from harness import cli, paths
from harness.api import model as models
from harness.data import arrays
from harness.errors import HarnessError
from harness.spec import TrialSpec
from harness.tracking import library, server

SOURCES = sorted((paths.PROJECT / "harness").rglob("*.py"))

# Every place that reads a pickle or runs text as code, and why it may. Not among them, for they have no address that anyone else
# could write to: pipes between a driver and the processes that it starts (multiprocessing.Pipe), which hold jobs and events.
# SLURM's jobs are submitit's pickles in a folder of the user's own home: who can write there can change the harness's code as well.
ALLOWED = {
    ("executors/ray/executor.py", "pickle.loads"): "a worker's message: comes over Ray's own channel, whose nodes show a token",
    ("data/pickles.py", "pickle.Unpickler"): "its find_class knows numpy arrays and refuses everything else",
}
READERS = re.compile(
    r"^(_?pickle\.(load|loads|Unpickler)|(cloudpickle|dill|joblib|marshal)\.(load|loads)|shelve\.open|(pd|pandas)\.read_pickle|yaml\.\w*load\w*"
    r"|eval|exec|(builtins)\.(eval|exec)|(mlflow\.)?(pyfunc|pytorch|sklearn)\.load_model|(jit|torch\.jit)\.load"
    r"|(connection\.)?(Listener|Client)|(mp\.|multiprocessing\.)?(Manager|managers\.\w+))$"
)
CHECKED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False), "numpy.load": ("allow_pickle", False)}


def readings(file: Path) -> list[str]:
    """The names of what in a file reads a pickle or runs text, calls and base classes, other than safely."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call | ast.ClassDef):
            named = [ast.unparse(node.func)] if isinstance(node, ast.Call) else [ast.unparse(base) for base in node.bases]
            given = {k.arg: k.value for k in node.keywords}
            for name in named:
                if name in CHECKED:
                    option, value = CHECKED[name]
                    safe = isinstance(given.get(option), ast.Constant) and given[option].value is value
                else:
                    safe = not READERS.match(name)
                found += [] if safe else [name]
        elif isinstance(node, ast.ImportFrom) and node.module in ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"):
            found.append(f"from {node.module}")
    return found


def test_row51_pickles_are_read_in_places_that_are_argued_for() -> None:
    found = {(file.relative_to(paths.PROJECT / "harness").as_posix(), name) for file in SOURCES for name in readings(file)}
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    "text",
    [
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "np.load(f)",
        "pickle.load(f)",
        "exec(text)",
        "class U(pickle.Unpickler): ...",
        "from pickle import loads",
        "yaml.unsafe_load(f)",
        "joblib.load(f)",
    ],
)
def test_row51_an_unsafe_reading_is_seen(text: str, tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text(text)
    assert readings(tmp_path / "file.py")


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def test_row51_a_npz_from_a_stranger(tmp_path: Path) -> None:
    file, mark = tmp_path / "images.npz", tmp_path / "ran"
    np.savez(file, images=np.array([Hostile(mark)], dtype=object))
    with pytest.raises(HarnessError) as refused:
        arrays.from_npz(file, print)
    assert not mark.exists()
    assert len(str(refused.value).splitlines()) <= LONGEST
    np.load(file, allow_pickle=True)["images"]
    assert mark.exists()


@pytest.mark.parametrize("whole", [False, True], ids=["row51-plain-pickle", "row51-as-torch-saves"])
def test_a_file_of_weights_from_a_stranger(whole: bool, tmp_path: Path) -> None:
    file, mark = tmp_path / "weights.pt", tmp_path / "ran"
    if whole:
        torch.save({"weight": Hostile(mark)}, file)
    else:
        file.write_bytes(pickle.dumps(Hostile(mark)))
    with pytest.raises(HarnessError) as refused:
        models.read_network(TrialSpec(hidden=(8,)), (1, 8, 8), file)
    assert not mark.exists()
    assert len(str(refused.value).splitlines()) <= LONGEST


def test_c17_models_in_mlflow_are_not_unpickled() -> None:
    assert library.SETTINGS["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert server.environment("sqlite:///x")["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert "MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false" in (paths.PROJECT / "deploy" / "serve_mlflow.sh").read_text(encoding="utf-8")


@pytest.mark.parametrize("port", [0, -1, 65_536, 99_999], ids=lambda port: f"row32-port-{port}")
def test_a_port_that_is_none(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    assert cli.main(["ui", "--port", str(port)]) == 2
    told = capsys.readouterr().err
    assert "--port" in told
    assert str(port) in told
    assert "1 to 65535" in told
    assert len(told.splitlines()) <= LONGEST
    assert not list(tmp_path.iterdir())


def test_row32_a_port_of_the_administrator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert cli.main(["ui", "--port", "80"]) == 4
    assert "--port 80: this user may not listen on it" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_row32_the_last_ports_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(HarnessError, match=r"ports 65530 to 65535 are all taken\nname another: .*5000"):
        server.free_port(65_530)
