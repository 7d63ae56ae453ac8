"""The book as one PDF: pdf.py SITE OUT.pdf [PAGE...] joins the site's pages into one and prints it with
Chromium.

Sphinx's own single page would need every label of the book to be unique; here each id gets the name of its
page.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from html import escape
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Hidden code draws the figures, and a notebook shows it; the rest needs a screen.
LEFT_OUT = (
    ".headerlink, .ntk-hidden, .visually-hidden, .toctree-wrapper, a.download, "
    "script, style, button, input, label:has(input)"
)
TITLE = f"""
<section class="title-page"><p class="title">The NTK Book</p>
<p class="subtitle">Neural tangent kernels and infinite-width networks, every claim checked</p>
<p class="authors">{escape(PROJECT["authors"][0]["name"])}</p>
<p>Version {PROJECT["version"]}</p></section>
<section class="colophon">
<p>This is the printed form of <a href="{PROJECT["urls"]["Homepage"]}">an executable book</a>. Each chapter is
a notebook, and every line with a check mark was computed by it. What needs a screen is left out here: the
code that sets a chapter up, draws its figures and computes its statistics, which the notebooks have, and the
positions of a slider between those that are shown. Solutions are at the end, so that an exercise can be read
without them.</p>
<p>Text and figures: <a href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a>. Code: MIT. Source:
<a href="{PROJECT["urls"]["Repository"]}">{PROJECT["urls"]["Repository"]}</a></p></section>
"""


def contents(site: Path) -> list[tuple[str, str | None]]:
    """The pages in the order of the site's navigation, each with the caption that stands before it."""
    index = _soup(site / "index.html")
    pages, caption = [], None
    for tag in index.select_one("nav.bd-links").select(".caption, .toctree-l1 > a"):
        if tag.name == "a":
            pages.append((tag["href"].removesuffix(".html"), caption))
            caption = None
        else:
            caption = tag.get_text(strip=True)
    return pages


def article(site: Path, page: str, pages: set[str]) -> Tag:
    """The article of a page for print: open, without buttons, and with ids and links that hold in the whole
    book."""
    found = _soup(site / f"{page}.html").find("article")
    found["id"] = page
    for slider in found.select(".ntk-slider"):
        _frames(slider)
    for fold in found.select("details.ntk-checked, details.ntk-hidden"):
        for claims in fold.select("ul.ntk-claims"):
            fold.insert_before(claims.extract())
        if "ntk-checked" in fold["class"]:
            fold.extract()
    for tag in found.select(LEFT_OUT):
        tag.extract()
    for doors in found.select(".ntk-doors"):
        _keep_ends(doors)
    for code in found.find_all("pre"):
        _lines(code)
    for link in found.select("a.image-reference"):
        link.unwrap()
    for section in found.select("section[id]:has(> :is(h1, h2, h3))"):
        heading = section.find(["h1", "h2", "h3"], recursive=False)
        heading["id"] = section.attrs.pop("id")
        for label in section.select(
            ":scope > span[id]:empty"
        ):  # before the heading, where a page could end between them
            heading.insert(0, label.extract())
    for tag in found.find_all(id=True):
        tag["id"] = f"{page}.{tag['id']}"
    for tag in found.find_all("a", href=True):
        tag["href"] = _link(tag["href"], page, pages)
    for image in found.find_all("img"):
        image.attrs.pop("loading", None)
        if "srcset" in image.attrs:
            image["src"] = image.attrs.pop("srcset").split(", ")[-1].split()[0]
        image["src"] = urljoin(site.as_uri() + "/", image["src"])
    return found


def _soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def _keep_ends(doors: Tag) -> None:
    """The line under a title without the download between its two ends."""
    colab, seconds = doors.find("a"), doors.get_text().rpartition(" · ")[2]
    doors.clear()
    doors.extend([colab, f" · {seconds}"])


def _frames(slider: Tag) -> None:
    """Three positions of a slider, or all where it has fewer, each with its label."""
    images, control = slider.find_all("img"), slider.find("input")
    name, labels = slider.label.contents[0], json.loads(control["data-labels"])
    slider.clear()
    for i in sorted({0, len(images) // 2, len(images) - 1}):
        images[i].attrs.pop("hidden", None)
        frame = _tag(f"<div class='frame'><p>{escape(name)}<b>{escape(labels[i])}</b></p></div>")
        frame.append(images[i])
        slider.append(frame)


def _lines(code: Tag) -> None:
    """Each line of code by itself, so that a line too long for the paper goes on under its own beginning,
    further in."""
    lines = code.get_text().rstrip("\n").split("\n")
    code.clear()
    for line in lines:
        indent = len(line) - len(line.lstrip()) + 4
        code.append(_tag(f"<span class='line' style='--indent: {indent}ch'>{escape(line)}</span>"))


def _link(href: str, page: str, pages: set[str]) -> str:
    """A link within the book leads to the book, and any other one to the site."""
    parts = urlsplit(href)
    target = parts.path.removesuffix(".html") or page
    if parts.scheme or parts.netloc:
        return href
    if target in pages:
        return "#" + target + (f".{parts.fragment}" if parts.fragment else "")
    return urljoin(PROJECT["urls"]["Homepage"], href)


def solutions(chapters: list[Tag]) -> Tag:
    """Take the solutions out of the chapters, leave a link with each exercise, and return them as a
    chapter."""
    found = _tag(
        '<article class="bd-article" id="solutions"><h1 id="solutions.title">Solutions</h1></article>'
    )
    for chapter in chapters:
        details = chapter.select("details.ntk-solution")
        if details:
            found.append(_tag(f"<h2 id='solutions.{chapter['id']}'>{_title(chapter.h1)}</h2>"))
        for number, solution in enumerate(details, 1):
            exercise, name = (
                solution.find_previous(class_="ntk-exercise"),
                f"solutions.{chapter['id']}.{number}",
            )
            title = exercise.find(class_="ntk-box-title").decode_contents()
            found.append(_tag(f"<h3 id='{name}'><a href='#{exercise['id']}'>{title}</a></h3>"))
            exercise.append(
                _tag(
                    f"<p class='to-solution'><a href='#{name}'>Solution<span class='on-page'></span></a></p>"
                )
            )
            solution.summary.decompose()
            solution.name = "div"
            found.append(solution.extract())
    return found


def _title(heading: Tag) -> str:
    """What a heading says, without the labels in it."""
    return "".join(
        str(part) for part in heading.contents if not (isinstance(part, Tag) and part.get("id"))
    ).strip()


def table_of_contents(chapters: list[Tag], captions: dict[str, str]) -> Tag:
    """Chapters and their sections; the page numbers are filled in when they are known."""
    lines = []
    for chapter in chapters:
        if chapter["id"] in captions:
            lines.append(f"<li class='caption'>{escape(captions[chapter['id']])}</li>")
        for heading in chapter.select("h1, section > section > h2"):
            title = f"<span class='name'>{_title(heading)}</span><span class='on-page'></span>"
            lines.append(f"<li class='{heading.name}'><a href='#{heading['id']}'>{title}</a></li>")
    return _tag(f"<article class='bd-article contents'><h1>Contents</h1><ul>{''.join(lines)}</ul></article>")


def book(site: Path, only: list[str]) -> str:
    """The whole book as one HTML page, or the named pages of it."""
    listed = [(page, caption) for page, caption in contents(site) if not only or page in only]
    pages, captions = [page for page, _ in listed], {page: caption for page, caption in listed if caption}
    articles = {page: article(site, page, {"index", *pages}) for page in pages}
    preface = article(site, "index", {"index", *pages})
    preface.h1.string = "About this book"
    for section in preface.select("section > section"):
        section.decompose()
    chapters = [found for page, found in articles.items() if page[:2].isdigit()]
    rest = [found for page, found in articles.items() if not page[:2].isdigit()]
    body = [preface, *chapters, solutions(chapters), *rest]
    styles = []
    for number, part in enumerate(body):
        part["style"] = f"page: part{number}"
        title = json.dumps(part.h1.get_text(strip=True), ensure_ascii=False)
        styles.append(f"@page part{number} {{ @top-left {{ content: {title} }} }}")
    body.insert(0, table_of_contents(body, captions))
    head, text = _head(site, pages[0], styles), "".join(map(str, body))
    return f"<!DOCTYPE html><html lang='en'><head>{head}</head><body>{TITLE}{text}</body></html>"


def _head(site: Path, page: str, styles: list[str]) -> str:
    """The site's MathJax and styles of code and boxes; the theme's are for screens."""
    static = f"{site.as_uri()}/_static"
    mathjax = next(
        tag
        for tag in _soup(site / f"{page}.html").head.find_all("script")
        if "window.MathJax" in tag.get_text()
    )
    sheets = "".join(
        f"<link rel='stylesheet' href='{static}/{name}.css'>" for name in ("pygments", "book", "print")
    )
    return (
        f"<meta charset='utf-8'><title>The NTK Book</title>{sheets}<style>{' '.join(styles)}</style>{mathjax}"
        "<script>window.MathJax.options.enableAssistiveMml = false</script>"
        f"<script defer src='{static}/mathjax/startup.js'></script>"
    )


def _tag(html: str) -> Tag:
    return next(BeautifulSoup(html, "html.parser").children)


if __name__ == "__main__":
    site, out, *only = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "book.html"
        page.write_text(book(Path(site).resolve(), only), encoding="utf-8")
        sys.exit(subprocess.run(["node", ROOT / "tools" / "pdf.mjs", page.as_uri(), out]).returncode)
