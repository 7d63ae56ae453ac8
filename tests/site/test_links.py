"""What points somewhere on the site, and to the repository: anchors, numbers, files."""

import re
import tomllib
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
KIND = "Algorithm|Corollary|Definition|Example|Exercise|Figure|Lemma|Proposition|Remark|Theorem"
NUMBER = re.compile(rf"(?:{KIND}) \d+\.\d+|\(\d+\.\d+\)")
OWN = re.compile(r"(?:Definition|Exercise|Figure) \d+\.\d+")  # papers have theorems with such numbers, too
TITLES = ".caption-number, .ntk-box-kind, .eqno"


def links(pages):
    """Yield every link of every page: the page's name and the <a>."""
    for name, page in pages.items():
        for anchor in page.find_all("a", href=True):
            yield name, anchor


@pytest.fixture(scope="module")
def targets(pages):
    """For each page, its elements by id."""
    return {name: {tag["id"]: tag for tag in page.find_all(id=True)} for name, page in pages.items()}


def resolve(targets, name, href):
    """Return the element that a link to an anchor within the site leads to, None where there is none."""
    parts = urlsplit(href)
    return targets.get(unquote(parts.path) or name, {}).get(unquote(parts.fragment))


def test_internal_links_lead_somewhere(site, pages, targets):
    internal = [
        (name, anchor["href"])
        for name, anchor in links(pages)
        if not re.match(r"(?:[a-z]+:|//)", anchor["href"])
    ]
    files = {unquote(urlsplit(href).path) for _name, href in internal}
    assert not [file for file in files if file and not (site / file).exists()]
    anchors = [(name, href) for name, href in internal if urlsplit(href).fragment]
    assert len(anchors) > 500
    assert not [(name, href) for name, href in anchors if resolve(targets, name, href) is None]


def test_numbers_in_links_are_those_of_their_targets(pages, targets):
    wrong, count = [], 0
    for name, anchor in links(pages):
        text = anchor.get_text().strip()
        if not NUMBER.fullmatch(text) or anchor.find_parent(class_="bd-toc"):
            continue
        count += 1
        target = resolve(targets, name, anchor["href"])
        title = target and (target.select_one(TITLES) or target)
        if title is None or title.get_text().strip().removesuffix("#") != text:
            wrong.append((name, text, anchor["href"]))
    assert count > 50
    assert not wrong


def test_numbers_in_the_text_are_links(pages):
    bare = []
    for name, page in pages.items():
        for text in page.find("article").find_all(string=OWN) if page.find("article") else []:
            if not text.find_parent(["a", "pre", "code"]) and not text.find_parent(
                class_=["caption-number", "ntk-box-kind"]
            ):
                bare.append((name, str(text)))
    assert not bare


def test_citations_lead_to_the_bibliography(pages, targets):
    cited = [(name, anchor) for name, anchor in links(pages) if "#cite-" in anchor["href"]]
    assert len(cited) > 100
    for name, anchor in cited:
        entry = resolve(targets, name, anchor["href"])
        years = re.findall(r"\d{4}", anchor.get_text())
        assert not years or years[0] in entry.get_text(), (name, anchor)


def test_links_to_the_repository_lead_to_a_file(pages):
    with open(ROOT / "pyproject.toml", "rb") as file:
        repository = urlsplit(tomllib.load(file)["project"]["urls"]["Repository"]).path
    found, missing = 0, []
    for name, anchor in links(pages):
        path = unquote(urlsplit(anchor["href"]).path)
        if match := re.search(rf"{re.escape(repository)}/(?:blob|tree|raw|edit)/main/(.+)", path):
            found += 1
            if not (ROOT / match[1]).exists():
                missing.append((name, anchor["href"]))
    assert found >= 8
    assert not missing
