"""The API reference documents what can be imported, and the table of notation names what exists."""

import importlib
import inspect
import json
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

import ntk_helpers

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"][
    "Repository"
]
NOTATION = (ROOT / "notebooks" / "notation.md").read_text(encoding="utf-8")
CODE = re.findall(r"\{py:obj\}`([^<`]+) <([\w.]+)>`", NOTATION)


def public():
    """Every public object by the name to import it by."""
    found = pkgutil.walk_packages(ntk_helpers.__path__, "ntk_helpers.")
    rooms = [module.name for module in found if module.ispkg and "._" not in module.name]
    modules = [importlib.import_module(name) for name in (*rooms, "ntk_helpers.book.figures")]
    top = ntk_helpers.__all__
    return {
        f"ntk_helpers.{name}" if name in top else f"{module.__name__}.{name}": getattr(module, name)
        for module in modules
        for name in module.__all__
    }


def members(cls):
    fields = list(getattr(cls, "__dataclass_fields__", getattr(cls, "_fields", ())))
    defined = [
        name for name, value in vars(cls).items() if inspect.isfunction(value) or isinstance(value, property)
    ]
    return {name for name in fields + defined if not name.startswith(("_", "tree_"))}


@pytest.fixture(scope="module")
def article(pages):
    return pages["api.html"].find("article")


@pytest.fixture(scope="module")
def notation(pages):
    return pages["notation.html"].find("article")


def test_every_public_name_and_member_is_documented_once(article):
    names = public()
    classes = {name: value for name, value in names.items() if inspect.isclass(value)}
    expected = [*names, *(f"{name}.{member}" for name, cls in classes.items() for member in members(cls))]
    assert "ntk_helpers.empirical_ntk" in expected and "ntk_helpers.learning.training.Run.change" in expected
    assert sorted(dt.get("id", "") for dt in article.select("dl.py > dt")) == sorted(expected)


def test_everything_but_a_field_says_what_it_is(article):
    silent = [
        dt["id"]
        for dt in article.select("dl.py:not(.attribute) > dt")
        if not dt.find_next_sibling("dd").get_text(strip=True)
    ]
    assert not silent


def test_formulas_are_formulas(article):
    assert len(article.select(".math")) > 200
    text = BeautifulSoup(str(article), "html.parser")
    for tag in text.select(".math, code, pre, dt"):
        tag.decompose()
    assert not re.findall(r".{0,40}(?:\$|\\|\*\*|`).{0,40}", text.get_text())


def test_examples_are_code(article):
    shown = [block.get_text() for block in article.select("div.highlight-pycon pre")]
    assert len(shown) > 20 and all(text.startswith(">>> ") for text in shown)
    assert not article.find("blockquote")


def test_source_links_lead_to_the_definition(article):
    wrong = []
    for dt in article.select("dl.py:not(.attribute) > dt"):
        link, name = dt.select_one("a.ntk-source")["href"], dt["id"].rpartition(".")[2]
        path, line = re.fullmatch(rf"{re.escape(REPOSITORY)}/blob/main/([\w/]+\.py)#L(\d+)", link).groups()
        text = (ROOT / path).read_text(encoding="utf-8").splitlines()[int(line) - 1]
        if not re.match(rf"(\s*def |class |){name}\b", text):
            wrong.append((dt["id"], link, text))
    assert not wrong


def test_papers_and_our_own_types_are_linked(article):
    ntk = article.find(id="ntk_helpers.ntk").find_next_sibling("dd")
    assert ntk.find("a", href="bibliography.html#cite-jacot2018").get_text() == "2018"
    assert article.find(id="ntk_helpers.ntk").find("a", href="#ntk_helpers.MLP")
    assert "Float[n1, d]" in article.find(id="ntk_helpers.ntk").get_text()


def test_search_finds_names(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    objects = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))["objects"]
    found = {f"{prefix}.{entry[-1]}".lstrip(".") for prefix, entries in objects.items() for entry in entries}
    assert set(public()) <= found
    assert "ntk_helpers.MLP.depth" in found


@pytest.mark.parametrize(("shown", "target"), sorted(set(CODE)))
def test_code_in_the_table_of_notation_exists(shown, target):
    path, _, name = target.rpartition(".")
    owner = pkgutil.resolve_name(path)
    if inspect.isclass(owner) and shown == name:
        assert name in members(owner)
    else:
        assert shown == name or shown in inspect.signature(getattr(owner, name)).parameters
        assert callable(getattr(owner, name))


def test_every_row_and_term_of_the_notation_leads_somewhere(notation):
    rows = [row.find_all(["th", "td"]) for row in notation.find_all("tr")]
    table = [row for row in rows if len(row) == 4]
    assert {row[3].get_text(strip=True) for row in table if row[3].name == "th"} == {"defined"}
    entries = [row[3] for row in table if row[3].name == "td"] + notation.select("dl.glossary > dd")
    assert len(entries) > 80
    assert not [
        entry.parent.get_text()
        for entry in entries
        if not entry.select_one("a.reference.internal[href*='.html']")
    ]


@pytest.mark.parametrize(
    ("text", "linked"),
    [
        ("(Lee et al. 2019, eq. 8)", "(Lee et al. {cite:year}`lee2019`, eq. 8)"),
        ("Mei &\n Montanari (2022)", "Mei &\n Montanari ({cite:year}`mei2022`)"),
        ("Belkin, Hsu & Xu 2020", "Belkin, Hsu & Xu {cite:year}`belkin2020`"),
        ("Hanin & Nica 2020", "Hanin & Nica {cite:year}`hanin2020`"),
        ("Polyak 1964", "Polyak {cite:year}`polyak1964`"),
        ("Nobody et al. 2019; Lee et al. 1919", "Nobody et al. 2019; Lee et al. 1919"),
    ],
)
def test_citations_are_linked_where_the_bibliography_has_the_paper(text, linked):
    from ntkbook.citations import link_citations

    assert link_citations(text) == linked
