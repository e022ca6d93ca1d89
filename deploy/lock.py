"""Write the locks of all packages from what is installed: `make lock`.

`requirements.lock` holds what the harness and its `dev` extra need, `requirements-<extra>.lock` what each other extra adds, with
the digests of all files that the package index has of a version: wheels of every platform and Python, and its source.

torch and torchvision stand apart in `requirements-torch.lock`, without digests: which of their builds is right (CPU, one CUDA or
another, one of your own) differs by machine, and so do their files and the libraries that torch brings.
"""

import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parent.parent
APART = ("torch", "torchvision")
OF_TORCH = ("cuda-", "nvidia-", "triton")  # what its CUDA builds bring
EXTRAS = ("ray", "slurm", "postgres")
HEAD = "# Written by `make lock` from what was installed; deploy/lock.py says what stands where.\n"
REASON = "# No digests: the builds of these two, and what torch brings, differ by machine (CPU, CUDA).\n"


def closure(requirements: Iterable[str]) -> set[str]:
    """Return the names of all installed packages that these requirements lead to on this machine."""
    seen: set[tuple[str, str]] = set()
    remaining = [Requirement(r) for r in requirements]
    while remaining:
        requirement = remaining.pop()
        for extra in ("", *requirement.extras):
            key = canonicalize_name(requirement.name), extra
            if key in seen:
                continue
            seen.add(key)
            wanted = map(Requirement, metadata.requires(requirement.name) or ())
            remaining += [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen if not name.startswith(OF_TORCH)}


def hashed(names: Iterable[str]) -> str:
    """Return the lines of a lock for the installed versions of these packages, with digests."""
    pins = "\n".join(f"{name}=={metadata.version(name)}" for name in sorted(names))
    options = "--quiet --universal --no-deps --no-header --no-annotate --no-emit-index-url --generate-hashes --python-version 3.11"
    command = [sys.executable, "-m", "uv", "pip", "compile", *options.split(), "-"]
    return subprocess.run(command, input=pins, text=True, check=True, stdout=subprocess.PIPE).stdout


def main() -> None:
    """Write all locks."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    base = closure([*project["project"]["dependencies"], *extras["dev"], *project["build-system"]["requires"]])
    locks = {"requirements": hashed(base - set(APART))}
    for extra in EXTRAS:
        locks[f"requirements-{extra}"] = hashed(closure(extras[extra]) - base)
    versions = (f"{name}=={metadata.version(name).partition('+')[0]}\n" for name in APART)
    locks["requirements-torch"] = REASON + "".join(versions)
    for name, text in locks.items():
        (PROJECT / f"{name}.lock").write_text(HEAD + text, encoding="utf-8")


if __name__ == "__main__":
    main()
