"""What every test stands on: one thread, a home folder of its own, and databases built once."""

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from homes import home_at
from servers import postgres  # noqa: F401  (a fixture)

from harness import paths, provenance

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse what would measure nothing and pass: pytest-benchmark is off in xdist's processes."""
    if config.getoption("benchmark_only", default=False) and config.getoption("numprocesses", default=None):
        raise pytest.UsageError("nothing is measured with -n: pytest --benchmark-only")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker is left with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="module")
def _keep_what_is_there() -> None:
    """What is there before a file's tests stays: a collection that looks at all of it takes up to a second, and some make many."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `HARNESS_HOME`; the data sets stay those of the project."""
    monkeypatch.setenv("HARNESS_DATA", os.environ.get("HARNESS_DATA") or str(paths.PROJECT / "data"))
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    for name in ("MLFLOW_TRACKING_URI", "HARNESS_COMMAND"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store: building its schema takes seconds, copying it none."""
    from harness.tracking import ensure_store

    with home_at(tmp_path_factory.mktemp("template")):
        ensure_store()
        return paths.mlruns() / "mlflow.db"


@pytest.fixture
def mlflow_store(home: Path, mlflow_template: Path) -> Path:
    """The template's copy in this test's home."""
    store = home / "mlruns" / "mlflow.db"
    store.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(mlflow_template, store)
    return store


@pytest.fixture(scope="module")
def unpainted() -> Iterator[None]:
    """Figures are made and saved, without what is in them: painting takes half the time of a tiny study with its report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.draw", lambda figure, renderer: None)
        yield


@pytest.fixture
def fixed_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As outside a repository: the code is the package's own files, which edits of tests and commits leave as it is."""
    remembered = provenance.commit, provenance.code

    def forget() -> None:
        for fact in remembered:
            fact.cache_clear()

    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        forget()
        yield
    forget()
