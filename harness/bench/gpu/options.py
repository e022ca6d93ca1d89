"""The options of the checks of a GPU, by either way of starting them. Torch is not imported here."""

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    parser.add_argument("--out", default="build/gpu", help="a folder for results; steps that are done in it are skipped")
    parser.add_argument("--device", default="auto", help="the first GPU unless said; cuda:N")
    parser.add_argument("--toy", action="store_true", help="all steps at toy size, on a CPU too")
    parser.add_argument("--minutes", type=float, default=10.0, help="of all steps: one starts only if its timeout still fits")
    parser.add_argument("--only", default="", metavar="STEP,...", help="these steps only")
