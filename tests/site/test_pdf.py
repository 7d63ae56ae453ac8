"""The book on paper: the joined page of the whole book, and the PDF of two chapters and the bibliography."""

import sys
from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

import pdf as tool
import pytest
from bs4 import BeautifulSoup
from pypdf import PdfReader

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parents[1] / "tools"
PAGES = ["01_neural_tangent_kernel", "06_exploding_vanishing", "bibliography"]


@pytest.fixture(scope="module")
def joined(site):
    return BeautifulSoup(tool.book(site, []), "html.parser")


@pytest.fixture(scope="module")
def printed(site, with_browser, tmp_path_factory):
    """The PDF as Chromium writes it."""
    out = tmp_path_factory.mktemp("pdf") / "book.pdf"
    with_browser(sys.executable, TOOLS / "pdf.py", site, out, *PAGES)
    return PdfReader(out)


@pytest.fixture(scope="module")
def bookmarks(printed):
    """The titles of the outline in reading order, each with the page, from 1, that it leads to."""

    def flat(entries):
        for entry in entries:
            if isinstance(entry, list):
                yield from flat(entry)
            else:
                yield entry.title, printed.get_destination_page_number(entry) + 1

    return list(flat(printed.outline))


def letters(text):
    """Text without what a line's end may change: spaces, hyphens, joined letters."""
    return "".join(normalize("NFKC", text).replace("-", "").split())


def text_of_links(page):
    """Pairs of a link's destination and the words printed in its rectangle, on however many lines."""
    words = []

    def visit(text, matrix, place, _font, _size):
        x, y = (place[4] * matrix[i] + place[5] * matrix[i + 2] + matrix[i + 4] for i in (0, 1))
        words.append((x, y, text))

    page.extract_text(visitor_text=visit)
    for link in (each.get_object() for each in page.get("/Annots", [])):
        if "/Dest" in link:
            left, bottom, right, top = map(float, link["/Rect"])
            inside = [text for x, y, text in words if left - 1 < x < right and bottom < y < top]
            yield link["/Dest"], "".join(inside)


def headings(site, page):
    article = BeautifulSoup((site / f"{page}.html").read_text(encoding="utf-8"), "html.parser").find(
        "article"
    )
    for heading in article.find_all(["h1", "h2"]):
        heading.find(class_="headerlink").decompose()
        if not heading.find(class_="math"):
            yield " ".join(heading.get_text().split())


def test_ids_are_unique_in_the_whole_book(joined):
    ids = [tag["id"] for tag in joined.find_all(id=True)]
    assert len(ids) == len(set(ids)) > 500


def test_links_within_the_book_lead_somewhere(joined):
    ids = {tag["id"] for tag in joined.find_all(id=True)}
    links = [anchor["href"] for anchor in joined.find_all("a", href=True)]
    assert not [link for link in links if link.startswith("#") and link[1:] not in ids]
    assert not [link for link in links if not link.startswith(("#", "https://"))]


def test_the_book_has_every_page_of_the_navigation_in_order(site, joined):
    pages = [page for page, _ in tool.contents(site)]
    assert {path.stem for path in site.glob("[0-9][0-9]_*.html")} <= set(pages)
    articles = [article["id"] for article in joined.find_all("article", id=True)]
    assert [page for page in articles if page not in ("index", "solutions")] == pages


def test_every_exercise_leads_to_its_solution_and_back(site, joined):
    exercises = joined.select("article:not(#solutions) .ntk-exercise")
    assert len(exercises) == sum(
        path.read_text(encoding="utf-8").count('class="ntk-solution"') for path in site.glob("*.html")
    )
    for exercise in exercises:
        heading = joined.find(id=exercise.select_one(".to-solution a")["href"][1:])
        assert heading.a["href"] == f"#{exercise['id']}"
        assert "ntk-solution" in heading.find_next_sibling()["class"]
    assert not joined.find_all("details")


def test_a_slider_becomes_two_or_three_labelled_pictures(joined):
    sliders = joined.select(".ntk-slider")
    assert sliders and not joined.find_all("input")
    for slider in sliders:
        assert (
            2
            <= len(slider.select(".frame img:not([hidden])"))
            == len({p.get_text() for p in slider.select(".frame p")})
            <= 3
        )


def test_pictures_are_printed_at_their_full_density(site, joined):
    pictures = [image["src"] for image in joined.find_all("img") if not image["src"].startswith("data:")]
    assert len(pictures) > 50 and not joined.select("img[srcset], img[loading]")
    assert not [
        picture
        for picture in pictures
        if picture.endswith("-1x.webp") or not Path(picture.removeprefix("file://")).exists()
    ]


def test_bookmarks_are_the_chapters_and_their_sections(site, bookmarks):
    expected = [heading for page in PAGES for heading in headings(site, page)]
    assert len(expected) > 20
    found = [title for title, _ in bookmarks]
    remaining = iter(found)
    assert not [heading for heading in expected if heading not in remaining]  # all of them, in this order
    assert "Solutions" in found
    assert all(page <= following for (_, page), (_, following) in pairwise(bookmarks))


def test_it_has_the_pages_that_two_chapters_take(printed):
    assert 30 < len(printed.pages) < 70
    assert printed.stream.seek(0, 2) < 8e6


def test_formulas_are_described_by_their_tex(site, printed):
    objects = (printed.get_object(number) for number in range(1, printed.trailer["/Size"]))
    described = [each["/Alt"] for each in objects if isinstance(each, dict) and "/Alt" in each]
    assert r"\hat\Theta(x, x')" in described
    formulas = sum(
        (site / f"{page}.html").read_text(encoding="utf-8").count('<span class="math ') for page in PAGES
    )
    assert len(described) > formulas > 300


def test_text_and_formulas_can_be_selected(printed):
    text = [page.extract_text() for page in printed.pages]
    whole = "\n".join(text)
    assert "𝜎" in whole and "Θ" in whole and "∇" in whole
    assert "measured" in whole and "\\(" not in whole and "mjx" not in whole
    assert "The NTK Book" in text[0]


def test_the_table_of_contents_has_the_right_pages(printed, bookmarks):
    """Whatever the fonts make of its lines: each link's words are a bookmark's title and the page that both
    lead to."""
    (page,) = (page for title, page in bookmarks if title == "Contents")
    (following, *_) = (page for title, page in bookmarks if title == "About this book")
    links = [link for each in printed.pages[page - 1 : following - 1] for link in text_of_links(each)]
    remaining = iter([(letters(title) + str(page), page) for title, page in bookmarks])
    assert len(links) > 20
    for destination, words in links:
        leads_to = printed.get_destination_page_number(printed.named_destinations[destination]) + 1
        assert (letters(words), leads_to) in remaining, words


def test_what_would_look_wrong_on_paper_is_an_error(site, with_browser, tmp_path):
    bad = r"""<p><span class="math">\(\nosuch\)</span></p><div style="width: 400mm">wide</div>
      <a href="#nowhere">lost</a><img src="missing.png">"""
    for terms in (30, 200):  # the first is made to fit, the second would be too small to read
        bad += rf"<div class='math'>\[{' + '.join(['x'] * terms)}\]</div>"
    page = tmp_path / "bad.html"
    page.write_text(
        tool.book(site, ["03_linearization"]).replace("</article></body>", bad + "</article></body>"),
        encoding="utf-8",
    )
    result = with_browser("node", TOOLS / "pdf.mjs", page.as_uri(), tmp_path / "bad.pdf", returncode=1)
    kinds = [line.partition(":")[0] for line in result.stderr.splitlines()]
    assert kinds == ["formula", "no picture", "no target", "too wide", "too small"]
