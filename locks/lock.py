"""Write the lock files of this folder: the packages of each environment, at one version each, with the digests of all their files.

    python locks/lock.py                    the versions that are locked, for what pyproject.toml asks for now
    python locks/lock.py --upgrade mlflow   this package may be another one

A file serves Linux, macOS and Windows and all Python versions that pyproject.toml allows. It needs uv, which `make lock` installs.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent
PROJECT = FOLDER.parent
OLDEST_PYTHON = "3.11"
UNHASHED = ("torch", "torchvision")
CUDA = re.compile(r"nvidia-|cuda-|triton$")
BLOCK = re.compile(r"^(?P<name>[\w.-]+)(\[[\w,-]+\])?==(?P<version>[^\s;\\]+).*\n(?:[ \t].*\n)*", re.M)

# What each file is for, and the extras whose packages stand in it, of which those of `BASE` are left out of all others.
BASE = "harness"
FILES = {
    BASE: ("the harness and what builds it", ["build"]),
    "dev": ("beyond harness: make test, make check, make bench", ["dev"]),
    "ray": ("beyond harness: EXECUTOR=ray", ["ray"]),
    "slurm": ("beyond harness: EXECUTOR=slurm", ["slurm"]),
    "docs": ("beyond harness: make docs", ["docs"]),
    "audit": ("beyond harness: make audit, make lock", ["audit"]),
    "postgres": ("beyond harness: STORAGE=postgresql+psycopg://...", ["postgres"]),
}
TORCH = """\
# torch and torchvision have no digests here: their builds differ by machine (CPU, CUDA, ROCm), each with files of its own, and
# which one pip takes is the user's choice. What the CUDA build brings has digests, in cuda.txt.
"""
CUDA_IS = "what torch's CUDA build for Linux brings; taken if the installed torch asks for it"
SERVERS_ARE = "a node of a Ray cluster, deploy/Dockerfile"


def compiled(extras: Iterable[str], upgrade: Iterable[str], *, constraints: str = "") -> dict[str, str]:
    """Return the entry of every package of the project with these extras by name, at versions locked or constrained before."""
    with tempfile.TemporaryDirectory() as folder:
        output, limits = Path(folder) / "locked.txt", Path(folder) / "constraints.txt"
        output.write_text("".join(file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.txt"))), encoding="utf-8")
        limits.write_text(constraints, encoding="utf-8")
        command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet", "--universal", "--generate-hashes"]
        command += ["--python-version", OLDEST_PYTHON, "--constraint", str(limits), "--output-file", str(output)]
        command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        command += [argument for extra in extras for argument in ("--extra", extra)]
        command += [argument for package in upgrade for argument in ("--upgrade-package", package)]
        subprocess.run(command, cwd=PROJECT, check=True)
        return {block["name"]: block[0] for block in BLOCK.finditer(output.read_text(encoding="utf-8"))}


def write(name: str, what: str, blocks: Iterable[str]) -> None:
    """Write a file of this folder."""
    text = f"# Written by `make lock`. {what[0].upper()}{what[1:]}.\n" + "".join(blocks)
    (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")


def main() -> None:
    """Write all files."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--upgrade", action="append", default=[], metavar="PACKAGE")
    upgrade = options.parse_args().upgrade
    everything = compiled([extra for _, extras in FILES.values() for extra in extras], upgrade)
    pins = {name: re.sub(r"[ \\\n].*", "", block, flags=re.S) for name, block in everything.items()}
    constraints = "\n".join(pins.values())
    found = {name: compiled(extras, upgrade, constraints=constraints) for name, (_, extras) in FILES.items()}
    for name, (what, _) in FILES.items():
        # what the base has on some machines only, such as Windows, and this one everywhere stands in both
        mine = {p for p, block in found[name].items() if name == BASE or block != found[BASE].get(p)}
        write(name, what, (found[name][p] for p in sorted(mine) if p not in UNHASHED and not CUDA.match(p)))
    servers = compiled(["postgres", "ray", "build"], upgrade, constraints=constraints)
    write("servers", SERVERS_ARE, (block for p, block in servers.items() if p not in UNHASHED and not CUDA.match(p)))
    write("cuda", CUDA_IS, (block for p, block in everything.items() if CUDA.match(p)))
    (FOLDER / "torch.txt").write_text(TORCH + "".join(f"{pins[p]}\n" for p in UNHASHED), encoding="utf-8")


if __name__ == "__main__":
    main()
