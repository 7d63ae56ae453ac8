"""The search, as a reader uses it: the button's keys, a word, Enter."""

import re

import pytest
from bs4 import BeautifulSoup


def wanted(site):
    """Return pairs of a word and the page where it must be found: a word of a title in each chapter, names in the API."""
    pairs = []
    for path in sorted(site.glob("[0-9][0-9]_*.html")):
        titles = [title.get_text() for title in BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select("article h2")]
        pairs.append((max(re.findall(r"[a-z]+", " ".join(titles[1:-2])), key=len), path.name))
    if (site / "api.html").exists():
        pairs += [(name, "api.html") for name in ("empirical_ntk", "nngp", "MLP")]
    return pairs


@pytest.fixture(scope="module")
def results(site, in_browser):
    words = [word for word, _ in wanted(site)]
    return dict(zip(words, in_browser("search.mjs", "index.html", *words, "xyzzyxyzzy"), strict=False))


def test_search_finds_the_page(results, site):
    missed = {word: results[word]["pages"] for word, page in wanted(site) if page not in results[word]["pages"]}
    assert len(results) >= 8
    assert not missed


@pytest.mark.parametrize("kind", ["errors", "axe"])
def test_results_have_no_problem(results, kind):
    assert not {word: result[kind] for word, result in results.items() if result[kind]}
