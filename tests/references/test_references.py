"""References are pinned to their code, travel with specs, and are imported as they were."""

import importlib
import os
import pickle
import re
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from fuzzing.bounds import few_calls

from harness import catalog, references
from harness.errors import UserError
from harness.references import importing, pinning, sources
from harness.spec import TrialSpec

LIKELIHOOD = """
    from dataclasses import dataclass
    from helper_of_losses import FLOOR

    @dataclass(frozen=True)
    class Mine:
        df: float = 3.0
        outputs: int = 1
        scale: str = "density on v/255"
        BASE = FLOOR

        def floor(self):
            from deeper.still import MORE
            return FLOOR + MORE
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with losses.py, which imports a file beside it and, within a method, a package."""
    home = tmp_path / "work"
    write(home / "losses.py", LIKELIHOOD)
    write(home / "helper_of_losses.py", "FLOOR = 1")
    write(home / "deeper" / "__init__.py", "")
    write(home / "deeper" / "still.py", "MORE = 10")
    write(home / "unrelated.py", "1 / 0")
    monkeypatch.chdir(home)
    return home


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def floor(pinned: str) -> int:
    return references.resolve(pinned)().floor()


def test_a_reference_is_pinned_to_the_code_of_its_file_and_of_what_that_imports(folder: Path) -> None:
    first = references.pin("losses.py:Mine")
    assert references.label(first) == "losses.py:Mine"
    assert floor(first) == 11
    write(folder / "unrelated.py", "2 / 0")
    assert references.pin("losses.py:Mine") == first
    seen = {first}
    changes = {"helper_of_losses.py": "FLOOR = 2", "deeper/still.py": "MORE = 20", "losses.py": LIKELIHOOD + "    # more"}
    for path, text in changes.items():
        write(folder / path, text)
        seen.add(references.pin("losses.py:Mine"))
    assert len(seen) == 4
    assert floor(references.pin("losses.py:Mine")) == 22
    assert references.resolve(first).BASE == 1  # what was pinned first is what it was, in the same process


def test_a_study_in_the_file_is_no_part_of_its_code(folder: Path) -> None:
    pins = set()
    for study in ("", "STUDY = 1\n", "STUDY = (\n  1,\n  2,\n)\n", "STUDY: int = 3\n"):
        (folder / "mine.py").write_text(study + "class Mine:\n    pass\n")
        pins.add(references.pin("mine.py:Mine"))
    assert len(pins) == 1


def test_the_same_code_has_the_same_name_in_any_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = references.pin("losses.py:Mine")
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    monkeypatch.chdir(tmp_path)
    assert references.pin("elsewhere/losses.py:Mine") == references.pin(f"{moved}/losses.py:Mine") == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("loses.py:Mine", "'loses.py:Mine': there is no file"),
        ("losses.py:Mien", "unknown name in losses.py 'Mien'; did you mean 'Mine'"),
        ("losses.py:", "is no reference: write 'losses.py:StudentT'"),
        (":Mine", "is no reference"),
        ("no_such_package.losses:Mine", "there is no module 'no_such_package.losses'"),
        ("harness.spec:TrialSpec", "harness.spec is the harness's own"),
        ("broken.py:Mine", r"broken.py:2:.*invalid syntax"),
    ],
)
def test_what_cannot_be_found_is_refused_without_running_it(folder: Path, words: str, message: str) -> None:
    write(folder / "broken.py", "\ndef f(:\n")
    with pytest.raises(UserError, match=message):
        TrialSpec(likelihood=words)
    with pytest.raises(UserError, match=message):
        references.pin(words)


def test_code_that_fails_is_told_with_its_line(folder: Path) -> None:
    write(folder / "fails.py", "X = 1\nY = 1 / 0\nclass Mine: pass\n")
    fine = imported(folder, "losses")
    write(folder / "losses.py", "class Mine: pass\nX = 1 / 0\n")
    for module in ("fails", "losses"):
        with pytest.raises(UserError, match=rf"{module}\.py:2: ZeroDivisionError: division by zero"):
            references.resolve(references.pin(f"{module}.py:Mine"))
    assert sys.modules["losses"] is fine
    write(folder / "slips.py", "from math import sqtr\nclass Mine: pass\n")
    with pytest.raises(UserError, match=r"slips\.py:1: ImportError: cannot import name 'sqtr' .*; did you mean 'sqrt'\?"):
        references.resolve(references.pin("slips.py:Mine"))


def test_a_name_that_another_module_has_is_refused(folder: Path) -> None:
    write(folder / "json.py", "class Mine: pass\n")
    import json  # noqa: F401  (it is the one of the standard library)

    with pytest.raises(UserError, match=r"json\.py: a module of this name is in use already"):
        references.resolve(references.pin("json.py:Mine"))


def test_a_class_or_an_object_is_its_reference(folder: Path) -> None:
    write(folder / "scores_here.py", "class Mine: pass\nMINE = Mine()\n")
    sys.path.insert(0, str(folder))
    try:
        import scores_here
    finally:
        sys.path.remove(str(folder))
    assert references.pin(scores_here.Mine) == references.pin("scores_here.py:Mine")
    assert references.pin(scores_here.MINE) == references.pin("scores_here.py:MINE")
    assert references.resolve(references.pin(scores_here.MINE)) is scores_here.MINE
    assert TrialSpec(likelihood=scores_here.Mine) == TrialSpec(likelihood="scores_here.py:Mine")
    with pytest.raises(UserError, match="cannot be imported by name"):
        references.pin(lambda x: x)
    session: dict[str, type] = {}
    exec("class Typed: pass", {"__name__": "__nowhere__"}, session)
    with pytest.raises(UserError, match="Typed was typed into a session"):
        references.pin(session["Typed"])


def test_a_spec_takes_its_code_to_another_process(folder: Path, tmp_path: Path) -> None:
    spec = TrialSpec(likelihood="losses.py:Mine", likelihood_args={"df": 4})
    sent = pickle.dumps(spec)
    assert pickle.loads(sent) == spec
    for file in folder.rglob("*.py"):
        file.write_text("raise SystemExit('the files have changed')")
    program = (
        "import pickle, sys; from harness import references; spec = pickle.loads(sys.stdin.buffer.read());"
        "print(spec.id, references.resolve(spec.likelihood)(**spec.likelihood_args).floor())"
    )
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    done = subprocess.run([sys.executable, "-c", program], input=sent, cwd=elsewhere, capture_output=True, check=True)
    assert done.stdout.decode().split() == [spec.id, "11"]


def test_what_is_only_on_record_says_so(folder: Path) -> None:
    spec = TrialSpec(likelihood="losses.py:Mine")
    again = TrialSpec.from_dict(spec.as_dict() | {"likelihood": "losses.py:Mine@000000000000"})
    assert again.id != spec.id
    with pytest.raises(UserError, match=r"the code of 'losses.py:Mine' \(000000000000\) is not at hand"):
        references.resolve(again.likelihood)


def test_a_package_of_the_users_own_is_named_by_its_module(folder: Path) -> None:
    write(folder / "mypackage_x" / "__init__.py", "")
    write(folder / "mypackage_x" / "parts.py", "from .deep import DEEP\nclass Mine:\n    value = DEEP\n")
    write(folder / "mypackage_x" / "deep.py", "DEEP = 5\n")
    first = references.pin("mypackage_x.parts:Mine")
    assert first.startswith("mypackage_x.parts:Mine@")
    assert references.resolve(first).value == 5
    write(folder / "mypackage_x" / "deep.py", "DEEP = 6\n")
    second = references.pin("mypackage_x.parts:Mine")
    assert (references.resolve(second).value, references.resolve(first).value) == (6, 5)


def test_a_class_of_a_package_is_named_by_its_module(folder: Path) -> None:
    write(folder / "mypackage_y" / "__init__.py", "from .parts import Mine\nclass Top: pass\n")
    write(folder / "mypackage_y" / "parts.py", "class Mine: pass\n")
    package = imported(folder, "mypackage_y")
    assert references.label(references.pin(package.Mine)) == "mypackage_y.parts:Mine"
    assert references.label(references.pin(package.Top)) == "mypackage_y:Top"


def test_an_installed_package_offers_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("likelihood.mine_from_afar", "losses:Mine", pinning.ENTRY_POINTS)
    monkeypatch.setattr(pinning, "_entry_points", lambda: (point,))
    monkeypatch.syspath_prepend(str(folder))
    assert "mine_from_afar" in catalog.names("likelihood")
    spec = TrialSpec(likelihood="mine_from_afar")
    assert references.label(spec.likelihood) == "losses:Mine"
    assert floor(spec.likelihood) == 11
    with pytest.raises(UserError, match="did you mean 'mine_from_afar'"):
        TrialSpec(likelihood="mine_from_afra")


def test_references_cost_nothing_where_there_are_none() -> None:
    program = "import sys; import harness.spec; harness.spec.TrialSpec(); print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split() == ["False", "False"]


STATEMENTS = """
import top
async def outer():
    class Inner:
        from within import a_class
    async with x as y:
        import awaited
try:
    import tried
except ImportError:
    import handled
else:
    import otherwise
finally:
    import at_last
while x:
    import looped
else:
    import unbroken
match x:
    case 1:
        import matched
if x:
    pass
elif y:
    import branched
"""


def test_imports_are_found_within_all_statements(tmp_path: Path) -> None:
    names = re.findall(r"(?:import|from) (?!a_class|ImportError)(\w+)", STATEMENTS)
    assert len(names) == 11
    write(tmp_path / "mine.py", STATEMENTS)
    for name in names:
        write(tmp_path / f"{name}.py", "")
    assert set(sources.read_source(tmp_path, "mine").files) == {f"{name}.py" for name in ("mine", *names)}


def test_code_of_many_expressions_is_read_in_few_calls(tmp_path: Path) -> None:
    """Found by fuzzing: a module beside which all installed packages lie took millions of calls until it was refused."""
    write(tmp_path / "mine.py", "import other\nX = [" + "f(1), " * 100_000 + "]\n")
    write(tmp_path / "other.py", "")
    with few_calls(1_000):
        assert len(sources.read_source(tmp_path, "mine").files) == 2


def imported(folder: Path, name: str) -> ModuleType:
    """A module that the user has imported."""
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


def test_a_class_whose_file_has_changed_since_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "changing.py", "class Mine:\n    value = 1\n")
    changing = imported(folder, "changing")
    first = references.pin(changing.Mine)
    write(folder / "changing.py", "class Mine:\n    value = 10\n")
    with pytest.raises(UserError, match=r"changing\.py has changed since Mine was imported"):
        references.pin(changing.Mine)
    os.utime(folder / "changing.py", (0, 0))  # so that bytecode of the same second is not taken for it
    monkeypatch.syspath_prepend(str(folder))
    importlib.reload(changing)
    again = references.pin(changing.Mine)
    assert (references.resolve(first).value, references.resolve(again).value) == (1, 10)


def test_code_on_record_does_not_take_the_place_of_the_users_own(folder: Path) -> None:
    write(folder / "placed.py", "class Mine:\n    value = 1\n")
    old = references.pin("placed.py:Mine")
    record = references.to_record([old])
    write(folder / "placed.py", "class Mine:\n    value = 2\n")
    mine = imported(folder, "placed")
    references.from_record(record)
    assert references.resolve(old).value == 1
    assert sys.modules["placed"] is mine
    new = references.pin(mine.Mine)
    assert new != old
    assert references.resolve(new) is mine.Mine


def test_a_file_takes_the_place_of_its_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code of a record is imported from the working folder if it is there, so that it finds the data beside it."""
    write(folder / "beside.py", "from pathlib import Path\ndef data(): return Path(__file__).with_name('data.txt').read_text()\n")
    (folder / "data.txt").write_text("here")
    pinned = references.pin("beside.py:data")
    record = references.to_record([pinned])
    monkeypatch.setattr(importing, "_SOURCES", {})
    monkeypatch.setattr(importing, "_OBJECTS", {})
    references.from_record(record)
    assert references.resolve(pinned)() == "here"
    monkeypatch.chdir(folder.parent)
    importing._OBJECTS.clear()
    del sys.modules["beside"]
    with pytest.raises(FileNotFoundError):
        references.resolve(pinned)()  # a copy, somewhere else
    assert references.pin(f"{folder}/beside.py:data") == pinned
    assert references.resolve(pinned)() == "here"


def test_a_record_writes_nothing_beside_its_own_folder() -> None:
    with pytest.raises(UserError, match="is no path of a module"):
        references.from_record('[{"module": "x", "files": {"../../escaped.py": "1"}}]')


def test_too_much_code_to_travel_is_refused() -> None:
    with pytest.raises(UserError, match=r"nn\.functional imports more than 2 MiB of its own package"):
        references.pin("torch.nn.functional:hardswish")


@pytest.mark.parametrize(
    ("field", "name"), [("optimizer", "adam@x"), ("activation", "rleu@1f2e3d4c5b6a"), ("optimizer", "a:b@1f2e3d4c5b6a")]
)
def test_a_name_with_a_digest_is_no_way_past_the_catalog(field: str, name: str) -> None:
    with pytest.raises(UserError, match=f"unknown {field}"):
        TrialSpec(**{field: name})


def test_deriving_the_same_likelihood_keeps_its_arguments(folder: Path) -> None:
    spec = TrialSpec(likelihood="losses.py:Mine", likelihood_args={"df": 4})
    assert spec.derive(likelihood="losses.py:Mine", latent=3).likelihood_args == {"df": 4}
    assert spec.derive(likelihood="bce").likelihood_args == {}


def test_equal_specs_have_equal_ids_whatever_the_arguments_are(folder: Path) -> None:
    specs = [TrialSpec(likelihood="losses.py:Mine", likelihood_args={"a": value}) for value in (1, 1.0, True, [1], {"b": 1})]
    assert len({s.id for s in specs}) == len(set(specs)) == 5
    assert all(TrialSpec.from_dict(s.as_dict()) == s for s in specs)
    for value in ({1: 2}, {1, 2}, float("nan"), object()):
        with pytest.raises(UserError, match="likelihood_args must be numbers, words, lists and mappings"):
            TrialSpec(likelihood="losses.py:Mine", likelihood_args={"a": value})
