"""The book's own pages: front page, ledger, lecturers' page, from the plan and the notebooks."""

import re
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from ntkbook import chapters, ledger

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
PLAN = chapters.plan(NOTEBOOKS)
WRITTEN = [chapter for chapter in PLAN if chapter.file]
FILES = sorted(NOTEBOOKS.glob("*.ipynb"))


def claim_lines(file):
    outputs = [
        output for cell in nbformat.read(file, as_version=4).cells for output in cell.get("outputs", [])
    ]
    return [
        line for output in outputs for line in output.get("text", "").splitlines() if line.startswith("✓ ")
    ]


def test_the_plan_is_in_order_and_knows_every_chapter():
    numbers = [chapter.number for chapter in PLAN]
    assert numbers == sorted(set(numbers))
    for chapter in PLAN:
        assert all(need in numbers and need < chapter.number for need in chapter.needs), chapter
    assert [chapter.file for chapter in WRITTEN] == [file for file in FILES if file.name[:2].isdigit()]
    for chapter in WRITTEN:
        assert chapter.cells[0].source.startswith(f"# {chapter.number} {chapter.title}\n")


def test_the_readme_asks_the_plans_questions():
    rows = re.findall(
        r"^\| (\d\d) \| \[(.+?)\]\(notebooks/(\S+)\) \| (.+) \|$", (ROOT / "README.md").read_text(), re.M
    )
    assert rows == [(c.number, c.title, c.file.name, c.question) for c in WRITTEN]


def test_the_map_shows_every_chapter_and_every_need(pages):
    drawing = pages["index.html"].find("article").select_one("nav.ntk-map svg")
    assert len(drawing.find_all("rect")) == len(PLAN)
    assert [link["href"] for link in drawing.find_all("a")] == [
        f"{chapter.file.stem}.html" for chapter in WRITTEN
    ]
    assert len(drawing.find_all("path")) == sum(len(chapter.needs) for chapter in PLAN)


def test_the_maps_boxes_hold_their_words_and_do_not_overlap():
    drawing = BeautifulSoup(chapters.drawing(PLAN), "html.parser")
    corners = sorted((float(rect["y"]), float(rect["x"])) for rect in drawing.find_all("rect"))
    for (y, x), (next_y, next_x) in zip(corners, corners[1:]):
        assert next_y >= y + chapters.BOX[1] or next_x >= x + chapters.BOX[0]
    assert max(len(word.get_text()) for word in drawing.find_all("tspan")) <= 17


def test_the_sidebar_shows_the_parts_of_the_plan(pages):
    found = pages["index.html"].select_one("nav.bd-links").select(".caption, .toctree-l1 > a")
    texts = [tag.get_text(strip=True) for tag in found]
    expected = []
    for chapter in WRITTEN:
        expected += [] if chapter.part in expected else [chapter.part]
        expected.append(f"{chapter.number} {chapter.title}")
    assert texts[: texts.index("Appendices")] == expected


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_the_ledger_has_every_claim_as_its_page_has_it(pages, file):
    article = pages[f"{file.stem}.html"].find("article")
    rows = pages["ledger.html"].find("article").select(f'a[href^="{file.stem}.html#claim-"]')
    assert len(rows) == len(claim_lines(file)) > 0
    for row in rows:
        claim = article.find(id=row["href"].partition("#")[2])
        cells = [cell.get_text() for cell in row.find_parent("tr").find_all("td")[1:]]
        kind, measured, expected, tolerance, _, _, source = cells
        whole = expected if tolerance == "a bound" else f"{expected} ± {tolerance}"
        assert claim.select_one(".ntk-claim-text").get_text() == f"Checked claim: {row.get_text()}"
        shown = claim.select_one(".ntk-claim-numbers").get_text()
        assert shown.startswith(f"measured {measured}, expected {whole}")
        assert shown.endswith(f", source: {source}") and (" draws" in shown) == (kind == "statistics")


def test_the_ledger_counts_what_it_lists(pages):
    article = pages["ledger.html"].find("article")
    rows = [row.find_all("td") for row in article.select(".ntk-ledger tbody tr")]
    kinds, tolerances = ([row[k].get_text() for row in rows] for k in (1, 4))
    counts = list(map(int, re.findall(r"\d+", article.find("strong").find_parent("p").get_text())))
    in_solutions = sum(claim.in_solution for file in FILES for claim in ledger.claims_of(file)[1])
    bounds = tolerances.count("a bound")
    of_kinds = [kinds.count(kind) for kind in ("mathematics", "arithmetic", "statistics")]
    of_tolerances = [len(tolerances) - bounds, bounds]
    assert counts == [len(rows), len(FILES), *of_kinds, *of_tolerances, in_solutions]


def test_a_claim_is_found_where_it_is_solved(tmp_path):
    line = "✓ a < b: measured 1, expected {} [Jacot 2018]"
    outputs = [
        nbformat.v4.new_output("stream", text=line.format("2 ± 0.1") + "\nother\n" + line.format("< 3"))
    ]
    cells = [
        nbformat.v4.new_markdown_cell("# 03 Title\n\nlinks"),
        nbformat.v4.new_code_cell(outputs=outputs, metadata={"tags": ["solution"]}),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "x.ipynb")
    title, [value, bound] = ledger.claims_of(tmp_path / "x.ipynb")
    assert title == "03 Title"
    assert (value.number, value.tolerance, bound.number, bound.tolerance) == (1, "0.1", 2, "a bound")
    assert value.in_solution and value.claim == "a < b"


@pytest.mark.parametrize(
    "compared, expected, tolerance, kind, notices",
    [
        ("2 ± 0.1", "2", "0.1", "mathematics", "0.1"),
        ("2 ± 1e-09", "2", "1e-09", "arithmetic", "1e-09"),
        ("< 3", "< 3", "a bound", "mathematics", "beyond the bound"),
        ("< 1e-12", "< 1e-12", "a bound", "arithmetic", "beyond the bound"),
        ("3 numbers ± 0.2", "3 numbers", "0.2", "mathematics", "0.2"),
        ("1 ± 0.1 (90 draws; 0.2 would show)", "1", "0.1", "statistics", "0.2, 90 draws"),
        ("1 ± 0.1 (9 and 5 draws; 0.2 would show)", "1", "0.1", "statistics", "0.2, 9 and 5 draws"),
        ("> 2 with ± 0.3 (90 draws)", "> 2", "a bound", "statistics", "0.3, 90 draws"),
        ("< 0.05 (90 draws)", "< 0.05", "a bound", "statistics", "beyond the bound, 90 draws"),
    ],
)
def test_the_ledger_says_of_what_kind_a_claim_is(compared, expected, tolerance, kind, notices):
    claim = ledger.Claim(1, "a", "1", compared, "s", False)
    assert (claim.expected, claim.tolerance, claim.kind) == (expected, tolerance, kind)
    assert claim.notices == notices


def test_every_exercise_is_in_the_index(pages):
    links = pages["lecturers.html"].find("article").select("table:last-of-type a[href*='#ex-']")
    indexed = [
        link["href"]
        for link in links
        if re.fullmatch(r"\d", link.find_parent("tr").find_all("td")[2].get_text())
    ]
    expected = [
        f"{c.file.stem}.html#{label}" for c in WRITTEN for _, label, _, _ in chapters.exercises(c.cells)
    ]
    assert indexed == expected and len(expected) >= 3 * len(WRITTEN)


def test_every_objective_is_on_the_lecturers_page(pages):
    text = pages["lecturers.html"].find("article").get_text()
    assert all(chapter.title in text for chapter in WRITTEN)
    assert text.count("You need") == len(WRITTEN)


def test_the_entry_to_cite_is_that_of_the_citation_file(pages):
    cited = pages["lecturers.html"].find("article").find("pre").get_text()
    citation = (ROOT / "CITATION.cff").read_text()
    for key in ("title", "version", "url"):
        assert re.search(rf'^{key}: "?(.+?)"?$', citation, re.M)[1] in cited


def test_the_ledger_is_searched_by_words(pages, in_browser):
    whole, some, none = in_browser("ledger.mjs", "", "critical relu", "xyzzyxyzzy")
    rows = [row.get_text() for row in pages["ledger.html"].find("article").select(".ntk-ledger tbody tr")]
    assert whole["claims"] == rows and whole["tables"] == len(FILES)
    assert some["claims"] == [row for row in rows if "critical" in row.lower() and "relu" in row.lower()]
    assert 0 < some["tables"] < len(FILES) and some["count"] == f"{len(some['claims'])} of {len(rows)}"
    assert none == {"claims": [], "tables": 0, "count": f"0 of {len(rows)}"}
