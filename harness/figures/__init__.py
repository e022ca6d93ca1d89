"""Pictures of one trained trial, drawn from its evaluation, and of a data set.

In comes a `Subject` (a trial, its model, its scores, its history), out come matplotlib figures and PNG files. Scores must not be
computed here: they come from metrics. To add a figure, write a function of a `Subject` and a line in `FIGURES`.
"""

from harness.figures.canvas import (
    Subject,
    axes_to_show,
    decode,
    examples,
    new_figure,
    scatter,
    scatter_points,
    show_images,
    tile,
)
from harness.figures.contact_sheet import write_contact_sheet
from harness.figures.drawing import AT_A_GLANCE, FIGURES, IN_QUICK, NEEDS_TWO_LATENTS, draw, fits

__all__ = [
    "AT_A_GLANCE",
    "FIGURES",
    "IN_QUICK",
    "NEEDS_TWO_LATENTS",
    "Subject",
    "axes_to_show",
    "decode",
    "draw",
    "examples",
    "fits",
    "new_figure",
    "scatter",
    "scatter_points",
    "show_images",
    "tile",
    "write_contact_sheet",
]
