"""What examples/ holds does what it says, and docs/extending.md shows it; the other pages: test_pages.py."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import notebook
import pytest

import harness
from harness import paths, study, testing

EXAMPLES = paths.PROJECT / "examples"
PAGE = paths.PROJECT / "docs" / "extending.md"
STUDIES = sorted(file for file in EXAMPLES.glob("*/*.py") if re.search(r"^STUDY =", file.read_text(encoding="utf-8"), re.M))
RUN = """
import os, sys
from harness import cli
for file in sys.argv[1:]:
    folder, name = os.path.split(file)
    os.chdir(folder)
    assert cli.main(["study", f"./{name}", "--budget", "smoke", "--executor", "local", "--device", "cpu"]) == 0, file
"""


def run(*command: str | Path, folder: Path) -> str:
    """Run this Python in a folder, where it must succeed, and return what it says."""
    environment = os.environ | {"PYTHONPATH": str(paths.PROJECT), "MPLBACKEND": "Agg", "COLUMNS": "160"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the blocks of Python in a page: the title of each, which may be empty, and its text."""
    return re.findall(r'^```python(?: title="([^"\n]*)")?\n(.*?)^```$', page.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy of the examples."""
    ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache", "mlruns")
    return shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=ignored)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_study_of_the_examples_loads_and_names_code_beside_it(file: Path) -> None:
    loaded = study.load(str(file))
    assert {"smoke", "default"} <= set(loaded.study.budgets)
    named = {name for spec in loaded.study.trials("smoke") for name in spec.references}
    own = {f.name for f in file.parent.glob("*.py")} - {file.name}
    assert named
    assert {name.partition(":")[0] for name in named} <= own


def test_every_folder_of_the_examples_has_a_study_and_is_listed() -> None:
    folders = {f.name for f in EXAMPLES.iterdir() if f.is_dir()}
    assert {file.parent.name for file in STUDIES} == folders
    listed = re.findall(r"^\| \[\w+\]\((.+?)\) .*`harness study \./(.+?)`", (EXAMPLES / "README.md").read_text(), re.M)
    assert {(EXAMPLES / link, name) for link, name in listed} == {(file, file.name) for file in STUDIES}


def test_the_examples_keep_their_contracts() -> None:
    testing.check_network(f"{EXAMPLES}/own_network/networks.py:conv", image_shape=(1, 7, 7), width=4)
    testing.check_dataset(f"{EXAMPLES}/own_data/shapes.py:shapes")
    testing.check_score(f"{EXAMPLES}/own_score/sharpness.py:SHARPNESS")


def test_the_network_of_the_examples_trains() -> None:
    spec = study.load(f"{EXAMPLES}/own_network/convolutions.py").study.trials("smoke")[-1]
    model = harness.train(spec.derive(epochs=1, evaluation="validation"), device="cpu", progress=False)
    assert model.sample(2).shape == (2, 8, 8)


@pytest.mark.slow
def test_the_test_of_the_examples_passes(examples: Path) -> None:
    assert "1 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=examples / "own_likelihood")


@pytest.mark.slow
def test_studies_of_the_examples_run(examples: Path, mlflow_store: Path) -> None:
    files = [examples / "own_score" / "sharp_samples.py", examples / "own_data" / "latents.py"]
    said = run("-c", RUN, *files, folder=examples)
    assert "sharpness of" in said
    assert said.count("test scores, mean ± sd over n seeds") == len(files)


@pytest.mark.slow
def test_the_tour_runs_in_an_empty_folder(tmp_path: Path, mlflow_store: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    said = run(Path(notebook.__file__), EXAMPLES / "tour.ipynb", folder=folder)
    assert re.search(r"student_t beats gaussian on squared error: .* with 6 seeds", said)
    assert {f.name for f in folder.iterdir()} == {"losses.py", "heavy_tails.py", "best"}


def test_the_tour_is_a_clean_notebook_and_writes_the_likelihood_of_the_examples() -> None:
    content = json.loads((EXAMPLES / "tour.ipynb").read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in content["cells"]]
    assert len(ids) == len(set(ids))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    (written,) = (cell for cell in notebook.cells(EXAMPLES / "tour.ipynb") if cell.startswith("%%writefile losses.py\n"))
    assert written.partition("\n")[2] + "\n" == (EXAMPLES / "own_likelihood" / "losses.py").read_text(encoding="utf-8")


def test_the_page_on_extending_shows_the_files_of_the_examples() -> None:
    shown = blocks(PAGE)
    assert len(shown) >= 4
    for title, text in shown:
        assert title, "a block without a title could rot"
        assert text in (paths.PROJECT / title).read_text(encoding="utf-8"), title
