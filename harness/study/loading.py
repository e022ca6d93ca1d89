"""Find, read and check the study files of studies/. Torch is not imported here."""

import ast
import importlib.util
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness import paths
from harness.errors import UserError, look_up, unknown
from harness.study.ablation import Ablation, Budget
from harness.study.protocol import Study
from harness.study.search import Search, SearchBudget


def names() -> list[str]:
    """Return the names of all studies."""
    return sorted(p.stem for p in paths.studies().glob("*.py") if not p.stem.startswith("_"))


def question(name: str) -> str:
    """Return the question of a study: the first line of its file, which is read without being run."""
    try:
        docstring = ast.get_docstring(ast.parse(_path(name).read_text(encoding="utf-8")))
    except SyntaxError as fault:
        return f"(cannot be read: line {fault.lineno}: {fault.msg})"
    return (docstring or "(asks nothing yet: its file has no docstring)").splitlines()[0]


def questions(which: Iterable[str] | None = None) -> str:
    """Return every study with its question, one per line; of all studies unless `which` names some."""
    selected = list(which or names())
    width = max(map(len, selected), default=0)
    return "\n".join(f"  {name:<{width}}  {question(name)}" for name in selected)


def load_study(name: str) -> Study:
    """Return the study in studies/NAME.py.

    Raises:
        UserError: there is no such study, or its file has an error; the message names file and line.
    """
    if name not in names():
        raise UserError(f"{unknown('study', name, names())}\n{questions()}")
    path = _path(name)
    module_spec = importlib.util.spec_from_file_location(f"studies.{name}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        study = module.STUDY
    except SyntaxError as fault:
        text = (fault.text or "").rstrip()
        raise UserError(f"{path}:{fault.lineno}:{fault.offset}: {fault.msg}\n  {text}") from None
    except Exception as fault:  # a study file is user code, so whatever it raises is reported with the file and line
        own_lines = [f.lineno for f in traceback.extract_tb(fault.__traceback__) if f.filename == str(path)]
        prefix = "" if isinstance(fault, UserError) else f"{type(fault).__name__}: "
        raise UserError(f"{path}:{own_lines[-1] if own_lines else 1}: {prefix}{fault}") from None
    if not isinstance(study, Ablation | Search):
        raise UserError(f"{path}: STUDY must be an Ablation or a Search, got {type(study).__name__}")
    return study


def check(name: str, budget: str) -> None:
    """Raise an error if a study cannot run with this budget.

    Raises:
        UserError: the study or budget is unknown or has an error, or its budget would never look at the test set.
    """
    budgets: Mapping[str, Budget | SearchBudget] = load_study(name).budgets
    if look_up(budgets, budget, "budget").evaluation == "validation":
        raise UserError(
            f"study {name!r}, budget {budget!r}: evaluation='validation' leaves nothing to report\n"
            "it never looks at the test set; use 'quick', 'full' or 'thorough'"
        )


def _path(name: str) -> Path:
    """Return the path of a study's file."""
    return paths.studies() / f"{name}.py"
