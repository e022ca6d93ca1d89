"""Where studies are looked for, and what their files may do while they are loaded."""

import inspect
import io
import subprocess
import sys
from pathlib import Path

import pytest

from harness import paths, study
from harness.cli import listing
from harness.errors import UserError
from harness.study import Ablation, files

TEXT = '''"""Is it {word}?"""
from harness.spec import TrialSpec
from harness.study import Ablation, Budget

STUDY = Ablation(base=TrialSpec(dataset="digits"), arms={{"a": {{}}}}, budgets={{"default": Budget(epochs=1, seeds=[0])}})
'''


@pytest.fixture
def working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder outside the clone, beside two shipped studies."""
    folder, shipped = tmp_path / "work", tmp_path / "shipped"
    for new in (folder, shipped):
        new.mkdir()
    for name in ("old", "older"):
        (shipped / f"{name}.py").write_text(TEXT.format(word=name))
    monkeypatch.setattr(paths, "studies", lambda: shipped)
    monkeypatch.chdir(folder)
    return folder


def put(folder: Path, name: str, text: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.py"
    file.write_text(text or TEXT.format(word=name))
    return file


def test_the_working_folder_s_studies_are_listed_before_the_shipped_ones(working: Path) -> None:
    assert study.questions() == "  old    Is it old?\n  older  Is it older?"
    put(working, "mine")
    put(working / "studies", "deep")
    put(working, "helper", "x = 1\n")
    put(working, "told", 'text = """\nSTUDY = 1\n"""\n')
    put(working, "broken", "STUDY = (\n")
    put(working, "_hidden")
    assert study.names() == ["broken", "mine", "deep", "old", "older"]
    listed = study.questions()
    assert listed.index("of this folder:") < listed.index("mine") < listed.index("shipped with the harness:")
    assert "broken  (cannot be read: line 1" in listed


def test_notes_stand_below_questions_and_lines_break_where_asked(working: Path) -> None:
    assert study.questions({"old": "one\ntwo"}) == "  old    Is it old?\n         one\n         two\n  older  Is it older?"
    long = study.questions({"older": "word " * 20}, 40).splitlines()
    assert max(map(len, long)) <= 40
    assert long[2] == "         word word word word word word"


@pytest.mark.parametrize("reference", ["folder", "folder/", "./folder", "folder/inner"])
def test_a_folder_is_no_study_and_the_files_in_it_are_named(reference: str, working: Path) -> None:
    put(working / "folder", "mine")
    put(working / "folder", "helper", "x = 1\n")
    (working / "folder" / "inner").mkdir()
    with pytest.raises(UserError) as fault:
        study.load(reference)
    first, second, *_ = str(fault.value).splitlines()
    assert first == f"{reference} is a folder, and a study is one file"
    inner = reference.endswith("inner")
    assert second == ("no file in it sets STUDY" if inner else f"name a file in it: {Path(reference) / 'mine.py'}")


def test_a_file_that_asks_is_told_that_it_must_not(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put(working, "asks", f"n = int(input())\n{TEXT.format(word='it')}")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(UserError, match=rf"{file}:1: a study file must not ask: .*\nwrite the value into the file"):
        study.load("asks")


def test_a_score_that_there_is_not_comes_with_the_nearest_few_and_where_all_are(working: Path) -> None:
    text = TEXT.format(word="it").replace("budgets=", "objective='test/sim', budgets=")
    put(working, "mine", text)
    with pytest.raises(UserError) as fault:
        study.load("mine")
    said = str(fault.value)
    assert "unknown score 'test/sim'; did you mean 'test/ssim'?\nknown: test/ssim, " in said
    assert said.endswith(f"; all {len(study.SCORES)}: harness list --scores")
    assert len(said.splitlines()[1]) < 160


@pytest.mark.parametrize("reference", ["mine", "./mine.py", "mine.py"])
def test_a_name_and_a_path_give_the_same_study(reference: str, working: Path) -> None:
    put(working, "mine")
    loaded = study.load(reference)
    assert (loaded.name, loaded.question, loaded.reference) == ("mine", "Is it mine?", reference)
    assert isinstance(loaded.study, Ablation)


def test_a_file_and_a_module_elsewhere(working: Path) -> None:
    put(working / "folder", "there")
    put(working / "questions_of_mine", "within", "from . import values\n" + TEXT.format(word="within"))
    put(working / "questions_of_mine", "values", "latent = 3\n")
    assert study.load("folder/there.py").name == "there"
    assert study.load(str(working / "folder" / "there.py")).name == "there"
    assert study.load("questions_of_mine.within").name == "within"
    put(working / "questions_of_mine" / "package", "__init__", TEXT.format(word="a package"))
    assert study.load("questions_of_mine.package").name == "package"
    with pytest.raises(UserError, match=r"unknown study file 'folder/ther\.py'; did you mean 'there\.py'"):
        study.load("folder/ther.py")
    with pytest.raises(UserError, match=r"no module 'questions_of_mine\.nowhere' from "):
        study.load("questions_of_mine.nowhere")
    with pytest.raises(UserError, match="named of letters"):
        study.load(str(put(working, "it's")))


def test_a_name_that_two_files_have_is_refused_and_each_has_another(working: Path) -> None:
    put(working, "old")
    assert study.names() == ["./old.py", "harness.studies.old", "older"]
    with pytest.raises(UserError, match=r"several studies are called 'old'\nname one: \./old\.py, harness\.studies\.old"):
        study.load("old")
    own, shipped = files.find("./old.py"), files.find("harness.studies.old")
    assert (own.name, shipped.name) == ("old", "old")
    assert own.path == working / "old.py"
    assert shipped.path != own.path


def test_a_study_imports_what_lies_beside_it_and_its_classes_have_a_source(working: Path) -> None:
    put(working / "folder", "values_beside", "LATENT = 3\n")
    text = TEXT.format(word="so").replace("STUDY", "from harness import paths\nclass Own:\n    pass\nSTUDY")
    text = text.replace("from harness.spec", "from values_beside import LATENT\nfrom harness.spec")
    put(working / "folder", "so", text + "Own.folder = paths.study_folder()\n")
    before = list(sys.path)
    study.load("folder/so.py")
    (module,) = (m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == str(working / "folder" / "so.py"))
    assert module.LATENT == 3
    assert module.Own.folder == working / "folder"
    assert inspect.getsourcefile(module.Own) == str(working / "folder" / "so.py")
    assert "class Own" in inspect.getsource(module.Own)
    assert sys.path == before
    assert paths.study_folder() is None


def test_a_study_that_fails_leaves_nothing_behind(working: Path) -> None:
    file = put(working, "mine", "x = 1 / 0\nSTUDY = 1\n")
    with pytest.raises(UserError, match=r"mine\.py:1: ZeroDivisionError"):
        study.load("mine")
    assert not [m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == str(file)]
    assert paths.study_folder() is None


def test_a_first_study_is_written_once_and_loads(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(working)
    said = study.write_first("first")
    assert said == f"written: {working / 'first.py'}\nrun it: harness study first"
    assert study.load("first").study.base.dataset == "digits"
    (working / "first.py").write_text("# changed\n")
    for name in ("first", "first.py"):
        with pytest.raises(UserError, match="is there already, and is left as it is"):
            study.write_first(name)
    assert (working / "first.py").read_text() == "# changed\n"
    with pytest.raises(UserError, match="named of letters"):
        study.write_first("../elsewhere")
    assert study.write_first("loss_ablation").endswith("run it: harness study ./loss_ablation.py")


def test_home_is_the_working_folder_outside_the_clone(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_HOME")
    monkeypatch.delenv("HARNESS_DATA")
    assert paths.home() == working
    assert paths.data() == working / "data"
    monkeypatch.chdir(paths.PROJECT / "docs")
    assert paths.home() == paths.PROJECT
    monkeypatch.setenv("HOME", str(working))
    monkeypatch.setenv("HARNESS_HOME", "~/there")
    assert paths.mlruns() == working / "there" / "mlruns"


SLIPS = """
import contextlib, io, sys
from harness import cli
from harness.cli import listing

study = ["study", "loss_ablation"]
for arguments in (
    ["list"],
    ["--version"],
    ["--help"],
    ["study", "loss_ablaton"],
    [*study, "--budget", "smok"],
    [*study, "--set", "latnt=3", "--set", "activation=rleu"],
    [*study, "--device", "gpu"],
    [*study, "--executor", "rey"],
    [*study, "--workers", "0"],
    [*study, "--device", "cpu", "--workers", "100000"],
    [*study, "--device", "cpu", "--workers-per-gpu", "2"],
):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        assert cli.main(arguments) == (0 if arguments == ["list"] else 2), arguments
    assert not {"torch", "mlflow", "optuna", "pandas"} & set(sys.modules), arguments
"""


def test_slips_are_answered_without_torch_and_mlflow() -> None:
    subprocess.run([sys.executable, "-c", SLIPS], check=True)


def test_a_list_reads_scripts_that_are_no_study_once_and_runs_none(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, trap = put(working, "mine"), "raise SystemExit('was run')\n"
    put(working, "script", trap)
    put(working, "within", "def f():\n    STUDY = 1\n" + trap)
    put(working, "told", '"""\nSTUDY = 1\n"""\n' + trap)
    reads: list[str] = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path.stem) or read(path))
    assert [row["name"] for row in listing.as_dict("")["studies"]] == ["mine", "old", "older"]
    assert (reads.count("script"), reads.count("within")) == (1, 1)
    mine.write_text(trap)  # no study any more
    assert study.names() == ["old", "older"]
