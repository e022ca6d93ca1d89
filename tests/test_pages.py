"""What the pages show is what there is: every command in them parses, what is cheap runs, links lead somewhere.

A block of code says its language. Commands of `sh` are held against the parser of `harness`, against make and against the files
that they name; those after `<!-- run in order -->` run here. Blocks of Python run here, or name the file that they show.
Whatever does neither has `<!-- not run: why -->` in front.
"""

import ast
import doctest
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import fields
from itertools import dropwhile, groupby, takewhile
from pathlib import Path
from typing import NamedTuple

import metrics_page
import pytest

from harness import cli, paths, study
from harness.scores import SCORES
from harness.spec import TrialSpec

DOCS = paths.PROJECT / "docs"
PAGES = [
    *(paths.PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
    *sorted(set(DOCS.glob("*.md")) - {DOCS / "log.md"}),  # decisions of their day, which name what there was then
]
FENCE = re.compile(r"^(?:<!-- (?P<mark>[^>]+) -->\n)?```(?P<language>\w*)(?P<title>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
LANGUAGES = {"sh", "python", "pycon", "toml", "text"}
NOT_RUN, IN_ORDER = "not run: ", "run in order"
BAD_INPUTS = re.compile(r"^\| (?:row|R)\d+ .*$", re.M)  # of docs/reliability.md, each with tests of its own
SHOWN = re.compile(r"(?<!`)`((?:make|harness) [^`]+)`(?!`)")
STANDS_FOR_ANOTHER = re.compile(r"\.\.\.|\b(?:STUDY|PYTHON)\b")
OF_A_STUDY = {"study", "report", "plan", "doctor", "verify", "replay", "freeze"}
SHIPPED = set(study.names())


class Block(NamedTuple):
    """A block of code of a page; the mark is the comment in front of it, the title what stands beside its language."""

    page: str
    mark: str
    language: str
    title: str
    text: str


def prose(file: Path) -> str:
    """Return a page without its blocks of code."""
    return FENCE.sub("", flush(file))


def flush(file: Path) -> str:
    """Return a page whose blocks within lists begin at the first column."""
    lines, inside = [], ""
    for line in file.read_text(encoding="utf-8").splitlines():
        begins = re.match(r"( *)(?:```|<!-- )", line)
        inside = begins[1] if begins and not inside else inside
        lines.append(line.removeprefix(inside))
        inside = "" if line.strip() == "```" else inside
    return "\n".join(lines) + "\n"


def blocks(file: Path) -> list[Block]:
    """Return the blocks of code of a page."""
    return [Block(file.name, f["mark"] or "", f["language"], f["title"].strip(), f["text"]) for f in FENCE.finditer(flush(file))]


BLOCKS = [block for file in PAGES for block in blocks(file)]


def commands(text: str) -> list[list[str]]:
    """Return the words of every command of a block: no comments, lines that go on joined, those beside && apart."""
    lines = (shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines())
    return [list(words) for line in lines for and_, words in groupby(line, "&&".__eq__) if not and_]


def bare(words: list[str]) -> list[str]:
    """Return a command without the variables in front of it and without the folder that make is to go to."""
    words = list(dropwhile(re.compile("[A-Z_]+=").match, words))
    return ["make", *words[3:]] if words[:2] == ["make", "-C"] else words


def written() -> dict[str, list[str]]:
    """Return the words of all commands of the pages by their text. A block that is not run may hold other programs too."""
    found = {}
    for block in BLOCKS:
        if block.language == "sh":
            own = [bare(words) for words in commands(block.text)]
            found |= {shlex.join(w): w for w in own if not block.mark.startswith(NOT_RUN) or w[:1] in (["make"], ["harness"])}
    for file in PAGES:
        text = BAD_INPUTS.sub("", prose(file))
        found |= {shlex.join(w): w for w in map(shlex.split, SHOWN.findall(text)) if not STANDS_FOR_ANOTHER.search(" ".join(w))}
    return found


WRITTEN = written()


def parsed(words: list[str]) -> None:
    """Hold a command of the harness against its parser, and the study that it names against the studies that there are."""
    if words == ["--version"]:
        return
    options = cli.parser().parse_args(words)
    if options.command in OF_A_STUDY and options.name in SHIPPED:
        arms = tuple(filter(None, getattr(options, "arms", "").split(",")))
        loaded = study.load(options.name + str(study.Overrides(tuple(getattr(options, "set", ())), arms)))
        assert (options.budget or "default") in loaded.study.budgets


def made(words: list[str]) -> list[list[str]]:
    """Return the commands of the harness that make would run; make itself refuses targets and variables that it does not have."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    command = ["make", "-n", "-o", ".venv/.ready", *words]
    done = subprocess.run(command, cwd=paths.PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines() if "bin/harness " in line]
    commands = [list(dropwhile(lambda word: not word.endswith("bin/harness"), line))[1:] for line in lines]
    return [list(takewhile(lambda word: not re.match("[|>&]", word), command)) for command in commands]


@pytest.mark.parametrize("command", WRITTEN)
def test_a_command_of_the_pages_is_one(command: str) -> None:
    match WRITTEN[command]:
        case ["harness", *rest]:
            parsed(rest)
        case ["make", *rest]:
            for words in made(rest):
                parsed(words)
        case ["python", file, *_]:
            assert (paths.PROJECT / file).is_file()
        case _:
            pytest.fail(f"neither make nor harness nor a file of Python: mark its block with <!-- {NOT_RUN}why -->")


def test_commands_are_found_in_blocks_lists_and_sentences() -> None:
    assert len(WRITTEN) > 60
    assert {"harness init", "make plant", "make bench-gpu", "make compare A=loss_ablation@smoke B=../before"} <= WRITTEN.keys()


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_every_block_has_a_language_and_no_code_stands_beside_the_blocks(file: Path) -> None:
    assert {block.language for block in blocks(file)} <= LANGUAGES
    assert all(block.mark in ("", IN_ORDER) or re.match(f"{NOT_RUN}\\w+ ", block.mark) for block in blocks(file))
    text = prose(file)
    assert "```" not in text
    assert re.findall(r"^ {4,}\S.*$", re.sub(r"^ *[-*] .*\n(?: +.*\n)*", "", text, flags=re.M), re.M) == []


@pytest.mark.slow
def test_what_is_to_run_in_order_does(home: Path, mlflow_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)  # the record lies in the working folder, as it does for who sets nothing
    (block,) = (block for block in BLOCKS if block.mark == IN_ORDER)
    for _, *words in commands(block.text):
        here = ["--executor", "local", "--device", "cpu"] if words[0] == "study" else []  # quicker than workers that import torch
        assert cli.main([*words, *here]) == 0, words


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language == "python" and not block.mark and not block.title],
    ids=lambda block: f"{block.page}: {block.text.splitlines()[0]}",
)
def test_python_of_the_pages_runs(block: Block, tmp_path: Path) -> None:
    if "STUDY = " in block.text:
        file = tmp_path / "mine.py"
        file.write_text(block.text, encoding="utf-8")
        assert {"smoke", "default"} <= set(study.load(str(file)).study.budgets)
    else:
        namespace: dict[str, object] = {}
        exec(block.text, namespace)
        assert namespace["images"].shape == (16, 8, 8)
        assert namespace["mean"].shape == (300, 2)


def test_what_a_session_shows_is_what_python_says() -> None:
    for page in {block.page for block in BLOCKS if block.language == "pycon"}:
        text = "\n".join(block.text for block in BLOCKS if block.page == page and block.language == "pycon")
        runner = doctest.DocTestRunner()
        runner.run(doctest.DocTestParser().get_doctest(text, {}, page, page, 0))
        assert runner.summarize(verbose=False).attempted > 10
        assert runner.summarize(verbose=False).failed == 0


def anchors(file: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = (re.sub(r"[`*]|\]\(.*?\)|\[", "", h).strip().lower() for h in re.findall(r"^#+ (.+)$", prose(file), re.M))
    return {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_links_lead_to_what_is_there(file: Path) -> None:
    links = re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)", prose(file))
    targets = [((file.parent / path).resolve() if path else file, anchor) for path, anchor in links]
    assert [target for target, _ in targets if not target.exists()] == []
    assert [(target.name, anchor) for target, anchor in targets if anchor and anchor not in anchors(target)] == []


def test_the_page_of_scores_is_what_the_rows_say() -> None:
    page = metrics_page.PAGE.read_text(encoding="utf-8")
    assert metrics_page.written(page) == page, "python tests/helpers/metrics_page.py"
    assert [key for key, about in metrics_page.ROW.findall(page) if about.strip()] == [
        row.key for group in dict.fromkeys(row.group for row in SCORES.values()) for row in SCORES.values() if row.group == group
    ]
    assert doctest.testmod(metrics_page).failed == 0


def test_the_page_on_studies_lists_every_field_with_its_default() -> None:
    section = (DOCS / "studies.md").read_text(encoding="utf-8").partition("## Fields of a trial")[2]
    table = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", section, re.M)
    defaults = {
        field.name: dict(field.default) if isinstance(field.default, Mapping) else field.default for field in fields(TrialSpec)
    }
    assert {name: ast.literal_eval(value) for name, value in table} == defaults


def test_the_citation_has_the_version_and_the_day_of_its_release() -> None:
    cited = (paths.PROJECT / "CITATION.cff").read_text(encoding="utf-8")
    (version,), (day,) = (re.findall(rf"^{key}: (\S+)$", cited, re.MULTILINE) for key in ("version", "date-released"))
    assert f'version = "{version}"' in (paths.PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"## {version} - {day}\n" in (paths.PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
