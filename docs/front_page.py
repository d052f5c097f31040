"""A hook of the site: the README is its front page, and files beyond docs/ are named, not linked.

The repository is read where files lie beside each other; the site holds the pages alone.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_LINK = re.compile(r"(?<!!)\[([^]]+)\]\(([^)#:]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README as index.md."""
    readme = Path(config.config_file_path).with_name("README.md").read_text()
    text = _LINK.sub(_leave_docs, readme).replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Name the files beyond docs/ by their path."""
    del page, config, files
    return re.sub(r"\[([^]]+)\]\(\.\./([^)#]+)[^)]*\)", _name, markdown)


def _leave_docs(link: re.Match[str]) -> str:
    return link[0] if link[2].startswith("docs/") else _name(link)


def _name(link: re.Match[str]) -> str:
    """Return a link's text, and its path where the text does not say it."""
    text, path = link[1], posixpath.normpath(link[2])
    return f"`{path}`" if path.endswith(text) else f"{text} (`{path}`)"
