"""The search, as a reader uses it: the button's keys, a word, Enter."""

import re

import pytest

NOWHERE = "xyzzyxyzzy"


@pytest.fixture(scope="module")
def wanted(pages):
    """Pairs of a word and the page where it must be found: a word of a section's title in each chapter, names
    in the API."""
    pairs = []
    for name, page in pages.items():
        if re.match(r"\d\d_", name):
            titles = " ".join(title.get_text() for title in page.select("article h2")[1:-2])
            pairs.append((max(re.findall(r"[a-z]+", titles), key=len), name))
    return pairs + [(name, "api.html") for name in ("empirical_ntk", "nngp", "MLP")]


@pytest.fixture(scope="module")
def results(wanted, in_browser):
    words = [word for word, _page in wanted] + [NOWHERE]
    return dict(zip(words, in_browser("search.mjs", "index.html", *words), strict=True))


def test_search_finds_the_page(results, wanted):
    assert len(results) >= 8
    assert not {word: results[word]["pages"] for word, page in wanted if page not in results[word]["pages"]}
    assert results[NOWHERE]["pages"] == []


@pytest.mark.parametrize("kind", ["errors", "axe"])
def test_results_have_no_problem(results, kind):
    assert not {word: result[kind] for word, result in results.items() if result[kind]}
