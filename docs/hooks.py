"""Hooks of mkdocs.yml: README as the first page, files that pages link to, and generated parts.

Links of the pages are those of the repository, so they work on GitHub, too. A link that leaves
docs/ leads to a copy of the file below repository/. Comments in the pages are replaced:
``parameters`` by the list of all parameters, ``scores: DOMAIN`` by a table of scores.
"""

import html
import logging
import posixpath
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(\]\(|src=\"|href=\")([^)\"\s]+)")
PARAMETERS = "<!-- parameters -->"
SCORES = re.compile(r"<!-- scores: (\w+) -->")


def on_config(config: MkDocsConfig) -> None:
    """Find the library of this checkout."""
    sys.path.insert(0, str(ROOT))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README, and each file outside of docs/ that a page links to."""
    files.append(File.generated(config, "index.md", content=text("README.md")))
    pages = [file.src_uri for file in files.documentation_pages()]
    while pages:
        origin = origin_of(pages.pop())
        for _, link in LINK.findall(text(origin)):
            target = target_of(origin, link)
            uri = uri_of(target)
            if not uri.startswith("repository/") or files.get_file_from_path(uri):
                continue
            if target.endswith(".md"):
                files.append(File.generated(config, uri, content=text(target)))
                pages.append(uri)
            elif (ROOT / target).is_file():
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / target)))
            else:
                raise PluginError(f"{origin}: no file {target}")
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the files of the site, and insert the tables of scores."""
    here = page.file.src_uri
    origin = origin_of(here)

    def pointed(match: re.Match[str]) -> str:
        uri = uri_of(target_of(origin, match[2]))
        anchor = match[2].partition("#")[1:]
        relative = posixpath.relpath(uri, posixpath.dirname(here)) if uri else match[2]
        return match[1] + relative + ("".join(anchor) if uri else "")

    markdown = LINK.sub(pointed, markdown)
    markdown = SCORES.sub(lambda match: "\n".join(scores(match[1])), markdown)
    return markdown.replace(PARAMETERS, "\n".join(parameters()) if PARAMETERS in markdown else "")


def text(path: str) -> str:
    """The content of a file of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def origin_of(uri: str) -> str:
    """The path in the repository of a page of the site."""
    if uri == "index.md":
        return "README.md"
    return uri.removeprefix("repository/") if uri.startswith("repository/") else f"docs/{uri}"


def target_of(origin: str, link: str) -> str:
    """The path in the repository that a link of a page leads to; empty if it leads elsewhere."""
    path = link.partition("#")[0]
    if not path or "://" in path or path.startswith("mailto:"):
        return ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))


def uri_of(target: str) -> str:
    """The place on the site of a file of the repository; empty for none."""
    if target == "README.md":
        return "index.md"
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"repository/{target}" if target else ""


def parameters() -> Iterator[str]:
    """The list of all parameters, from the output of ``python -m ostinato describe``."""
    from ostinato import cli, params
    from ostinato.tables import Table

    logging.getLogger("absl").setLevel(logging.ERROR)
    study = cli.checked(cli.DEFAULT_STUDY)
    for domain in params.domains():
        models = (ROOT / "ostinato" / domain / "models").glob("[!_]*.py")
        names = [domain, *sorted(f"{domain}/{file.stem}" for file in models)]
        yield from ("", f"## {domain}")
        for part in (part for name in names for part in cli.describe(name, study)):
            if isinstance(part, Table):
                yield from ("", *table(part.header, part.rows))
            elif part.startswith(" ") or not part:
                yield from [""] * (part.strip() == "no parameters")
                yield html.escape(part.strip(), quote=False)
            elif "a domain (" not in part and ": models (" not in part:
                level = "####" if part.startswith(("build (", "fit (")) else "###"
                name, _, place = part.partition(" (")
                yield from ("", f"{level} {name}", "", f"`{place.rstrip(')')}`", "")


def scores(domain: str) -> Iterator[str]:
    """The scores of all studies' runs of a domain, as ``python -m ostinato list`` prints them."""
    from ostinato import cli
    from ostinato.study import studies
    from ostinato.tables import Table

    rows = []
    for path in studies():
        study, *parts = cli.list_runs([path])
        for run, data, model, score in (
            row for part in parts if isinstance(part, Table) for row in part.rows
        ):
            if model.startswith(f"{domain}/") and score != "not evaluated":
                names = (f"`{name}`" for name in (run, data, model.partition("/")[2]))
                rows.append((str(study).partition(" ")[0], *names, score))
    yield from table(("study", "run", "data set", "model", "score"), rows)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table in Markdown."""
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    for row in rows:
        cells = (html.escape(cell, quote=False).replace("|", "\\|") for cell in row)
        yield f"| {' | '.join(cells)} |".replace("\n", "<br>")
