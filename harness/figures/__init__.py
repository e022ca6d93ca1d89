"""Pictures of one trained trial, drawn from its evaluation, and of a data set.

In comes a `Subject` (a trial, its model, its scores, its history), out come matplotlib figures and PNG files. Scores must not be
computed here: they come from metrics. To add a figure, write a function of a `Subject` and a line in `FIGURES`. Names are loaded on
first use, so that a report, which takes axes.py alone, needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.figures.axes import new_figure, scatter, show_images, tile
    from harness.figures.canvas import Subject, axes_to_show, decode, examples, scatter_points
    from harness.figures.contact_sheet import write_contact_sheet
    from harness.figures.drawing import AT_A_GLANCE, FIGURES, IN_QUICK, NEEDS_TWO_LATENTS, draw, fits
    from harness.figures.schedule import epochs_pictured
    from harness.figures.snapshots import snapshot, write_snapshots

__all__ = [
    "AT_A_GLANCE",
    "FIGURES",
    "IN_QUICK",
    "NEEDS_TWO_LATENTS",
    "Subject",
    "axes_to_show",
    "decode",
    "draw",
    "epochs_pictured",
    "examples",
    "fits",
    "new_figure",
    "scatter",
    "scatter_points",
    "show_images",
    "snapshot",
    "tile",
    "write_contact_sheet",
    "write_snapshots",
]

_MODULES = {"write_contact_sheet": "contact_sheet"}
_MODULES |= dict.fromkeys(("new_figure", "scatter", "show_images", "tile"), "axes")
_MODULES |= {"epochs_pictured": "schedule"} | dict.fromkeys(("snapshot", "write_snapshots"), "snapshots")
_MODULES |= dict.fromkeys(("Subject", "axes_to_show", "decode", "examples", "scatter_points"), "canvas")


def __getattr__(name: str) -> Any:
    """Return a name of this room, from the module that defines it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"harness.figures.{_MODULES.get(name, 'drawing')}"), name)
