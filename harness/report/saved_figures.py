"""Figures as files for papers and for the page: PNG, SVG and PDF side by side, and SVG that takes the page's colours."""

import re
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from harness.figures.palette import INK

DPI = 110  # of the PNG
FINE = 150  # the same of what is kept as pixels within SVG and PDF: clouds of points
LINE = "#e6e6e6"  # of grids: the grey 0.9
INKS = (INK, "#1c2330", "#1a1a1a")  # what is drawn in the colour of text
LINES = (LINE, "#ebebeb")
WHITE = "#ffffff"


def save(figure: Figure, path: Path) -> None:
    """Write a figure as `path`, a PNG, and beside it as SVG and PDF.

    The same figure gives the same bytes: neither the time nor random numbers get into them. The canvases are asked directly,
    because `Figure.savefig` draws all of it twice.
    """
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(path)
    figure.set_layout_engine("none")  # it stays as it has come out: laying out anew takes as long as drawing
    figure.set_dpi(FINE)
    FigureCanvasPdf(figure).print_pdf(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    save_svg(figure, path.with_suffix(".svg"))


def save_svg(figure: Figure, path: Path) -> None:
    """Write a figure as an SVG without a background, in which text is drawn as shapes, so that it looks the same everywhere."""
    figure.set_dpi(FINE)
    for patch in (figure.patch, *(ax.patch for ax in figure.axes)):
        patch.set_alpha(0)
    with mpl.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "path"}):  # ids within a page must differ between figures
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})


def inline(file: Path, alt: str) -> str:
    """Return an SVG as an element for a page, in the page's colours of text and lines, with a text for those who cannot see it."""
    text = file.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    for ink in INKS:
        text = text.replace(ink, "currentColor")
    for line in LINES:
        text = text.replace(line, "var(--line)")
    text = re.sub(r"(?<=fill: )#ffffff", "var(--paper)", text)
    size = re.match(r'<svg [^>]*?width="([\d.]+)pt"', text)
    width = f' style="--width: {float(size[1]) * 4 / 3:.0f}px"' if size else ""
    salt = re.sub(r"\W", "-", file.stem)
    text = re.sub(r'(id="|href="#|url\(#)', lambda found: f"{found[1]}{salt}-", text)
    text = re.sub(r'^<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", text)
    text = re.sub(r'^<svg ([^>]*?)height="[^"]*" width="[^"]*"', r"<svg \1", text)
    return re.sub(r"^<svg ", f'<svg role="img" aria-label="{escaped(alt)}"{width} fill="currentColor" ', text)


def escaped(text: str) -> str:
    """Return a text as the value of an attribute."""
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
