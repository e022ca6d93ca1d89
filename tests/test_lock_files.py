"""What is locked has digests, agrees with pyproject.toml, and its licences are on the list."""

import importlib.util
import re
import tomllib
from importlib import metadata
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness import paths

LOCKS = paths.PROJECT / "locks"
ENTRY = re.compile(r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[^\s;]+).*\n(?P<digests>(?:[ \t].*\n)*)", re.M)
PROJECT = tomllib.loads((paths.PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
UNLOCKED = {"peers"}  # extras of benchmarks, which are compared within one run and not with what is on record


def entries(name: str) -> dict[str, re.Match[str]]:
    return {e["name"]: e for e in ENTRY.finditer((LOCKS / f"{name}.txt").read_text(encoding="utf-8"))}


FILES = {file.stem: entries(file.stem) for file in sorted(LOCKS.glob("*.txt"))}


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", LOCKS / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"torch"}))
def test_every_package_has_digests(name: str) -> None:
    assert FILES[name]
    assert [e["name"] for e in FILES[name].values() if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", e["digests"])] == []


def test_torch_alone_has_none_and_says_why() -> None:
    assert FILES["torch"].keys() == {"torch", "torchvision"}
    assert (LOCKS / "torch.txt").read_text(encoding="utf-8").startswith("# torch and torchvision have no digests")
    assert all(not FILES["torch"].keys() & FILES[name].keys() for name in FILES if name != "torch")


def test_a_package_has_one_version_in_all_files() -> None:
    versions: dict[str, set[str]] = {}
    for found in FILES.values():
        for name, entry in found.items():
            versions.setdefault(name, set()).add(entry["version"])
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("extra", ["", *sorted(PROJECT["optional-dependencies"].keys() - UNLOCKED)])
def test_what_the_project_asks_for_is_locked(extra: str) -> None:
    asked = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    locked = FILES["harness"] | FILES["torch"] | FILES.get(extra, {})
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        if name != PROJECT["name"]:
            assert requirement.specifier.contains(locked[name]["version"]), requirement


def test_a_file_is_of_all_machines_and_pythons() -> None:
    """Wheels of several Python versions and systems: numpy has a digest for each."""
    assert len(re.findall("--hash", FILES["harness"]["numpy"]["digests"])) > 30


def test_licences_are_on_the_list(audit: ModuleType) -> None:
    locked = {name for found in FILES.values() for name in found}
    installed = [d for d in metadata.distributions() if canonicalize_name(d.name) in locked]
    assert len(installed) > 100
    assert audit.refused(audit.licences(installed)) == {}


def test_a_licence_that_is_not_on_the_list_is_refused(audit: ModuleType) -> None:
    assert audit.refused({"a": "MIT", "b": "MIT OR (AGPL-3.0-only AND MIT)", "c": ""}) == {
        "b": "MIT OR (AGPL-3.0-only AND MIT)",
        "c": "none stated",
    }


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "1 of 1 packages audited, 0 known vulnerabilities"),
        ([{"name": "a", "skip_reason": "not found"}], 4, "0 of 1 packages audited"),
        ([{"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}], 1, "VULNERABLE: a 1: X-1, mended in 2"),
    ],
)
def test_nothing_audited_is_no_pass(
    answers: list[dict],
    code: int,
    said: str,
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(audit, "advisories", lambda lock: answers)
    monkeypatch.setattr(audit, "refused", lambda found: {})
    assert audit.main() == code
    assert said in capsys.readouterr().out
