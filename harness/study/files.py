"""Which studies there are, and where: shipped ones, those of the working folder, and any file or module. No study is run here."""

import ast
import importlib.util
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness import paths, references
from harness.errors import UserError, cut, look_up, shown, unknown
from harness.study.forms import NAME

SHIPPED = "harness.studies"  # the package of the shipped studies
NOT_ONE = "{}: a study's file ends in .py and is named of letters, digits, _ and -, no _ in front"
LONGEST_QUESTION = 300  # characters that are shown of it
NARROWEST = 20  # columns in which a question can still be read


@dataclass(frozen=True)
class StudyFile:
    """The file of a study.

    Attributes:
        reference: what a command takes for it: a name, a path or a dotted module.
        path: of the file, absolute.
        module: the dotted module to import it as; None for a file that stands alone.
    """

    reference: str
    path: Path
    module: str | None = None

    @property
    def name(self) -> str:
        """The study's name in stores, experiments and reports: the stem of its file, or the last part of its module."""
        return self.module.rpartition(".")[2] if self.module else self.path.stem

    @property
    def question(self) -> str:
        """The question of the study: the first line of its file, which is read without being run."""
        try:
            docstring = ast.get_docstring(parsed(self.path))
        except UserError as fault:
            why = str(fault).splitlines()[0].removeprefix(f"{self.path}:").strip()
            why = re.sub(r"^([0-9]+):[0-9]+:", r"line \1:", why)
            return f"(cannot be read: {why})"
        question = (docstring or "(asks nothing yet: its file has no docstring)").splitlines()[0]
        return "".join(c if c.isprintable() else " " for c in question)[:LONGEST_QUESTION]


def parsed(path: Path) -> ast.Module:
    """Return what a study's file says.

    Raises:
        UserError: it cannot be read, or is no Python; the message names file, line and column.
    """
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise UserError(f"{path}: cannot be read: {fault.strerror}") from None
    if b"\0" in content:
        raise UserError(f"{path}: has null bytes, so it is no text in UTF-8: save it in that encoding")
    try:
        return ast.parse(content, str(path))
    except SyntaxError as fault:
        text = f"\n  {fault.text.rstrip()[:200]}" if fault.text else ""
        raise UserError(f"{path}:{fault.lineno or 1}:{fault.offset or 1}: {fault.msg}{text}") from None
    except (ValueError, RecursionError, MemoryError) as fault:  # too deep
        raise UserError(f"{path}: is no Python: {fault or type(fault).__name__}") from None


def names() -> list[str]:
    """Return the reference of every study, those of the working folder first.

    That is its name or, where a file of the working folder and a shipped one have the same name, a path or a module.
    """
    return [*(f.reference for f in _own()), *(f.reference for f in _shipped())]


def questions(notes: Mapping[str, str] | None = None, width: int | None = None) -> str:
    """Return every study with its question, one per line; under headings if the working folder has studies of its own.

    Args:
        notes: what else to say of a study, by its reference, on lines below its question.
        width: the columns to break lines at; None to break none.
    """
    own, shipped = _own(), _shipped()
    indent = 4 + max((len(f.reference) for f in (*own, *shipped)), default=0)

    def below(text: str) -> str:
        if width is None or width - indent < NARROWEST:
            return text
        return f"\n{' ' * indent}".join(textwrap.wrap(text, width - indent, break_on_hyphens=False))

    def lines(files: Iterable[StudyFile]) -> str:
        said = [(f, [f.question, *(notes or {}).get(f.reference, "").splitlines()]) for f in files]
        gap = f"\n{' ' * indent}"
        return "\n".join(f"  {f.reference:<{indent - 4}}  {gap.join(map(below, texts))}" for f, texts in said)

    if not own:
        return lines(shipped)
    return f"of this folder:\n{lines(own)}\nshipped with the harness:\n{lines(shipped)}"


def find(reference: str) -> StudyFile:
    """Return the file of the study that is called by a name, a path (`./mine.py`) or a dotted module (`package.mine`).

    A path always means that file. A name is looked for in the working folder, in its folder `studies` and among the shipped ones.

    Raises:
        UserError: there is none, or a name that several have; the message lists what there is.
    """
    if reference.endswith(".py") or "/" in reference:
        return _file_of(reference)
    package, _, name = reference.rpartition(".")
    if package == SHIPPED:
        files = {f.name: f.path for f in _shipped()}
        return StudyFile(reference, look_up(files, name, "shipped study"))
    if package:
        return _module_of(reference)
    found = [f for f in (*_own(), *_shipped()) if f.name == reference]
    if len(found) > 1:
        raise UserError(f"several studies are called {reference!r}\nname one: {', '.join(f.reference for f in found)}")
    if not found and os.path.isdir(reference):
        raise UserError(_a_folder(reference, Path(reference)))
    if not found:
        raise UserError(f"{unknown('study', reference, names())}\ntheir questions: {paths.command('list')}")
    return found[0]


def write_first(name: str) -> str:
    """Write a commented first study into the working folder, as NAME.py, and return where it is and how to run it.

    Raises:
        UserError: the name will not do, or there is such a file already.
    """
    path = Path.cwd() / f"{name.removesuffix('.py')}.py"
    if not re.fullmatch(NAME, path.stem) or path.parent != Path.cwd():
        raise UserError(f"study {name!r}: a study's file is named of letters, digits, _ and -")
    text = (paths.studies() / "_first_study.py").read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} is there already, and is left as it is\nname another: harness init NAME") from None
    reference = next(f.reference for f in _own() if f.path == path.resolve())
    return f"written: {path}\nrun it: {paths.command('study', name=reference)}"


def _file_of(reference: str) -> StudyFile:
    """Return the study of a path.

    Raises:
        UserError: there is no such file, or its name will not do in the names of experiments, folders and locks.
    """
    try:
        path = Path(reference).expanduser().resolve()
        there = path.is_file()
    except (OSError, RuntimeError, ValueError) as fault:  # too long, of a user that is none, with a zero byte
        raise UserError(f"{cut(reference)} is no path: {cut(str(fault))}") from None
    if path.is_dir():
        raise UserError(_a_folder(reference, path))
    if not there and reference.removesuffix(".py") in names():
        raise UserError(f"no file {reference}, but a study of that name: {paths.command('study', name=path.stem)}")
    if not there:
        nearest = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise UserError(f"{unknown('study file', reference, nearest)}" if nearest else f"no file {reference}: {path} is missing")
    if path.suffix != ".py" or not re.fullmatch(NAME, path.stem):
        raise UserError(NOT_ONE.format(reference))
    return StudyFile(reference, path)


def _a_folder(reference: str, path: Path) -> str:
    """Return what to say of a folder that is given for a study, with the studies in it."""
    within = [f"./{file.name}" if path == Path.cwd() else str(Path(reference) / file.name) for file in _candidates(path)]
    inside = [name for name in within if _sets_study(Path(name))]
    found = f"name a file in it: {cut(', '.join(inside))}" if inside else "no file in it sets STUDY"
    return f"{cut(reference)} is a folder, and a study is one file\n{found}\nall studies: {paths.command('list')}"


def _module_of(reference: str) -> StudyFile:
    """Return the study of a dotted module, which is found from the working folder or among the installed packages.

    Raises:
        UserError: there is no such module.
    """
    if os.path.isfile(reference):  # False too where no file can have such a name
        raise UserError(NOT_ONE.format(reference))
    with references.importable(Path.cwd()):
        try:
            spec = importlib.util.find_spec(reference)
        except Exception as fault:  # a package above it does not load, whatever that raises
            raise UserError(f"module {shown(reference)} cannot be found: {type(fault).__name__}: {cut(str(fault))}") from None
    if spec is None or not spec.has_location or spec.origin is None:
        raise UserError(f"no module {shown(reference)} from {Path.cwd()} or among the installed packages")
    return StudyFile(reference, Path(spec.origin).resolve(), reference)


def _own() -> list[StudyFile]:
    """Return the studies of the working folder and of its folder `studies`: files that set STUDY at their top level."""
    here, shipped = Path.cwd(), paths.studies().resolve()
    folders = [f for f in (here, here / "studies") if f.is_dir() and f.resolve() != shipped]
    files = [p for folder in folders for p in _candidates(folder) if _sets_study(p)]
    names = Counter(p.stem for p in (*files, *_candidates(shipped)))
    return [StudyFile(p.stem if names[p.stem] == 1 else f"./{p.relative_to(here)}", p.resolve()) for p in files]


def _shipped() -> list[StudyFile]:
    """Return the shipped studies."""
    taken = {f.name for f in _own()}
    return [StudyFile(f"{SHIPPED}.{p.stem}" if p.stem in taken else p.stem, p) for p in _candidates(paths.studies().resolve())]


def _candidates(folder: Path) -> list[Path]:
    """Return the files of a folder whose names a study may have."""
    return sorted(p for p in folder.glob("*.py") if re.fullmatch(NAME, p.stem) and p.is_file())


def _sets_study(path: Path) -> bool:
    """Return whether a file assigns STUDY at its top level; of one that cannot be parsed, whether a line of it looks like that."""
    try:
        state = path.stat()
    except OSError:
        return False
    return _sets_study_as_of(path, state.st_mtime_ns, state.st_size)


@cache
def _sets_study_as_of(path: Path, mtime_ns: int, size: int) -> bool:
    """Return what `_sets_study` does for a file of this time and size: a list asks once per study, in folders of many scripts."""
    try:
        text = path.read_bytes()
    except OSError:
        return False
    if not re.search(rb"^STUDY\s*[:=]", text, re.M):
        return False
    try:
        body = parsed(path).body
    except UserError:
        return True
    targets = [t for n in body if isinstance(n, ast.Assign) for t in n.targets]
    targets += [n.target for n in body if isinstance(n, ast.AnnAssign)]
    return any(isinstance(t, ast.Name) and t.id == "STUDY" for t in targets)
