"""Figures as files for papers and for the page: PNG, SVG and PDF side by side."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

DPI = 110  # of the PNG
FINE = 150  # the same of what is kept as pixels within SVG and PDF: clouds of points


def save(figure: Figure, path: Path) -> None:
    """Write a figure as `path`, a PNG, and beside it as SVG and PDF.

    The same figure gives the same bytes: neither the time nor random numbers get into them. The canvases are asked directly,
    because `Figure.savefig` draws all of it twice.
    """
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(path)
    figure.set_layout_engine("none")  # as in `lay_out`: laying out anew takes as long as drawing
    figure.set_dpi(FINE)
    FigureCanvasPdf(figure).print_pdf(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    save_svg(figure, path.with_suffix(".svg"))


def lay_out(figure: Figure) -> None:
    """Give the axes of a figure their places, for good: from then on it is known where in it a point of theirs is."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def save_svg(figure: Figure, path: Path) -> None:
    """Write a figure as an SVG without a background, in which text is drawn as shapes, so that it looks the same everywhere."""
    figure.set_dpi(FINE)
    for patch in (figure.patch, *(ax.patch for ax in figure.axes)):
        patch.set_alpha(0)
    with mpl.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "path"}):  # ids within a page must differ between figures
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})
