"""The slides: what becomes of a chapter's cells, the numbers of the site, and every deck in a real browser,
from file://."""

import json
import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import slides
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
CHAPTERS = {
    path.stem: nbformat.read(path, as_version=4) for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
}
HERE = Path(__file__).resolve().parent
SMALLEST = 70  # per cent of the usual size of letters
FIGURE = (
    '<figure class="ntk-figure" id="fig-03-a"><img src="data:," alt="A curve.">'
    "<figcaption>Falls.</figcaption></figure>"
)
LIST = "\n".join(f"- {'abcdefgh' * 24}" for _ in range(9))
CLAIM = "✓ it holds: measured 1, expected 1 ± 0.1 [x]\n"


def stream(text):
    return new_output("stream", text=text)


def chapter():
    """A chapter with one cell of each kind."""
    cells = [
        new_markdown_cell(
            "# 03 Title\n\n[Open in Colab](https://colab/x) · [Download](y.ipynb) · 7 CPU seconds"
        ),
        new_markdown_cell("**You will learn**\n\n- one\n- two\n\n**You need** patience."),
        new_code_cell("x = 1", metadata={"tags": ["hide-input"]}),
        new_markdown_cell(
            "## Section\n\nWhy so. Because\n\n$$\na = b\n$$ (eq-03-a)\n\n"
            "with $a$ as in [Lee (2019)](#cite-lee2019)."
        ),
        new_code_cell("y = x\ncheck('it holds', y)", outputs=[stream(CLAIM)]),
        new_markdown_cell(
            '**Theorem (T).** <a id="thm-03-t"></a> From [(eq-03-a)](#eq-03-a), see [the figure](#fig-03-a).'
        ),
        new_code_cell("show()", outputs=[new_output("display_data", data={"text/html": FIGURE})]),
        new_markdown_cell(
            "Look at [the figure](#fig-03-a), and at `a[i](#x)` in [chapter 01](01_kernel.ipynb).\n\n" + LIST
        ),
        new_code_cell("#@title Solution\nsecret", metadata={"tags": ["solution"]}, outputs=[stream(CLAIM)]),
    ]
    return new_notebook(cells=cells)


def built(notebook):
    deck = slides.Deck(slides.numbers(notebook, 3))
    for cell in notebook.cells:
        deck.add(cell)
    return deck.slides


def shown(slide):
    return "\n".join(cell.source for cell in slide.cells)


def test_what_is_seen_is_on_the_slide_and_what_is_said_in_the_notes():
    title, section, equation, theorem, figure, *lists = built(chapter())
    kinds = [slide.kind for slide in (title, section, equation, theorem, figure)]
    assert kinds == ["title", "section", "equation", "theorem", "figure"]
    assert "- one" in shown(title) and title.notes == ["**You will learn**", "**You need** patience."]
    assert shown(section) == "## Section\nWhy so." and section.notes == ["Why so. Because"]
    assert "\\tag{3.1}" in shown(equation) and "with $a$ as in Lee (2019)." in shown(equation)
    assert (
        equation.cells[-1].source == "y = x" and "it holds" in equation.cells[-1].outputs[0].data["text/html"]
    )
    assert "#### Theorem 3.1 (T)\nFrom (3.1), see Figure 3.1." in shown(theorem)
    assert "<b>Figure 3.1.</b> Falls." in figure.cells[1].outputs[0].data["text/html"]
    assert figure.notes[0] == "Look at Figure 3.1, and at `a[i](#x)` in chapter 01."
    assert {slide.kind for slide in lists} == {"list"} and len(lists) > 1


def test_solutions_and_set_up_are_not_on_slides():
    text = json.dumps(slides.deck(chapter(), slides.numbers(chapter(), 3)))
    assert (
        "secret" not in text and "x = 1" not in text and text.count("it holds") == 1
    )  # as a claim, not in the code


def test_parts_are_split_evenly():
    assert [len(group) for group in slides.pack(["x"] * 12)] == [6, 6]
    assert slides.pack(["x"]) == [["x"]]


def test_an_unknown_reference_is_an_error():
    with pytest.raises(KeyError, match="eq-03-none"):
        slides.readable("see [(eq-03-none)](#eq-03-none)", {})


@pytest.mark.parametrize("name", CHAPTERS)
def test_numbers_are_those_of_the_site(pages, name):
    page = pages[f"{name}.html"].find("article")
    names = slides.numbers(CHAPTERS[name], int(name[:2]))
    figures = {
        f["id"]: f.select_one(".caption-number").get_text(strip=True)
        for f in page.find_all("figure", id=True)
    }
    boxes = {
        b["id"]: b.select_one(".ntk-box-kind").get_text()
        for b in page.select(".ntk-box[id]")
        if b["id"] in names
    }
    equations = {
        e["id"].removeprefix("equation-"): e.select_one(".eqno").get_text()[1:-2]
        for e in page.select("div.math[id]")
    }
    assert figures and boxes and equations
    assert figures | boxes | equations == {label: names[label] for label in [*figures, *boxes, *equations]}


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    if not (NOTEBOOKS / "node_modules" / "reveal.js").is_dir():
        pytest.skip("run `npm ci --ignore-scripts` in notebooks for the slides' assets")
    folder = tmp_path_factory.mktemp("slides")
    slides.write(folder, NOTEBOOKS)
    return folder


def test_decks_load_from_their_own_folder_only(decks):
    for name in CHAPTERS:
        page = BeautifulSoup((decks / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        loaded = [
            tag[key]
            for key in ("src", "href")
            for tag in page.select(f"script[{key}], link[{key}], img[{key}]")
        ]
        assert loaded and all(
            address.startswith("data:") or (decks / address).is_file() for address in loaded
        )
    styles = "".join(path.read_text(encoding="utf-8") for path in decks.rglob("*.css"))
    assert not re.findall(r"(?:url\(|@import\s)[\"']?(?!data:)[^)]+", styles)
    assert {path.name for path in decks.glob("*.html")} == {
        "index.html",
        *(f"{name}.html" for name in CHAPTERS),
    }


@pytest.fixture(scope="module")
def visits(decks, with_browser):
    """What slides.mjs found on every slide of every deck."""
    return json.loads(
        with_browser(
            "node", HERE / "slides.mjs", f"{decks.as_uri()}/", *(f"{name}.html" for name in CHAPTERS)
        ).stdout
    )


@pytest.mark.parametrize(
    "kind",
    ["requests", "errors", "formulas", "overflow", "sliders"],
    ids=[
        "no_request_leaves_the_folder",
        "no_script_fails",
        "every_formula_is_typeset",
        "no_slide_overflows",
        "sliders_work",
    ],
)
def test_no_problem(visits, kind):
    assert not [f"{visit['deck']}: {problem}" for visit in visits for problem in visit["problems"][kind]]


def test_decks_have_what_a_lecture_needs(visits):
    assert len(visits) == len(CHAPTERS)
    for visit in visits:
        kinds = Counter(slide["kind"] for slide in visit["slides"])
        assert (
            min(
                kinds[kind]
                for kind in ("title", "section", "figure", "equation", "claims", "list", "exercise")
            )
            > 0
        )
        assert visit["typeset"] > 10  # formulas, of which every_formula_is_typeset sees each
    assert sum(visit["typeset"] for visit in visits) > 30 * len(visits)
    assert any(slide["slider"] for visit in visits for slide in visit["slides"])


def test_letters_stay_large(visits):
    small = {
        f"{v['deck']} {s['h']}.{s['v']}": s["size"]
        for v in visits
        for s in v["slides"]
        if s["size"] < SMALLEST
    }
    assert not small
