"""Builds the site with mdBook and checks every link of it: `check.py MDBOOK`.

Does: build the pages of docs/ as deploy/site/prepare makes them into a temporary folder, and print
each link whose page, image or section is missing, each page that the table of contents does not
reach, and whether the search has an index. Does not: follow links to other hosts. The exit code is 1
if anything is wrong.
"""

import html.parser
import pathlib
import subprocess
import sys
import tempfile
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
REPOSITORY = "https://github.com/stopover/stopover/blob/main/"


class Page(html.parser.HTMLParser):
    """The links of a page, and what they can point at."""

    def __init__(self, path):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        for name in ("href", "src"):
            if attrs.get(name) and not (tag == "link" and name == "href"):
                self.links.append(attrs[name])


def link_problems(book):
    """The links that lead nowhere."""
    pages = {path: Page(path) for path in sorted(book.rglob("*.html"))}
    for path, page in pages.items():
        # Its links are relative to the root of the host.
        if path.name in ("404.html", "toc.html"):
            continue
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if link.startswith(REPOSITORY):
                target = ROOT / urllib.parse.unquote(url.path.split("/blob/main/")[1])
                if not target.exists():
                    yield f"{path.relative_to(book)}: {link} is not in the repository"
            if url.scheme or url.netloc:
                continue
            target = path
            if url.path:
                target = (path.parent / urllib.parse.unquote(url.path)).resolve()
            if not target.exists():
                yield f"{path.relative_to(book)}: {link} does not exist"
            elif url.fragment and target in pages:
                if urllib.parse.unquote(url.fragment) not in pages[target].ids:
                    yield f"{path.relative_to(book)}: {link}: no such section"


def page_problems(site, book):
    """Pages that are not built or not in the table of contents."""
    contents = (book / "toc.html").read_text()
    for source in sorted((site / "src").rglob("*.md")):
        name = source.relative_to(site / "src").with_suffix(".html")
        if source.name in ("SUMMARY.md", "README.md"):
            continue
        if not (book / name).exists():
            yield f"{name} was not built"
        elif f'href="{name.as_posix()}"' not in contents:
            yield f"{name} is not in the table of contents"
    if not list(book.glob("searchindex*.js")):
        yield "there is no index for the search"


def main():
    with tempfile.TemporaryDirectory() as folder:
        site = pathlib.Path(folder).resolve()
        subprocess.run([ROOT / "deploy/site/prepare", site], check=True)
        built = subprocess.run(
            [sys.argv[1], "build", site], capture_output=True, text=True, check=False
        )
        complaints = [line for line in built.stderr.splitlines() if "INFO" not in line]
        problems = [f"mdbook: {line}" for line in complaints]
        if built.returncode != 0:
            problems.append(f"mdbook ended with {built.returncode}")
        else:
            book = site / "book"
            problems += [*link_problems(book), *page_problems(site, book)]
        pages = len(list((site / "book").rglob("*.html")))
    for problem in problems:
        print(problem)
    print(f"{pages} pages, {len(problems)} problems")
    sys.exit(1 if problems else 0)


main()
