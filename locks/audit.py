"""Hold what is locked against known vulnerabilities and its licences against licences.toml.

    python locks/audit.py

It ends with 1 if a package has a known vulnerability or a licence that is not on the list, and with 4 if no source answered for one
of them: a package that nobody looked up is not one without vulnerabilities. It needs pip-audit, as `make audit` has it.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).parent


def declared(package: metadata.Distribution) -> list[str]:
    """Return what a package says of its licence: an SPDX expression if it has one, else its classifiers, else its licence field."""
    facts = package.metadata
    if "License-Expression" in facts:
        return [facts["License-Expression"]]
    classifiers = [c.split(" :: ")[-1] for c in facts.get_all("Classifier") or [] if c.startswith("License :: ")]
    return [c for c in classifiers if c != "OSI Approved"] or (facts.get("License") or "").strip().splitlines()[:1]


def licences(packages: Iterable[metadata.Distribution]) -> dict[str, str]:
    """Return the SPDX expression of each package by name; "" where it has none that is known."""
    known = tomllib.loads((FOLDER / "licences.toml").read_text(encoding="utf-8"))
    found = {}
    for package in packages:
        said = [known["declared"].get(words, words) for words in declared(package)]
        found[package.name] = known["packages"].get(package.name, " AND ".join(dict.fromkeys(said)))
    return found


def refused(found: dict[str, str]) -> dict[str, str]:
    """Return the packages whose licence is unknown or not on the list, which for NVIDIA's packages is longer."""
    known = tomllib.loads((FOLDER / "licences.toml").read_text(encoding="utf-8"))
    allowed = {name: {*known["allowed"], *(known["closed"] if name.startswith("nvidia-") else ())} for name in found}
    parts = {
        name: set(re.split(r" (?:AND|OR|WITH) ", expression.replace("(", "").replace(")", "")))
        for name, expression in found.items()
    }
    return {name: found[name] or "none stated" for name, ids in parts.items() if not ids <= allowed[name]}


def advisories(lock: Path) -> list[dict]:
    """Return what the advisory source answered for each package of a lock file, as pip-audit prints it."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--no-deps", "--disable-pip"]
    done = subprocess.run([*command, "--progress-spinner", "off", "--format", "json"], capture_output=True, text=True, check=False)
    if not done.stdout:
        sys.exit(f"pip-audit ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout)["dependencies"]


def main() -> int:
    """Print both findings and return the exit code."""
    found = licences(metadata.distributions())
    counts = Counter(found.values())
    print(f"licences of {len(found)} installed packages: {', '.join(f'{spdx} {n}' for spdx, n in counts.most_common())}")
    bad = refused(found)
    for name, licence in bad.items():
        print(f"NOT ON THE LIST: {name}: {licence}; licences.toml says which are")
    answers = {row["name"]: row for lock in sorted(FOLDER.glob("*.txt")) for row in advisories(lock)}
    audited = [row for row in answers.values() if "vulns" in row]
    vulnerable = [(row, v) for row in audited for v in row["vulns"]]
    for row, v in vulnerable:
        print(f"VULNERABLE: {row['name']} {row['version']}: {v['id']}, mended in {', '.join(v['fix_versions']) or 'no version'}")
    print(f"advisories: {len(audited)} of {len(answers)} packages audited, {len(vulnerable)} known vulnerabilities")
    if len(audited) < len(answers):
        print("the others were NOT audited, which is no pass: no advisory source answered for them")
    return 1 if bad or vulnerable else 4 if len(audited) < len(answers) else 0


if __name__ == "__main__":
    sys.exit(main())
