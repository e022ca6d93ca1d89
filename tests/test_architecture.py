"""The house's plan as a test: imports go down the stairs, and each third party has one door."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from harness import paths

HARNESS = paths.PROJECT / "harness"

# From the cellar up. A room imports from lower steps only.
STAIRS = (
    {"errors", "paths", "lanes"},
    {"likelihoods", "networks", "optim", "stats", "shared_view", "display", "vision"},
    {"tables", "manifest", "stores", "engine"},
    {"spec", "products"},
    {"vae", "data", "study"},
    {"objectives"},
    {"metrics", "desk", "tracking", "winner", "program", "checkpoints", "borders"},
    {"figures", "chunks", "validation"},
    {"cohort"},
    {"executors", "planner", "report", "doctor", "ui", "bench"},
    {"run"},
    {"cli"},
)
STEP = {room: step for step, rooms in enumerate(STAIRS) for room in rooms}
DOORS = {
    "optuna": {"desk"},
    "mlflow": {"tracking"},
    "scipy": {"stats"},
    "torchvision": {"vision"},
    "ray": {"executors"},
    "submitit": {"executors"},
    "sqlalchemy": {"stores"},
    "psycopg": {"stores"},
    "alembic": {"tracking"},
}


def files() -> list[Path]:
    return sorted(HARNESS.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(HARNESS).parts[0].removesuffix(".py")


ROOMS = sorted({room_of(f) for f in files()} - {"__init__"})


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
    return frozenset(
        name for f in files() if room_of(f) == room for name in imports(ast.parse(f.read_text(encoding="utf-8")), top_level_only)
    )


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
    return seen | parties


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
        ("cli", {"torch", "optuna", "mlflow"}),
        ("cohort", {"mlflow", "optuna", "desk", "tracking"}),
        ("executors", {"mlflow", "optuna", "desk", "tracking"}),
        ("vae", {"engine", "data"}),
        ("stats", {"torch"}),
    ],
)
def test_closed_doors(room: str, never: set[str]) -> None:
    assert not closure(room) & never


def test_only_the_engine_names_gpus() -> None:
    for file in files():
        if room_of(file) == "engine":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"cuda(:\d*)?", node.value)
            # torchvision's door asks which build of torch this is, not for a device.
            called = isinstance(node, ast.Attribute) and node.attr == "cuda" and room_of(file) != "vision"
            assert not named, f"{file.name}:{node.lineno}"
            assert not called, f"{file.name}:{node.lineno}"


@pytest.mark.parametrize("file", sorted(paths.studies().glob("*.py")), ids=lambda f: f.stem)
def test_studies_know_spec_and_study_only(file: Path) -> None:
    names = imports(ast.parse(file.read_text(encoding="utf-8")))
    assert rooms_in(names) <= {"spec", "study", "stats"}
    assert not {n.split(".")[0] for n in names} & {"torch", "mlflow", "optuna"}
