"""SVG files as elements of a page, in its colours. Matplotlib, which drew them, is not imported here."""

import re
from pathlib import Path

from harness.figures.palette import INK

INKS = (INK, "#1c2330", "#1a1a1a")  # what is drawn in the colour of text
LINES = ("#e6e6e6", "#ebebeb")  # of grids: the greys 0.9 and 0.92


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
