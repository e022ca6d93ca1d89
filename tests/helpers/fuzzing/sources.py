"""Study files as people type them: shipped ones with tokens dropped, swapped, renamed, and others put in."""

import io
import tokenize
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fuzzing import Target
from fuzzing.bounds import Refusal, a_home, attempt
from harness import paths, study

PIECES = ("", "(", ")", "{", "}", ",", ":", "=", "None", "latnt", "seeds=3", "range(10**7)", "1/0", "raise SystemExit(3)",
    "\n", "    ", "'", '"""',
          "\x00", "\ufeff", "import nothing", "STUDY = 3", "del STUDY", "-1", "float('nan')", "'[/red]'", "[]", "better",
              "0777", "é", "\t", "\x0c",
          "raise KeyboardInterrupt", "assert 0", "1e400", "f'{'", "lambda: 0", "exit()", "*", "**{}", "raise Exception()",
              "()", "type", "b''")  # fmt: skip


def _tokens(path: Path) -> list[str]:
    """Return a file cut into tokens and what stands between them; joined they are the file."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    starts = [sum(map(len, lines[:row])) for row in range(len(lines) + 1)]
    cuts = {0, len(text)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        cuts |= {starts[row - 1] + column for row, column in (token.start, token.end) if row <= len(lines)}
    ordered = sorted(cuts)
    return [text[a:b] for a, b in pairwise(ordered)]


FILES = {path.stem: _tokens(path) for path in sorted(paths.studies().glob("*.py")) if path.stem != "__init__"}
edit = st.tuples(st.integers(0, 10_000), st.sampled_from(("drop", "swap", "rename", "insert", "double")), st.sampled_from(PIECES))
files = st.tuples(st.sampled_from(sorted(FILES)), st.lists(edit, max_size=4))
raw = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=20).map(b"STUDY = ".__add__),
    st.text(max_size=40).map(lambda t: t.encode("utf-8", "surrogatepass")),
)


def mutated(given: tuple[str, list[tuple[int, str, str]]]) -> str:
    """Return the text of a shipped file after edits of its tokens that are no spaces."""
    tokens = list(FILES[given[0]])
    for at, kind, piece in given[1]:
        solid = [i for i, token in enumerate(tokens) if token.strip()] or [0]
        i = solid[at % len(solid)]
        if not tokens:
            break
        match kind:
            case "drop":
                tokens[i] = ""
            case "swap":
                j = solid[(at + 1) % len(solid)]
                tokens[i], tokens[j] = tokens[j], tokens[i]
            case "rename":
                tokens[i] = piece
            case "insert":
                tokens[i] = f"{tokens[i]} {piece} "
            case _:
                tokens[i] *= 1 if tokens[i].isdigit() else 2  # 66 seeds for 6 are a study, one that takes a while to list
    return "".join(tokens)


def _loaded(content: bytes) -> None:
    with a_home(written=True) as folder:
        (folder / "mine.py").write_bytes(content)
        for call in (study.questions, lambda: study.check("./mine.py", "default"), lambda: study.load("mine")):
            result: Any = attempt(call, 2)
            assert not isinstance(result, Refusal) or call is not study.questions, "one broken file takes the list of all away"


TARGETS = {
    "study file": Target(files, lambda given: _loaded(mutated(given).encode("utf-8", "surrogatepass"))),
    "bytes of a study": Target(raw, _loaded),
}
