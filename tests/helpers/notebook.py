"""Run the code cells of a notebook in order, in the working folder: `python notebook.py tour.ipynb`.

`%%writefile` and lines that begin with `!` do what they do in a notebook; `!harness` is the harness that this Python imports.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path


def cells(notebook: Path) -> list[str]:
    """Return the code cells."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


def as_python(cell: str) -> str:
    """Return a cell as plain Python."""
    first, _, rest = cell.partition("\n")
    if first.startswith("%%writefile "):
        return f"Path({first.split()[1]!r}).write_text({rest + chr(10)!r}, encoding='utf-8')"
    return "\n".join(f"shell({line[1:]!r})" if line.startswith("!") else line for line in cell.split("\n"))


def shell(line: str) -> None:
    """Run a command, which must succeed."""
    program, *arguments = shlex.split(line)
    command = [sys.executable, "-m", "harness.cli"] if program == "harness" else [program]
    subprocess.run([*command, *arguments], check=True)


if __name__ == "__main__":
    namespace = {"Path": Path, "shell": shell}
    for number, cell in enumerate(cells(Path(sys.argv[1])), start=1):
        exec(compile(as_python(cell), f"cell {number}", "exec"), namespace)
