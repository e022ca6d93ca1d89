"""The command line: lists of real commands, options and values, and garbage, up to where work would begin."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
from hypothesis import strategies as st

from fuzzing import Target
from fuzzing.bounds import a_home, few_calls
from fuzzing.overrides import KEYS, STUDIES, VALUES
from fuzzing.values import changed, texts
from harness import cli, doctor, report, study
from harness.cli import benchmarks
from harness.evidence import replay, verify
from harness.runner import commands, outcome
from harness.tracking import server

COMMANDS = ("study", "report", "plan", "verify", "replay", "doctor", "list", "init", "ui", "bench", "data", "runs", "help",
    "completion", "studdy", "")  # fmt: skip
OPTIONS = ("--set", "--arms", "--budget", "--device", "--workers", "--workers-per-gpu", "--executor", "--runs", "--port",
    "--from", "--buget", "--", "-h",
           "--version", "--storage", "--set=latent=3", "--arms=bce")  # fmt: skip
WORDS = ("smoke", "full", "cpu", "cuda:9", "auto", "processes", "ray", "0", "-1", "99999999999", "bce,mse", "latent=10",
    "compare", "counts", "x.py",
         "sqlite:///x", "postgresql+psycopg://u:p@h:x/d", "shapes")  # fmt: skip
# Where commands begin to work: module, name.
WORK: tuple[tuple[Any, str], ...] = (
    (commands, "run_study"), (outcome, "report_study"), (report, "show_plan"), (doctor, "examine"), (verify, "verify"),
    (replay, "replay"), (study, "write_first"), (server, "serve"), (benchmarks, "benchmark"),
)  # fmt: skip

word = st.one_of(
    st.sampled_from((*OPTIONS, *WORDS, *STUDIES)),
    st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from(VALUES)),
    changed(st.sampled_from((*OPTIONS, *WORDS, *STUDIES)), texts),
)
pairs = st.tuples(st.sampled_from(OPTIONS), word).map(list)
lines = st.builds(
    lambda command, name, rest: [command, name, *(word for pair in rest for word in pair)],
    st.sampled_from(COMMANDS), st.one_of(st.sampled_from(STUDIES), word), st.lists(st.one_of(pairs, word.map(lambda w: [w])),
        max_size=3),
)  # fmt: skip
VARIABLES = (
    "HARNESS_KERNELS",
    "HARNESS_HOME",
    "HARNESS_DATA",
    "COLUMNS",
    "PYTHONIOENCODING",
    "NO_COLOR",
    "TERM",
    "HARNESS_COMMAND",
    "HARNESS_ARTIFACTS",
)
environment = st.dictionaries(
    st.sampled_from(VARIABLES),
    st.one_of(st.sampled_from(("", "off", "x", "²", "/nothing/%20", "-1", "0", "~nobody/x", "a" * 5_000)),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)),
    max_size=2,
)  # fmt: skip


def run(arguments: list[str], **variables: str) -> tuple[int, str]:
    """Return the exit code of a command that stops where it would begin to work, and what it said on the error channel."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict") for _ in "oe")
    with a_home(**variables), pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for module, name in WORK:
            patch.setattr(module, name, lambda *a, **k: 0)
        if arguments[:1] == ["data"]:
            arguments = ["list", "--names"]  # data sets have targets of their own, and this one would fetch and draw
        try:
            with few_calls():
                code = cli.main(arguments)
        except SystemExit as end:  # argparse ends so after its help
            code = end.code if isinstance(end.code, int) else 1
        sys.stdout.flush()
        err.flush()
    return code, err.buffer.getvalue().decode()  # type: ignore[attr-defined]


def _refused_or_run(given: tuple[list[str], dict[str, str]]) -> None:
    arguments, variables = given
    code, said = run(arguments, **variables)
    assert code in (0, 2) or (code == 4 and "no CUDA GPU here" in said), f"exit code {code}: {said}"
    assert (code == 0) == (not said.strip()), f"exit code {code}, said: {said[:300]}"
    assert code == 0 or said.startswith("harness: "), said[:300]


TARGETS = {
    "command": Target(st.tuples(lines, st.just({})), _refused_or_run),
    "environment": Target(
        st.tuples(st.sampled_from((["list", "--names"], ["plan", "loss_ablation"], ["study", "nothing"])), environment),
        _refused_or_run,
    ),
}
