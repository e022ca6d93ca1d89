"""The house's plan as a test: imports go down the stairs, third parties have one door each, and a stranger finds the rooms."""

import ast
import re
import sys
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

from harness import paths
from harness.scores import SCORES, row_of

HARNESS = paths.PROJECT / "harness"

# From the cellar up. A room imports from lower steps only.
STAIRS = (
    {"errors", "paths"},
    {"provenance", "resources", "stats", "stores", "references", "scores", "arguments"},
    {"devices", "catalog", "defence"},
    {"spec", "kernels"},
    {"models", "data"},
    {"metrics"},
    {"figures", "testing"},
    {"training", "study"},
    {"plans"},
    {"executors", "queue", "tracking"},
    {"evidence"},
    {"report", "doctor"},
    {"runner"},
    {"bench"},
    {"api", "cli"},
    {"__main__"},
)
STEP = {room: step for step, rooms in enumerate(STAIRS) for room in rooms}
DOORS = {
    "optuna": {"queue"},
    "mlflow": {"tracking"},
    "scipy": {"stats", "metrics"},
    "torchvision": {"data"},
    "PIL": {"data"},
    "ray": {"executors"},
    "submitit": {"executors"},
    "sqlalchemy": {"stores"},
    "psycopg": {"stores"},
    "alembic": {"tracking"},
}
LOOSE = 10  # modules beside the folders, at most
POSITIONAL = 6  # values that a function takes by position, at most
# Names of other libraries that begin with an underscore, each in one module; docs/log.md says with which versions they were tried.
PRIVATE = {
    "kernels/torch_internals.py": {"_inductor", "_guards", "_subclasses", "_fused_adam_", "_fused_adamw_"}
    | {f"_foreach_{name}" for name in ("add", "addcmul_", "div", "lerp_", "mul", "mul_", "sqrt", "sub_")},
    "kernels/operators.py": {"_C"},
    "bench/gpu/times.py": {"_inductor"},
    "cli/shell.py": {"_actions"},
    "bench/counts.py": {"_python_dispatch", "_pytree", "_cdata"},
    "queue/optuna_internals.py": {"_storage", "_study_id", "_trial_id", "_get_stale_trial_ids", "_try_initialization"}
    | {"_cached_storage", "_CachedStorage"},
    "tracking/library.py": {"_initialize_tables", "_get_alembic_config", "_to_mlflow_entity"}
    | {"_tracking_service", "_artifact_repos_cache"},
}
PUBLIC = {"_replace", "_fields", "_asdict", "_exit"}  # of named tuples, and of os


def files() -> list[Path]:
    return sorted(HARNESS.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(HARNESS).parts[0].removesuffix(".py")


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


ROOMS = sorted({room_of(f) for f in files()} - {"__init__"})
FOLDERS = sorted({f.parent for f in files()} - {HARNESS})


def imports(tree: ast.AST, top_level_only: bool = False) -> set[str]:
    """Dotted names that a file imports; `from a import b` counts as a.b, for b may be a module."""
    nodes = tree.body if top_level_only and isinstance(tree, ast.Module) else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the stairs"
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return found


@cache
def imported(room: str, top_level_only: bool = False) -> frozenset[str]:
    return frozenset(name for f in files() if room_of(f) == room for name in imports(tree_of(f), top_level_only))


def rooms_in(names: frozenset[str] | set[str]) -> set[str]:
    return {n.split(".")[1] for n in names if n.startswith("harness.")} & set(ROOMS)


def closure(room: str) -> set[str]:
    """Everything that importing a room loads: rooms and third parties."""
    ahead, seen, parties = [room], set(), set()
    while ahead:
        here = ahead.pop()
        seen.add(here)
        names = imported(here, top_level_only=True)
        parties |= {n.split(".")[0] for n in names}
        ahead += rooms_in(names) - seen
    return seen | (parties - sys.stdlib_module_names)


# -------------------------------------------------------------------------------- stairs and doors


def test_every_room_stands_on_a_step() -> None:
    assert set(ROOMS) == set(STEP), "a new room: give it a step in STAIRS"


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_down_the_stairs(room: str) -> None:
    up = {other for other in rooms_in(imported(room)) - {room} if STEP[other] >= STEP[room]}
    assert not up


@pytest.mark.parametrize("party", DOORS)
def test_a_third_party_has_one_door(party: str) -> None:
    users = {room for room in ROOMS if any(n.split(".")[0] == party for n in imported(room))}
    assert users == DOORS[party]


@pytest.mark.parametrize(
    ("room", "never"),
    [
        ("study", {"torch", "optuna", "mlflow", "numpy"}),
        ("spec", {"torch", "numpy"}),
        ("references", {"torch", "numpy", "catalog"}),
        ("scores", {"torch", "numpy", "spec"}),
        ("cli", {"torch", "optuna", "mlflow"}),
        ("training", {"mlflow", "optuna", "queue", "tracking"}),
        ("executors", {"mlflow", "optuna", "queue", "tracking"}),
        ("queue", {"torch", "mlflow", "tracking"}),
        ("models", {"devices", "data", "training"}),
        ("kernels", {"models", "training"}),
        ("stats", {"torch"}),
        ("report", {"training", "executors"}),
        ("api", {"optuna", "queue", "report", "runner"}),
    ],
)
def test_closed_doors(room: str, never: set[str]) -> None:
    assert not closure(room) & never


def test_only_devices_names_gpus() -> None:
    for file in files():
        if room_of(file) in ("devices", "resources"):  # resources.py judges their names before torch is imported
            continue
        for node in ast.walk(tree_of(file)):
            named = isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"cuda(:\d*)?", node.value)
            # torchvision's door asks which build of torch this is, not for a device.
            called = isinstance(node, ast.Attribute) and node.attr == "cuda" and file.name != "torchvision_door.py"
            assert not named, f"{file.name}:{node.lineno}"
            assert not called, f"{file.name}:{node.lineno}"


@pytest.mark.parametrize("file", sorted(paths.studies().glob("*.py")), ids=lambda f: f.stem)
def test_studies_know_spec_and_study_only(file: Path) -> None:
    names = imports(tree_of(file))
    assert rooms_in(names) <= {"spec", "study", "stats"}
    assert not {n.split(".")[0] for n in names} & {"torch", "mlflow", "optuna"}


# -------------------------------------------------------------------------------- what a stranger sees


def test_few_modules_stand_beside_the_folders() -> None:
    loose = sorted(f.name for f in HARNESS.glob("*.py"))
    assert len(loose) <= LOOSE, loose


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: str(f.relative_to(HARNESS)))
def test_a_folder_says_in_a_paragraph_what_it_is_for(folder: Path) -> None:
    words = ast.get_docstring(tree_of(folder / "__init__.py")) or ""
    title, _, paragraph = words.partition("\n\n")
    assert title.endswith(".")
    assert len(paragraph.split()) >= 15, f"{folder.name}/__init__.py: say what comes in, what goes out and what must not enter"


# -------------------------------------------------------------------------------- habits


def called_by_position(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    names = [a.arg for a in chain(function.args.posonlyargs, function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


@pytest.mark.parametrize("room", ROOMS)
def test_no_function_takes_many_values_by_position(room: str) -> None:
    for file in files():
        for node in ast.walk(tree_of(file)) if room_of(file) == room else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = called_by_position(node)
                assert len(names) <= POSITIONAL, f"{file.name}:{node.lineno}: {node.name} takes {len(names)}: {', '.join(names)}"


def fields_by_position(node: ast.ClassDef) -> int:
    """How many values a dataclass's constructor takes by position."""
    for decorator in node.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        name = ast.unparse(call.func if call else decorator)
        if name.endswith("dataclass"):
            named = call is not None and any(k.arg == "kw_only" for k in call.keywords)
            own = [n for n in node.body if isinstance(n, ast.AnnAssign) and "ClassVar" not in ast.unparse(n.annotation)]
            return 0 if named else len([n for n in own if n.value is None])
    return 0


@pytest.mark.parametrize("room", ROOMS)
def test_constructors_of_many_values_take_names(room: str) -> None:
    for file in files():
        for node in ast.walk(tree_of(file)) if room_of(file) == room else ():
            if isinstance(node, ast.ClassDef):
                count = fields_by_position(node)
                assert count <= POSITIONAL - 1, f"{file.name}:{node.lineno}: {node.name} takes {count} values without names"


# Where the key of a metric may stand as a literal: in its row, and in the one function that computes it.
COMPUTED = {
    "metrics/evaluation.py": "the final scores",
    "metrics/pictures.py": "those of them that take no likelihood",
    "metrics/diagnostics.py": "noise and effective beta",
    "training/batches.py": "an epoch's terms and step times",
    "training/validation.py": "an epoch's terms on validation images",
    "training/cohort.py": "an epoch's gradient norm and images/s",
    "executors/parts.py": "what a trial cost",
}
LIKE_A_KEY = re.compile(r"(test|validation|elbo|recon|kl|objective|perf|diagnostics|dead_units|kl_per_latent|model)/(\w+)?")
A_KEY = re.compile("|".join(rf"(?<!\w){re.escape(key)}(?!\w)" for key in SCORES))


def strings_of(tree: ast.AST) -> list[tuple[int, str]]:
    """Line and text of every string of a file that is no docstring."""
    words = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in words
    ]


def keys_in(file: Path) -> list[tuple[int, str]]:
    return [(line, text) for line, text in strings_of(tree_of(file)) if LIKE_A_KEY.fullmatch(text) or A_KEY.search(text)]


def test_a_metric_key_stands_in_its_row_and_where_it_is_computed() -> None:
    for file in files():
        name = str(file.relative_to(HARNESS))
        if name not in COMPUTED and room_of(file) != "scores":
            assert not keys_in(file), f"{name}: take the row from harness.scores.rows"


def test_what_is_computed_has_a_row_and_is_computed_in_one_place() -> None:
    literals = [(name, text) for name in COMPUTED for _, text in keys_in(HARNESS / name)]
    for name, text in literals:
        # The beginning of a key that is put together: "test/iw_", "test/", "dead_units/".
        assert row_of(text, SCORES) or any(key.startswith(text) for key in SCORES), f"{name}: {text}"
    whole = [text for _, text in literals if text in SCORES]
    assert len(set(whole)) >= 30
    assert len(set(whole)) == len(whole)


def defined_here(tree: ast.AST) -> set[str]:
    """Names with an underscore that a file itself makes: functions, classes, attributes, variables."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def private_names(file: Path) -> set[str]:
    """Names with one underscore in front that a file takes from elsewhere."""
    tree, found = tree_of(file), set()
    for name in imports(tree):
        if not name.startswith("harness."):
            found |= {part for part in name.split(".") if re.match(r"_[^_]", part)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr):
            found.add(node.attr)
    return found - defined_here(tree) - PUBLIC


def test_private_names_of_other_libraries_have_one_door_each() -> None:
    taken = {str(f.relative_to(HARNESS)): names for f in files() if (names := private_names(f))}
    assert taken == PRIVATE


@pytest.mark.parametrize("room", ROOMS)
def test_importing_a_room_changes_nothing_global(room: str) -> None:
    """No environment, no backend of matplotlib, no warning filter is set by an import."""
    wanted = re.compile(
        r"(os\.environ|environ)(\[|\.setdefault|\.update)|os\.putenv|\.use\(|warnings\.(simple)?filter|\.setLevel\("
    )
    for file in files():
        for node in tree_of(file).body if room_of(file) == room else ():
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
                assert not wanted.search(ast.unparse(node)), f"{file.name}:{node.lineno}"
