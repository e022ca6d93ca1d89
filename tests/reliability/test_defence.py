"""Rows 1 to 13, 41 and 49 of the bad-input matrix as study files and command lines have them, and the last line of defence."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from refusals import LONGEST, Told, assert_refused, fingerprint, run
from rich.table import Table

from harness import cli, defence, paths, provenance, study
from harness.errors import UserError

HEAD = '''"""Is it so?"""
from harness.spec import TrialSpec
from harness.study import *

BASE = TrialSpec(dataset="digits", latent=2)
ONE = {"default": Budget(epochs=1, seeds=[0])}
TWO = {"a": {}, "b": {"latent": 3}}
'''.replace("import *", "import Ablation, Budget, Hypothesis, OneOf, Pruner, Real, Search, SearchBudget, Whole")
SEARCH = (
    "STUDY = Search(base=BASE, objectives=('elbo/validation',), budgets={'default': SearchBudget(trials=2, epochs=1)}, space={%s})"
)
CLAIM = "STUDY = Ablation(base=BASE, arms=TWO, budgets=ONE, hypotheses=(%s,))"
ARM = "STUDY = Ablation(base=BASE, arms={'a': {}, %s}, budgets=ONE)"
LINE = 9  # of STUDY

# By row: what follows HEAD, and what must be said.
FILES = {
    "row02-syntax": ("STUDY = Ablation(base=)", (":9:23: invalid syntax", "STUDY = Ablation(base=)")),
    "row02-zero-byte": ("STUDY = 1\0", ("has null bytes, so it is no text in UTF-8: save it in that encoding",)),
    "row03-keyword-of-a-trial": ("STUDY = TrialSpec(latnt=2)", (":9: TrialSpec has no 'latnt'; did you mean 'latent'?",)),
    "row03-keyword-by-mapping": ("STUDY = TrialSpec(**{'latnt': 2})", (":9: ", "TrialSpec has no 'latnt'; did you mean 'latent'?")),
    "row03-keyword-of-a-study": (
        "STUDY = Ablation(base=BASE, arms=TWO, budgets=ONE, hypothesis=())",
        (":9: Ablation has no 'hypothesis'; did you mean 'hypotheses'?",),
    ),
    "row03-keywords-all-at-once": (
        "X = TrialSpec(latnt=2)\nY = Budget(epoch=1, seeds=[0])\nSTUDY = Ablation(bass=X)",
        (":9: TrialSpec has no 'latnt'", ":10: Budget has no 'epoch'", ":11: Ablation has no 'bass'"),
    ),
    "row04-arm-twice": (
        "STUDY = Ablation(\n  base=BASE, budgets=ONE,\n  arms={'a': {},\n  'b': {'latent': 3},\n  'a': {'latent': 4}})",
        (":13: the name 'a' stands in line 11 already",),
    ),
    "row04-arms-as-a-list": ("STUDY = Ablation(base=BASE, arms=['a'], budgets=ONE)", (":9: arms must be a mapping", "['a']")),
    "row04-base-as-a-mapping": ("STUDY = Ablation(base={}, arms=TWO, budgets=ONE)", ("base must be a TrialSpec, got {}",)),
    "row04-budgets-as-one": ("STUDY = Ablation(base=BASE, arms=TWO, budgets=ONE['default'])", ("budgets must be a mapping",)),
    "row04-hypothesis-alone": (
        "STUDY = Ablation(base=BASE, arms=TWO, budgets=ONE, hypotheses=Hypothesis(better='a', worse='b', metric='test/ssim'))",
        ("hypotheses must be a tuple of Hypothesis values",),
    ),
    "row04-seeds-as-a-number": (
        "STUDY = Ablation(base=BASE, arms=TWO, budgets={'default': Budget(epochs=1, seeds=3)})",
        ("budget 'default': seeds are whole numbers, such as range(3)", "got 3"),
    ),
    "row04-seeds-too-many": (
        "STUDY = Ablation(base=BASE, arms=TWO, budgets={'default': Budget(epochs=1, seeds=range(10**7))})",
        ("budget 'default': 2 arms x 10,000,000 seeds are 20,000,000 trials", "a study may have 100,000"),
    ),
    "row04-nan-bound": (SEARCH % "'beta': Real(float('nan'), 1.0)", ("space 'beta': must go from a finite number", "nan")),
    "row04-inf-bound": (SEARCH % "'beta': Real(1.0, float('inf'))", ("space 'beta': must go from a finite number", "inf")),
    "row05-space-all-at-once": (
        SEARCH % "'beta': Real(2, 1), 'learning_rate': Real(0, 1, log=True), 'activation': OneOf(())",
        ("'beta': must go", "'learning_rate': cannot be logarithmic", "'activation': takes a tuple of two or more", ":9: "),
    ),
    "row05-space-without-axes": (SEARCH % "'latent': (2, 8)", ("space must be a mapping of fields to axes", "(2, 8)")),
    "row06-latent-zero": ("STUDY = TrialSpec(latent=0)", (":9: latent must be a whole number from 1", "got 0")),
    "row07-latent-negative": ("STUDY = TrialSpec(latent=-1)", (":9: latent must be a whole number from 1", "got -1")),
    "row08-rate-negative": ("STUDY = TrialSpec(learning_rate=-1)", ("learning_rate must be a finite number above 0, got -1",)),
    "row08-rate-nan": (
        "STUDY = TrialSpec(learning_rate=float('nan'))",
        ("learning_rate must be a finite number", "got nan"),
    ),
    "row09-rate-zero": ("STUDY = TrialSpec(learning_rate=0)", ("learning_rate must be a finite number above 0, got 0",)),
    "row11-names-in-all-arms": (
        ARM % "'b': {'activation': 'rleu'}, 'c': {'optimizer': 'adm'}, 'd': {'network': 'mpl'}",
        (
            "arm 'b': unknown activation 'rleu'; did you mean 'relu'",
            "arm 'c': unknown optimizer 'adm'; did you mean 'adam'",
            "arm 'd'",
        ),
    ),
    "row13-zeros": (
        "STUDY = TrialSpec(batch_size=0, epochs=0, seed=-1)",
        ("batch_size must be", "epochs must be", "seed must be", "got -1"),
    ),
    "row13-seed-huge": ("STUDY = TrialSpec(seed=2**64)", ("seed must be a whole number", str(2**64))),
    "row13-pruner-in-words": (
        "STUDY = Pruner(name='asha', first='1')",
        ("Pruner: first must be a whole number of at most 18 digits, got '1'",),
    ),
    "row41-arm-name-long": (ARM % "'x' * 7000: {'latent': 3}", ("its name is text of 1 to 200 printable characters",)),
    "row41-arm-name-of-two-lines": (ARM % "'x\\ny': {'latent': 3}", ("'x\\ny'", "printable characters on one line")),
    "row41-arm-name-number": (ARM % "3: {'latent': 3}", ("arm 3: its name is text",)),
    "row41-arm-name-none": (ARM % "None: {'latent': 3}", ("arm None: its name is text",)),
    "row41-arm-name-empty": (ARM % "'': {'latent': 3}", ("arm '': its name is text",)),
    "row41-arm-name-right-to-left": (ARM % "'\\u202ea': {'latent': 3}", ("arm '\\u202ea': its name is text",)),
    "row41-budget-name": (
        "STUDY = Ablation(base=BASE, arms=TWO, budgets={**ONE, \"it's\": ONE['default']})",
        ('budget "it\'s": its name is made of letters, digits, _ and -',),
    ),
    "cases-claim-of-itself": (
        CLAIM % "Hypothesis(better='a', worse='a', metric='test/ssim')",
        ("an arm cannot beat itself",),
    ),
    "cases-claims-all-at-once": (
        CLAIM % "Hypothesis(better='c', worse='a', metric='test/ssim'), Hypothesis(better='a', worse='b', metric='test/sim')",
        ("unknown arm 'c'", "unknown score 'test/sim'; did you mean 'test/ssim'"),
    ),
    "cases-import": ("from os import nope\nSTUDY = 1", (":9: ImportError: cannot import name 'nope'",)),
    "cases-import-near": (
        "from harness.study import Abaltion\nSTUDY = 1",
        ("cannot import name 'Abaltion'", "; did you mean 'Ablation'?"),
    ),
    "cases-import-of-no-module": ("import harness.studdy\nSTUDY = 1", ("No module named 'harness.studdy'; did you mean 'study'?",)),
    "cases-import-of-a-slip": ("import harnes\nSTUDY = 1", ("No module named 'harnes'; did you mean 'harness'?",)),
    "cases-import-of-none": ("import lightnin\nSTUDY = 1", ("No module named 'lightnin'", f"{sys.executable} -m pip install ...")),
    "cases-import-of-none-in-a-package": ("import no_such.part\nSTUDY = 1", ("No module named 'no_such'", "-m pip install ...")),
    "cases-attribute-near": ("import math\nSTUDY = math.sqtr(2)", (":10: AttributeError", "; did you mean 'sqrt'?")),
    "cases-name-near": ("widths = [1]\nSTUDY = width", (":10: NameError: name 'width'", "; did you mean 'widths'?")),
    "cases-name-near-in-a-function": ("def f(widths):\n    return width\n\n\nSTUDY = f(1)", ("; did you mean 'widths'?",)),
    "cases-name-not-imported": ("del Budget\nSTUDY = Budget", ("name 'Budget' is not defined; from harness import Budget",)),
    "cases-name-of-odd-globals": ("globals()[3] = 4\nSTUDY = width", (":10: NameError: name 'width' is not defined",)),
    "cases-exit": ("import sys\nsys.exit('no')\nSTUDY = 1", (":10: SystemExit: no",)),
    "cases-own-exit": ("class Stop(BaseException):\n    pass\n\n\nraise Stop('x')\nSTUDY = 1", (":13: Stop: x",)),
    "cases-without-words": (
        "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\n\n\nraise Odd\nSTUDY = 1",
        (":14: Odd: it has no words",),
    ),
    "cases-key-that-is-none": ("STUDY = Ablation(base=BASE, arms={['a']: {}}, budgets=ONE)", (":9: TypeError: unhashable type",)),
    "cases-too-deep": ("TEXT = " + " + ".join(["len('a')"] * 990) + "\nSTUDY = nothing", (":10: NameError: name 'nothing'",)),
    "cases-own-error": ("def f():\n    return {}['no']\n\n\nSTUDY = f()", (":10: KeyError: 'no'",)),
}
COMMANDS = {
    "row01-study": (["study", "loss_ablaton"], ("unknown study 'loss_ablaton'; did you mean 'loss_ablation'", "harness list")),
    "row49-workers": (["study", "loss_ablation", "--device", "cpu", "--workers", "0"], ("WORKERS=0: from 1 to",)),
    "names-option": (["study", "loss_ablation", "--buget", "smoke"], ("--buget smoke; did you mean '--budget'?",)),
    "names-command": (["studdy"], ("unknown command 'studdy'; did you mean 'study'?",)),
    "names-bench": (["bench", "laddr"], ("unknown command 'laddr'; did you mean 'ladder'?",)),
    "names-setting": (["study", "loss_ablation", "--set", "latnt=3"], ("--set latnt=3: ", "did you mean 'latent'?")),
    "cases-setting-no-literal": (["study", "loss_ablation", "--set", "latent={[1]:2}"], ("latent must be a whole number",)),
    "cases-port": (["ui", "--port", "99999"], ("a port is a number from 1 to 65535, got '99999'",)),
    "cases-file-name": (["study", "./it's.py"], ("it's.py: a study's file ends in .py and is named of letters",)),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder outside the clone."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def told(arguments: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    """Return what a command did, run in this process."""
    before = fingerprint(home)
    code = cli.main(arguments)
    said = capsys.readouterr()
    return Told(code, said.out, said.err, [], sorted(before.items() ^ fingerprint(home).items()))


@pytest.mark.parametrize("row", FILES)
def test_faults_of_a_study_s_file(row: str, folder: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, says = FILES[row]
    (folder / "mine.py").write_text(f"{HEAD}\n{text}\n")
    assert_refused(told(["study", "mine"], home, capsys), 2, str(folder / "mine.py"), *says)


@pytest.mark.parametrize("row", COMMANDS)
def test_faults_of_a_command(row: str, folder: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "it's.py").write_text(f"{HEAD}\nSTUDY = 1\n")
    arguments, says = COMMANDS[row]
    assert_refused(told(arguments, home, capsys), 2, *says)


@pytest.mark.parametrize("row", ["row02-syntax", "row03-keywords-all-at-once", "row11-names-in-all-arms"])
def test_faults_of_a_study_s_file_are_told_without_torch(row: str, folder: Path, home: Path) -> None:
    text, says = FILES[row]
    (folder / "mine.py").write_text(f"{HEAD}\n{text}\n")
    assert_refused(run(["study", "mine"], home, folder=folder), 2, *says)


def test_a_file_that_cannot_be_read_is_said_and_hides_no_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cases: one latin-1 file in studies/."""
    (folder / "fine.py").write_text(f"{HEAD}\nSTUDY = 1\n")
    (folder / "latin.py").write_bytes('"""Été?"""\nSTUDY = 1\n'.encode("latin-1"))
    assert cli.main(["list"]) == 0
    said = capsys.readouterr().out
    assert "fine                  Is it so?" in said
    assert "latin                 (cannot be read: line 1: (unicode error) 'utf-8'" in said
    assert cli.main(["study", "latin"]) == 2
    assert f"harness: {folder / 'latin.py'}:1:" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["[/red]", "[bold]x", "../x", 'it\'s "so"', "a/b", "😀", "été", "3", "None", ":smile:", "a,b"])
def test_names_are_shown_as_they_are(name: str, folder: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Row 41 and cases: a name is markup of nothing."""
    claim = f"Hypothesis(better={name!r}, worse='a', metric='test/ssim')"
    arms = f"STUDY = Ablation(base=BASE, arms={{'a': {{}}, {name!r}: {{'latent': 3}}}}, budgets=ONE, hypotheses=({claim},))"
    (folder / "mine.py").write_text(f"{HEAD.replace('Is it so?', '[/red] [bold]so[/bold] :smile:?')}\n{arms}\n")
    assert cli.main(["plan", "mine"]) == 0
    said = capsys.readouterr().out
    assert f"{name} beats a on" in " ".join(said.split())
    assert cli.main(["list"]) == 0
    assert "[/red] [bold]so[/bold] :smile:?" in capsys.readouterr().out


def test_control_characters_of_a_question_do_not_reach_the_terminal(folder: Path) -> None:
    (folder / "mine.py").write_text('"""\\x1b[31mIs\\u202e it?""" \nSTUDY = 1\n')
    assert study.questions().splitlines()[1].split() == ["mine", "[31mIs", "it?"]


# -------------------------------------------------------------------------------- the last line of defence


def broken(monkeypatch: pytest.MonkeyPatch, fault: BaseException) -> None:
    """Let `harness list` raise something."""

    def questions(*_: object) -> str:
        raise fault

    monkeypatch.setattr(study, "questions", questions)


def test_what_nobody_expected_is_three_lines_and_a_file(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken(monkeypatch, RuntimeError("surprise at postgresql://me:secret@host/db\nand more"))
    assert cli.main(["list"]) == 70
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 3
    assert lines[0] == "harness: this should not happen: RuntimeError: surprise at postgresql://me@host/db and more"
    kept = Path(lines[1].removeprefix("kept in "))
    assert kept.parent == home / "mlruns" / "errors"
    text = kept.read_text()
    assert "Traceback" in text
    assert "secret" not in text
    assert "command: " in text
    assert cli.main(["list", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err
    assert cli.main(["--debug", "list"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_file_is_kept_elsewhere_where_the_home_cannot_be_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.write_text("a file")
    broken(monkeypatch, RuntimeError("surprise"))
    assert cli.main(["list"]) == 70
    kept = Path(capsys.readouterr().err.splitlines()[1].removeprefix("kept in "))
    assert "RuntimeError: surprise" in kept.read_text()
    shutil.rmtree(kept.parent)


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (UserError("no"), 2, "harness: no"),
        (PermissionError(13, "Permission denied", "/x"), 4, "harness: /x: Permission denied"),
        (OSError(28, "No space left on device"), 4, "No space left on device"),
        (MemoryError(), 4, "memory of this machine"),
        (RecursionError("deep"), 70, "this should not happen: RecursionError: deep"),
        (BrokenPipeError(32, "Broken pipe"), 70, "this should not happen: BrokenPipeError"),  # of a pipe that is not the output
        (KeyboardInterrupt(), 130, "harness: stopped\n"),
    ],
)
def test_exit_codes(
    fault: BaseException, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken(monkeypatch, fault)
    assert cli.main(["list"]) == code
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
    assert len(said.splitlines()) <= LONGEST


def test_passwords_are_left_out_of_what_is_kept() -> None:
    assert provenance.redacted("a://b:c@d e://f:g@h") == "a://b@d e://f@h"


def test_a_reader_that_has_gone_ends_a_command_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "harness", "list"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (defence.CLOSED, b"")


def test_a_closed_output_is_no_fault(folder: Path) -> None:
    done = subprocess.run(["sh", "-c", f"'{sys.executable}' -m harness list >&-"], stderr=subprocess.PIPE, check=False, cwd=folder)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_a_terminal_cannot_show_is_left_out(folder: Path, home: Path) -> None:
    """Case R9."""
    (folder / "mine.py").write_text(f"{HEAD.replace('so?', 'so – ± é?')}\nSTUDY = 1\n", encoding="utf-8")
    done = run(["list"], home, environment={"PYTHONIOENCODING": "ascii"}, folder=folder)
    assert done.code == 0
    assert "Is it so ? ? ??" in done.out
    assert done.err == ""


WAITS = """
import sys, time
from harness import cli, study

def questions(*_):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        if {slow}:
            print("ending", flush=True)
            time.sleep(60)

study.questions = questions
sys.exit(cli.main(["list"]))
"""


@pytest.mark.parametrize(
    ("numbers", "slow", "code"),
    [
        ([signal.SIGINT], False, 130),
        ([signal.SIGINT, signal.SIGINT], True, -signal.SIGINT),
        ([signal.SIGTERM], False, -signal.SIGTERM),
        ([signal.SIGHUP], False, -signal.SIGHUP),
    ],
)
def test_signals_end_a_command_without_a_driver(numbers: list[int], slow: bool, code: int) -> None:
    """Case R8; the second Ctrl-C ends it at once, also while the first is still being handled."""
    command = [sys.executable, "-c", WAITS.format(slow=slow)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        started = time.monotonic()
        for number in numbers:
            process.stdout.readline()
            process.send_signal(number)
        assert process.wait() == code
        assert time.monotonic() - started < 60, "it ended because its sleep did"
        assert process.stderr.read() == (b"harness: stopped\n" if code == 130 else b"")


def test_an_interrupt_while_the_command_line_is_imported() -> None:
    program = "import sys\nclass C:\n def find_spec(self, name, *a):\n  if name == 'harness.cli': raise KeyboardInterrupt\n"
    program += "sys.meta_path.insert(0, C())\nfrom harness.__main__ import main\nsys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"harness: stopped\n")


# -------------------------------------------------------------------------------- make


def make(*arguments: str, folder: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run make without running recipes."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")} | more
    command = ["make", "-n", "-o", ".venv/.ready", *arguments]
    return subprocess.run(command, cwd=folder or paths.PROJECT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("value", ["$(shell touch %s)", "${shell touch %s}", "x\ntouch %s", "x'\ntouch %s\n'"])
@pytest.mark.parametrize("variable", ["NAME", "BUDGET", "SET", "ARMS", "DATASET", "RUN"])
def test_r16_what_make_would_run_is_refused(variable: str, value: str, tmp_path: Path) -> None:
    text = value % (tmp_path / "touched")
    for done in (make("study", f"{variable}={text}"), make("study", **{variable: text})):
        assert done.returncode == 2
        assert f"{variable}: a value is one line, without a dollar sign before a bracket" in done.stderr
        assert done.stdout == ""
    assert not (tmp_path / "touched").exists()


def test_r16_a_variable_s_name_does_not_reach_the_shell(tmp_path: Path) -> None:
    done = make("list", f"x';touch${{IFS}}{tmp_path}/touched;'=1")
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_r16_make_from_elsewhere_says_how(tmp_path: Path) -> None:
    done = make("-f", str(paths.PROJECT / "Makefile"), "study", "NAME=loss_ablation", folder=tmp_path)
    assert done.returncode == 2
    assert f"make -C {paths.PROJECT}/ study" in done.stderr


def test_r15_a_misspelt_variable_is_refused() -> None:
    assert "unknown variable BUGDET=smoke; did you mean BUDGET=?" in make("study", "NAME=loss_ablation", "BUGDET=smoke").stderr


def test_a_table_in_a_pipe_has_no_blanks_at_the_ends_of_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name", "what it is")
    table.add_row("a", "short")
    table.add_row("b", "a longer text [with brackets] ")
    console = defence.Output()
    console.print(table, "and behind it", sep=" ")
    console.print("one ", end="")
    console.print("line")
    printed = capsys.readouterr().out
    assert "longer text [with brackets]" in printed
    assert [line for line in printed.splitlines() if line != line.rstrip()] == []
    assert printed.endswith("and behind it\none line\n")
