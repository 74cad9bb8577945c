"""For the documentation site: links to files outside docs/ become the names of these files.

In the repository such a link opens the file. The site does not hold it, so it shows the text alone,
or the file in the repository where ``repo_url`` of mkdocs.yml names one.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|[#/]", re.IGNORECASE)


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """A hook of MkDocs: the text of a page before it is rendered."""
    return inside(markdown, folder=posixpath.dirname(page.file.src_uri), repository=config.repo_url)


def inside(markdown: str, *, folder: str, repository: str | None) -> str:
    """The text of a page in a folder of docs/ ('' for docs/ itself) without links that leave it."""

    def replaced(found: re.Match[str]) -> str:
        text, target = found.groups()
        place = posixpath.normpath(posixpath.join("docs", folder, target.partition("#")[0]))
        if ELSEWHERE.match(target) or place.startswith("docs/"):
            return found.group()
        if repository and not place.startswith(".."):
            return f"[{text}]({repository.rstrip('/')}/blob/HEAD/{place})"
        return text if "`" in text else f"`{text}`"

    return LINK.sub(replaced, markdown)
