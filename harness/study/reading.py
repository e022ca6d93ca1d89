"""All that is wrong in the file of a study, found by reading it: names that stand twice and calls that are refused. Torch-free."""

import ast
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from typing import Any

from harness.errors import UserError
from harness.spec import TrialSpec
from harness.study import forms
from harness.study.ablation import Ablation, Budget, Hypothesis
from harness.study.search import Search
from harness.study.space import OneOf, Real, Whole, Widths
from harness.study.strategy import Constraint, Pruner, SearchBudget

CLASSES = (Ablation, Budget, Constraint, Hypothesis, OneOf, Pruner, Real, Search, SearchBudget, TrialSpec, Whole, Widths)
LANGUAGE: dict[str, Any] = {known.__name__: known for known in CLASSES}
KEYWORDS = {name: tuple(f.name for f in fields(known)) for name, known in LANGUAGE.items()}


class _UnknownError(Exception):
    """The value of an expression is not known before the file runs, or its call was refused."""


def repeated_names(tree: ast.Module) -> list[tuple[int, str]]:
    """Return the lines of a file on which a mapping has a name for the second time, of which Python would keep the last alone."""
    found = []
    for mapping in (node for node in ast.walk(tree) if isinstance(node, ast.Dict)):
        seen: dict[Any, int] = {}
        for key in mapping.keys:
            if isinstance(key, ast.Constant):
                if key.value in seen:
                    found.append((key.lineno, f"the name {key.value!r} stands in line {seen[key.value]} already"))
                seen[key.value] = key.lineno
    return found


def refused_calls(tree: ast.Module) -> list[tuple[int, str]]:
    """Return the line and the message of each refused call of the study language whose values stand in the file."""
    reader = _Reader()
    for statement in tree.body:
        reader.read(statement)
    return list(reader.faults)


class _Reader:
    """What has been read of a file.

    Attributes:
        faults: the line and message of each refused call, in order, as keys.
    """

    def __init__(self) -> None:
        self.faults: dict[tuple[int, str], None] = {}
        self._values: dict[str, Any] = {"range": range}

    def read(self, statement: ast.stmt) -> None:
        """Take in what a statement imports or assigns, and judge all calls in it."""
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").partition(".")[0] == "harness":
            self._values |= {a.asname or a.name: LANGUAGE[a.name] for a in statement.names if a.name in LANGUAGE}
            return
        names = [t.id for t in statement.targets if isinstance(t, ast.Name)] if isinstance(statement, ast.Assign) else []
        for name in names:
            self._values.pop(name, None)
        if isinstance(statement, ast.Assign):
            with suppress(_UnknownError):
                self._values |= dict.fromkeys(names, self._value(statement.value))
        else:
            for call in (node for node in ast.walk(statement) if isinstance(node, ast.Call)):
                with suppress(_UnknownError):
                    self._value(call)

    def _value(self, node: ast.expr) -> Any:
        """Return the value of an expression.

        Raises:
            _UnknownError: it is not known. All expressions within it have been judged.
        """
        match node:
            case ast.Call():
                return self._called(node)
            case ast.Name() if node.id in self._values:
                return self._values[node.id]
            case ast.Dict():
                keys = self._all([key for key in node.keys if key is not None])
                values = self._all(node.values)
                if len(keys) < len(values):  # one of them is `**other`
                    raise _UnknownError
                try:
                    return dict(zip(keys, values, strict=True))
                except TypeError:  # a key that cannot be one
                    raise _UnknownError from None
            case ast.Tuple() | ast.List():
                values = self._all(node.elts)
                return tuple(values) if isinstance(node, ast.Tuple) else values
            case _:
                with suppress(ValueError, TypeError, SyntaxError):
                    return ast.literal_eval(node)
                self._all(_within(node))
                raise _UnknownError

    def _all(self, nodes: list[ast.expr]) -> list[Any]:
        """Return the values of expressions, all of which are judged before one that is not known is told.

        Raises:
            _UnknownError: one is not known.
        """
        values, known = [], True
        for node in nodes:
            try:
                values.append(self._value(node))
            except _UnknownError:
                known = False
        if not known:
            raise _UnknownError
        return values

    def _called(self, call: ast.Call) -> Any:
        """Return what a call of the study language or of `range` gives.

        Raises:
            _UnknownError: it is another call, is refused, or has values that are not known.
        """
        called: Any = self._values.get(call.func.id) if isinstance(call.func, ast.Name) else None
        name = getattr(called, "__name__", "")
        wrong = [k for k in call.keywords if name in KEYWORDS and k.arg is not None and k.arg not in KEYWORDS[name]]
        for keyword in wrong:
            told = TypeError(f"{name}.__init__() got an unexpected keyword argument '{keyword.arg}'")
            self._refuse(keyword.value.lineno, forms.in_words(told, KEYWORDS))
        values = self._all([*call.args, *(k.value for k in call.keywords)])
        if wrong or not callable(called) or any(k.arg is None for k in call.keywords):
            raise _UnknownError
        count = len(call.args)
        try:
            return called(*values[:count], **{str(k.arg): v for k, v in zip(call.keywords, values[count:], strict=True)})
        except (UserError, TypeError, ValueError) as fault:
            self._refuse(call.lineno, forms.in_words(fault, KEYWORDS) if isinstance(fault, TypeError) else str(fault))
            raise _UnknownError from None

    def _refuse(self, line: int, message: str) -> None:
        """Note a fault."""
        self.faults[line, message] = None


def _within(node: ast.AST) -> list[ast.expr]:
    """Return the expressions right below a node."""

    def below(parent: ast.AST) -> Iterator[ast.expr]:
        for child in ast.iter_child_nodes(parent):
            if isinstance(child, ast.expr):
                yield child
            else:
                yield from below(child)

    return list(below(node))
