"""What pip installs: wheel and sdist hold all that a study needs, and run outside the clone without writing into themselves."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from harness import paths, provenance, study

BUILD = "import sys; from setuptools import build_meta as b; into = sys.argv[1]; b.build_wheel(into); b.build_sdist(into)"
SOURCES = ("harness", "studies", "tests", "examples", "docs", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built from a copy so that the clone stays as it is."""
    source, into = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in SOURCES:
        if (paths.PROJECT / name).is_dir():
            shutil.copytree(paths.PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(paths.PROJECT / name, source / name)
    environment = os.environ | {"PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", BUILD, into], check=True, cwd=source, env=environment, capture_output=True)
    return into


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages into which the wheel is unpacked, which is what pip does."""
    site = tmp_path_factory.mktemp("repository") / "site-packages"
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(site)
    return site


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed harness in a folder."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HARNESS_HOME", "HARNESS_COMMAND")}
    environment |= {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "160"}
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_package_and_the_studies_and_no_tests(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {f.relative_to(paths.PROJECT).as_posix() for f in (paths.PROJECT / "harness").rglob("*.py")}
    shipped = {f"harness/studies/{f.name}" for f in paths.studies().glob("*.py")}
    others = {"harness/py.typed", "harness/report/page.html", "harness/kernels/convolutions.cpp", "harness/kernels/matmul.cpp"}
    assert {n for n in names if ".dist-info/" not in n} == sources | shipped | others


def test_the_sdist_holds_what_the_wheel_is_built_from(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as content:
        names = {n.partition("/")[2] for n in content.getnames()}
    assert {"pyproject.toml", "setup.py", "studies/loss_ablation.py", "harness/cli.py", "harness/py.typed"} <= names
    assert {"harness/report/page.html", "harness/kernels/convolutions.cpp", "harness/kernels/matmul.cpp", "LICENSE"} <= names
    assert {"examples/tour.ipynb", "examples/own_data/shapes.npz", "docs/extending.md"} <= names
    assert not [n for n in names if n.startswith("tests")]


def test_an_installed_harness_lists_studies_and_names_its_code_and_not_the_user_s(installed: Path, tmp_path: Path) -> None:
    for repository in (tmp_path, installed.parent):
        for command in ("init", "-c user.name=x -c user.email=x commit --allow-empty -m x"):
            subprocess.run(["git", *command.split()], cwd=repository, check=True, capture_output=True)
    listed = run(installed, tmp_path, "list")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [p.stem for p in sorted(paths.studies().glob("[!_]*.py"))]
    code = f"{provenance.version('vae-harness')}+{provenance.digest()}"
    assert f"(code {code}, digest {provenance.digest()})" in run(installed, tmp_path, "--version").stdout
    refused = run(installed, tmp_path, "bench", "compare", "HEAD")
    assert (refused.returncode, "works in a clone of the repository" in refused.stderr) == (2, True)
    assert "harness study ..." in run(installed, tmp_path, "study").stderr


@pytest.mark.slow
def test_a_first_study_runs_in_an_empty_folder_and_writes_nowhere_else(
    installed: Path, tmp_path: Path, mlflow_template: Path
) -> None:
    before = sorted(installed.rglob("*"))
    (tmp_path / "mlruns").mkdir()
    shutil.copy(mlflow_template, tmp_path / "mlruns" / "mlflow.db")  # building its tables takes seconds
    assert "run it: harness study first_study" in run(installed, tmp_path, "init").stdout
    faster = ["--arms", "two latents", "--set", "latent=3"]  # with 2 latents there is a quadrature, which takes half of the time
    options = ["--budget", "smoke", "--executor", "local", "--device", "cpu", *faster]
    done = run(installed, tmp_path, "study", "./first_study.py", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    loaded = study.load(f"{tmp_path}/first_study.py[arms=two latents,latent=3]")
    report = tmp_path / "mlruns" / "reports" / f"{loaded.name}-smoke" / "report.html"
    assert f"report: {report}" in done.stdout
    page = report.read_text(encoding="utf-8")
    assert loaded.question in page
    assert f"{provenance.version('vae-harness')}+{provenance.digest()}" in page
    assert {f.name for f in tmp_path.iterdir()} == {"first_study.py", "mlruns"}
    assert sorted(installed.rglob("*")) == before
