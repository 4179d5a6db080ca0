"""How Sphinx makes the site of the documents: `make docs` (decision 28).

The source is the repository itself, so every link of a page is the same on GitHub, in an editor and on the site.
`docs/index.md` is the first page. Its headings and links are also the navigation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "TinyLLM"
root_doc = "docs/index"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
include_patterns = ["*.md", "docs/*.md", "docs/**/*.md"]
exclude_patterns = [
    *("docs/fragments", "docs/results"),  # parts of pages
    *(".venv", "build", "runs", "results", "src", "tests", "benchmarks"),  # no pages: not to be searched for them
]
myst_heading_anchors = 4  # as GitHub makes them
myst_enable_extensions = ["tasklist"]
suppress_warnings = ["misc.highlighting_failure"]  # JSON with … for what is left out

html_theme = "furo"
html_title = "TinyLLM"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
html_additional_pages = {"index": "redirect.html"}  # the site's address leads to docs/index.html
templates_path = ["templates"]

_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#:]+\.md)\)")


def _add_navigation(_: Sphinx, page: str, source: list[str]) -> None:
    """Append a hidden table of contents for each heading of a list of pages: the pages that its links lead to."""
    if page not in (root_doc, "docs/decisions/README"):
        return
    _first, *parts = _HEADING.split(source[0] if page == root_doc else f"## Decisions\n{source[0]}")
    for heading, text in zip(parts[::2], parts[1::2], strict=True):
        pages = dict.fromkeys(link.removesuffix(".md") for link in _LINK.findall(text))
        names = "\n".join(pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{names}\n```\n"


def setup(app: Sphinx) -> None:
    """Register what is ours."""
    app.connect("source-read", _add_navigation)
