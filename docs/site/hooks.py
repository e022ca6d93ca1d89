"""What the site needs beside docs/: some pages of the repository's root, and links that leave docs/.

On a code host all links work as they stand. The site has the pages named here; a link to any other file of the repository, a study,
say, leads there if `repo_url` in mkdocs.yml names it; else its text alone is left.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<path>(?!\w+:|#)[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Any, *, config: Any) -> Any:
    """Return the files of the site with the pages of the root among them."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Return the text of a page with its links as the site has their targets."""
    folder = "" if page.file.src_uri in PAGES.values() else "docs"

    def led(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link["path"]))
        anchor = link["anchor"] or ""
        if path.startswith("docs/") or path in PAGES:
            return f"{link['text']}({PAGES.get(path, path.removeprefix('docs/'))}{anchor})"
        if not config.repo_url:
            return link["text"].strip("[]")
        return f"{link['text']}({config.repo_url.rstrip('/')}/blob/HEAD/{path}{anchor})"

    return LINK.sub(led, markdown.replace("<details>", "<details markdown>"))
