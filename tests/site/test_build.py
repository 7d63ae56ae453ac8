"""The site builds from the stored outputs without a warning, and asks nothing of anybody else."""

import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CHAPTERS = sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
LOADED = {
    "stylesheet",
    "icon",
    "preload",
    "modulepreload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "manifest",
}


def loaded_by(page):
    """Yield the addresses that a browser loads when it opens the page."""
    for tag in page.find_all(["script", "img", "source", "iframe", "embed", "audio", "video", "track"]):
        yield tag.get("src") or ""
        yield from (part.split()[0] for part in (tag.get("srcset") or "").split(",") if part.strip())
    for tag in page.find_all("link"):
        if LOADED & set(tag.get("rel") or []):
            yield tag.get("href") or ""
    for tag in page.find_all("object"):
        yield tag.get("data") or ""
    styles = [tag.get_text() for tag in page.find_all("style")] + [
        tag["style"] for tag in page.find_all(style=True)
    ]
    for style in styles:
        yield from in_style(style)


def in_style(style):
    without_comments = re.sub(r"/\*.*?\*/", "", style, flags=re.S)
    return re.findall(r"(?:url\(|@import\s)\s*[\"']?([^\"')\s]+)", without_comments)


def is_external(address):
    return bool(re.match(r"(?:[a-z]+:)?//", address))


def test_every_chapter_has_its_page_and_is_linked_from_the_first(pages):
    links = {anchor.get("href") for anchor in pages["index.html"].find("article").find_all("a")}
    assert CHAPTERS
    assert {f"{name}.html" for name in CHAPTERS} <= links & set(pages)


def test_pages_load_nothing_from_outside(pages):
    found = [
        (name, address) for name, page in pages.items() for address in loaded_by(page) if is_external(address)
    ]
    assert not found


def test_style_sheets_load_nothing_from_outside(site):
    sheets = {path: in_style(path.read_text(encoding="utf-8")) for path in site.rglob("*.css")}
    assert sheets
    assert not {
        path.name: found
        for path, addresses in sheets.items()
        if (found := [a for a in addresses if is_external(a)])
    }


def test_ids_are_unique_on_a_page(pages):
    for name in CHAPTERS:
        ids = [tag["id"] for tag in pages[f"{name}.html"].find_all(id=True)]
        assert len(ids) == len(set(ids)), sorted({i for i in ids if ids.count(i) > 1})


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_became_a_page_of_the_book(pages, name):
    article = pages[f"{name}.html"].find("article")
    assert article.select_one("p.ntk-doors a[download]")["href"].endswith(f"{name}.ipynb")
    for figure in article.find_all("figure"):
        assert re.match(rf"Figure {int(name[:2])}\.\d+", figure.figcaption.get_text(strip=True))
        assert all(image.get("alt") for image in figure.find_all("img"))
    assert article.select("ul.ntk-claims li[id]")
    exercises = article.select(".ntk-exercise")
    assert exercises
    assert len(article.select("details.ntk-solution:not([open]):has(ul.ntk-claims)")) == len(exercises)
    assert not article.select(".tag_colab-only")
    assert "✓ " not in "".join(pre.get_text() for pre in article.find_all("pre"))
    assert "#@title" not in article.get_text()


@pytest.mark.parametrize("name", CHAPTERS)
def test_no_markdown_is_left_over(site, name):
    article = BeautifulSoup((site / f"{name}.html").read_text(encoding="utf-8"), "html.parser").find(
        "article"
    )
    for tag in article.select("pre, code, .math, .ntk-claims, .ntk-slider"):
        tag.decompose()
    left_over = re.findall(r".{0,40}(?:\$|\]\(|\*\*|```).{0,40}", article.get_text())
    assert not left_over
