"""One colour and one mark per arm, the same in every figure, told apart by colour-blind eyes on white and on dark paper."""

import colorsys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# Okabe and Ito's colours for all eyes (2008, https://jfly.uni-koeln.de/color/) without black and yellow, which vanish on dark and
# on white paper, then grey and brown; a ninth arm or family has the first again with another mark.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#8c6d31")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK = "#000000"  # of text, axes and bars; in a page it is the colour of its text
DARKEST, LIGHTEST = -0.13, 0.17  # by how much the first and the last arm of a family are darker and lighter than its colour


class Style(NamedTuple):
    """How an arm is drawn: its colour, as "#rrggbb", and its mark, as matplotlib names marks."""

    colour: str
    mark: str


def families(arms: Sequence[str]) -> Mapping[str, list[str]]:
    """Return the arms by family, which is the first word of a name such as "mse beta=4", in the order given.

    >>> families(["bce beta=1", "mse", "bce beta=4"])
    {'bce': ['bce beta=1', 'bce beta=4'], 'mse': ['mse']}
    """
    found: dict[str, list[str]] = {}
    for arm in arms:
        found.setdefault(arm.split(" ")[0], []).append(arm)
    return found


def styles(arms: Sequence[str]) -> Mapping[str, Style]:
    """Return how each arm of a study is drawn. Arms of one family share a mark and have shades of one colour, from dark to light.

    Args:
        arms: all arms of the study in its order, so that a figure of some of them draws them as every other does.
    """
    found: dict[str, Style] = {}
    for i, members in enumerate(families(arms).values()):
        colour, mark = COLOURS[i % len(COLOURS)], MARKS[(i + i // len(COLOURS)) % len(MARKS)]
        for j, arm in enumerate(members):
            share = j / (len(members) - 1) if len(members) > 1 else 0.5
            shift = DARKEST + (LIGHTEST - DARKEST) * share if len(members) > 1 else 0.0
            found[arm] = Style(_shaded(colour, shift), mark)
    return found


def _shaded(colour: str, by: float) -> str:
    """Return a colour whose lightness, from 0 to 1, is changed by this much."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, light, strength = colorsys.rgb_to_hls(red, green, blue)
    mixed = colorsys.hls_to_rgb(hue, min(0.85, max(0.2, light + by)), strength)
    return "#" + "".join(f"{round(255 * x):02x}" for x in mixed)
