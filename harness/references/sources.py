"""The code behind a reference: the file of its module, and the local files that this one imports."""

import ast
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.errors import UserError

STUDY = "STUDY"  # the name of a study in its file; its plan is no part of the code
DIGITS = 12  # of a digest
MOST_BYTES = 2 * 2**20  # of a source
HARNESS = __name__.partition(".")[0]


@dataclass(frozen=True)
class Source:
    """The code behind a reference.

    Attributes:
        root: the folder from which the module is imported, where it was found; empty if it is from a record.
        module: the dotted name of the module.
        files: the contents of its file and of the local files that it imports, by path below `root`.
    """

    root: str
    module: str
    files: Mapping[str, bytes]

    @cached_property
    def digest(self) -> str:
        """The first hexadecimal digits of a digest of all files; a study that one of them may hold is left out."""
        digest = hashlib.sha256()
        for name in sorted(self.files):
            digest.update(f"{name}\0".encode() + _without_study(self.files[name]) + b"\0")
        return digest.hexdigest()[:DIGITS]

    @property
    def file(self) -> str:
        """The path of the module's own file below `root`."""
        path = self.module.replace(".", "/")
        return next(name for name in (f"{path}.py", f"{path}/__init__.py") if name in self.files)

    @property
    def modules(self) -> Mapping[str, str]:
        """The path below `root` of each module's file, by the dotted name of the module."""
        return {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in self.files}

    def is_at(self, root: Path) -> bool:
        """Return whether all files are in a folder, unchanged."""
        return all(self.has(name, root / name) for name in self.files)

    def has(self, name: str, path: Path) -> bool:
        """Return whether a path holds the file of this name, unchanged."""
        try:
            return path.read_bytes() == self.files[name]
        except OSError:
            return False


def read_source(root: Path, module: str) -> Source:
    """Return the source of a module that is imported from a folder.

    The local files that it imports, also within functions, are those of its package, or, for a module that stands alone, those that
    lie in its folder.

    Raises:
        UserError: a file that cannot be read as Python, a module of the harness itself, or more code than can travel.
    """
    if module.split(".")[0] == HARNESS:
        raise UserError(f"{module} is the harness's own: name what it has as `harness.catalog` does")
    package = module.split(".")[0] if "." in module or (root / module / "__init__.py").is_file() else None
    files: dict[str, bytes] = {}
    ahead = [module]
    while ahead:
        if sum(map(len, files.values())) > MOST_BYTES:
            raise UserError(
                f"{module} imports more than {MOST_BYTES // 2**20} MiB of its own package, which would travel with every trial\n"
                "write a file beside the study that takes from it what you need"
            )
        parts = ahead.pop().split(".")
        if parts[0] == HARNESS or package not in (None, parts[0]):
            continue
        for depth in range(1, len(parts) + 1):  # the packages around a module are imported too
            path = root.joinpath(*parts[:depth])
            file = next((f for f in (path.with_name(f"{path.name}.py"), path / "__init__.py") if f.is_file()), None)
            if file is None or file.relative_to(root).as_posix() in files:
                continue
            files[file.relative_to(root).as_posix()] = file.read_bytes()
            ahead += _imports(file, parts[:depth] if file.name == "__init__.py" else parts[: depth - 1])
    if not files:
        raise UserError(f"there is no file of {module} in {root}")
    return Source(str(root), module, files)


def _imports(file: Path, package: list[str]) -> Iterator[str]:
    """Yield the dotted names that a file of this package imports; `from a import b` counts as a.b, for b may be a module."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as fault:
        raise UserError(f"{file}:{fault.lineno}:{fault.offset}: {fault.msg}\n  {(fault.text or '').rstrip()}") from None
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = package[: len(package) - node.level + 1] if node.level else []
            base = [*around, *([node.module] if node.module else [])]
            yield from (".".join([*base, a.name]) for a in node.names)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield all statements of a file, within others too, and not their expressions, which are most of a file."""
    ahead: list[ast.AST] = [*tree.body]
    while ahead:
        node = ahead.pop()
        yield node
        for inner in ("body", "orelse", "handlers", "finalbody", "cases"):
            ahead += getattr(node, inner, ())


def _without_study(content: bytes) -> bytes:
    """Return a file without the statement that makes its study."""
    lines = content.splitlines(keepends=True)
    for node in ast.parse(content).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(t, ast.Name) and t.id == STUDY for t in targets):
            for line in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[line] = b""
    return b"".join(lines)
