"""What pip installs: wheel and sdist hold all that a study needs, and run outside the clone without writing into themselves."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from harness import devices, paths, provenance, resources, study
from harness.kernels import library
from harness.metrics import features

SOURCES = ("harness", "studies", "tests", "examples", "docs", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE")
NATIVE = "harness/kernels/native"
# An environment into which `make dist` has installed the wheel of a release: its harness is then the one that is tried.
RELEASED = os.environ.get("HARNESS_RELEASED", "")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to build from, so that the clone stays as it is."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (paths.PROJECT / name).is_dir():
            shutil.copytree(paths.PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(paths.PROJECT / name, source / name)
    return source


def build(source: Path, what: str, into: Path, **variables: str) -> Path:
    """Build a wheel or an sdist with these environment variables."""
    program = f"import sys; from scikit_build_core import build; print(build.build_{what}(sys.argv[1]))"
    environment = os.environ | {"PYTHONPATH": ""} | variables
    ran = subprocess.run(
        [sys.executable, "-c", program, into], check=True, cwd=source, env=environment, capture_output=True, text=True
    )
    return into / ran.stdout.splitlines()[-1]


def unpacked(wheel: Path, site: Path) -> Path:
    """Unpack a wheel into a folder of packages, which is what pip does."""
    with zipfile.ZipFile(wheel) as content:
        content.extractall(site)
    return site


@pytest.fixture(scope="module")
def plain(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it is built where there is no compiler."""
    without = {"CXX": "/nonexistent"} if shutil.which("cmake") else {"SKBUILD_WHEEL_CMAKE": "0"}
    return build(source, "wheel", tmp_path_factory.mktemp("plain"), **without)


@pytest.fixture(scope="module")
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with that wheel, or with the one that was released."""
    if RELEASED:
        return next(Path(RELEASED).glob("lib/python*/site-packages"))
    return unpacked(request.getfixturevalue("plain"), tmp_path_factory.mktemp("repository") / "site-packages")


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed harness in a folder."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HARNESS_HOME", "HARNESS_COMMAND")}
    environment |= {"PYTHONPATH": "" if RELEASED else str(installed), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "160"}
    program = [f"{RELEASED}/bin/harness"] if RELEASED else [sys.executable, "-m", "harness.cli"]
    return subprocess.run([*program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_package_and_the_studies_and_no_tests(plain: Path) -> None:
    names = set(zipfile.ZipFile(plain).namelist())
    sources = {f.relative_to(paths.PROJECT).as_posix() for f in (paths.PROJECT / "harness").rglob("*.py")}
    shipped = {f"harness/studies/{f.name}" for f in paths.studies().glob("*.py")}
    native = {f.relative_to(paths.PROJECT).as_posix() for f in library.NATIVE.iterdir() if f.suffix in (".h", ".cpp", ".json")}
    networks = {f.relative_to(paths.PROJECT).as_posix() for f in features.PACKAGED.iterdir()}
    pages = {f"harness/report/{name}" for name in ("page.html", "run.html", "comparison.html", "page.css")}
    others = {"harness/py.typed", "harness/bench/history.html", *pages, *networks}
    assert {n for n in names if ".dist-info/" not in n} == sources | shipped | native | others
    assert plain.name.endswith("-py3-none-any.whl")


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("cmake") and devices.compiler(torch.device("cpu"))), reason="no CMake or no C++ compiler here"
)
def test_a_wheel_brings_libraries_that_need_no_compiler(source: Path, tmp_path: Path) -> None:
    quick = shutil.copytree(source, tmp_path / "source")
    flags = quick / NATIVE / "flags.json"
    flags.write_text(flags.read_text().replace("-O3", "-O0"))  # a third of the time
    wheel = build(quick, "wheel", tmp_path)
    tag = wheel.stem.split("-", 2)[2]
    site = unpacked(wheel, tmp_path / "site-packages")
    built = {f.stem.removeprefix("harness_") for f in (site / NATIVE).glob("*.so")}
    assert tag.startswith("py3-none-")
    assert not tag.endswith("-any")
    assert built == (set(library.INSTRUCTIONS) if platform.machine() in ("x86_64", "AMD64") else {"portable"})
    environment = {k: v for k, v in os.environ.items() if k != resources.KERNELS}
    environment |= {"PYTHONPATH": str(site), "PATH": "", "CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    program = "from harness.kernels import library, operators; assert operators.available(); print(library.load().path)"
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert Path(ran.stdout.strip()).parent == site / NATIVE
    assert not (tmp_path / "cache").exists()


def test_the_sdist_holds_what_the_wheel_is_built_from(source: Path, tmp_path: Path) -> None:
    with tarfile.open(build(source, "sdist", tmp_path)) as content:
        names = {n.partition("/")[2] for n in content.getnames()}
    assert {"pyproject.toml", "CMakeLists.txt", "studies/loss_ablation.py", "harness/cli/running.py", "harness/py.typed"} <= names
    assert {"harness/report/page.html", f"{NATIVE}/kernels.cpp", f"{NATIVE}/products.h", f"{NATIVE}/flags.json", "LICENSE"} <= names
    assert {"examples/tour.ipynb", "examples/own_data/shapes.npz", "docs/extending.md"} <= names
    assert not [n for n in names if n.startswith("tests")]


def test_an_installed_harness_lists_studies_and_names_its_code_and_not_the_user_s(installed: Path, tmp_path: Path) -> None:
    for repository in (tmp_path, installed.parent):
        for command in ("init", "-c user.name=x -c user.email=x commit --allow-empty -m x"):
            subprocess.run(["git", *command.split()], cwd=repository, check=True, capture_output=True)
    listed = run(installed, tmp_path, "list", "--names")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [p.stem for p in sorted(paths.studies().glob("[!_]*.py"))]
    code = f"{provenance.version('vae-harness')}+{provenance.digest()}"
    assert f"(code {code}, digest {provenance.digest()})" in run(installed, tmp_path, "--version").stdout
    refused = run(installed, tmp_path, "bench", "compare", "HEAD")
    assert (refused.returncode, "works in a clone of the repository" in refused.stderr) == (2, True)
    assert "harness study ..." in run(installed, tmp_path, "study").stderr


@pytest.mark.slow
def test_a_first_study_of_an_installed_harness_runs_in_an_empty_folder_and_writes_nowhere_else(
    installed: Path, tmp_path: Path, mlflow_template: Path
) -> None:
    before = sorted(installed.rglob("*"))
    if not RELEASED:
        (tmp_path / "mlruns").mkdir()
        shutil.copy(mlflow_template, tmp_path / "mlruns" / "mlflow.db")  # building its tables takes seconds
    assert "run it: harness study first_study" in run(installed, tmp_path, "init").stdout
    faster = ["--arms", "two latents", "--set", "latent=3"]  # with 2 latents there is a quadrature, which takes half of the time
    options = ["--budget", "smoke", "--executor", "local", "--device", "cpu", *faster]
    done = run(installed, tmp_path, "study", "./first_study.py", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    loaded = study.load(f"{tmp_path}/first_study.py[arms=two latents,latent=3]")
    report = tmp_path / "mlruns" / "reports" / f"{loaded.name}-smoke" / "report.html"
    assert f"report: {shlex.quote(str(report))}" in done.stdout
    page = report.read_text(encoding="utf-8")
    assert loaded.question in page
    assert f"{provenance.version('vae-harness')}+{provenance.digest()}" in page
    assert {f.name for f in tmp_path.iterdir()} == {"first_study.py", "mlruns"}
    assert sorted(installed.rglob("*")) == before
