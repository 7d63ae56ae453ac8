"""The site in a real browser: every page, wide and narrow, light and dark."""

import pytest


@pytest.fixture(scope="module")
def visits(site, in_browser):
    """What pages.mjs found: a list of visits, one for each page, width and colour scheme."""
    return in_browser("pages.mjs", *sorted(path.name for path in site.glob("*.html")))


def test_every_page_was_visited_four_times(visits, site):
    assert len(visits) == 4 * len(list(site.glob("*.html")))


def test_the_visits_saw_what_a_chapter_has(visits):
    chapters = [visit for visit in visits if visit["page"][:2].isdigit()]
    for visit in chapters:
        assert min(visit["counts"][kind] for kind in ("math", "figures", "solutions", "claims")) > 0, visit
    assert sum(visit["counts"]["sliders"] for visit in chapters) > 0


@pytest.mark.parametrize(
    "kind",
    ["requests", "errors", "skip", "formulas", "scroll", "images", "sliders", "solutions", "axe"],
    ids=[
        "no_request_leaves_the_site",
        "no_script_fails",
        "content_is_one_key_away",
        "every_formula_is_typeset",
        "no_page_scrolls_sideways",
        "every_picture_is_there",
        "sliders_work_by_keyboard_mouse_and_touch",
        "solutions_open_and_close_by_keyboard",
        "accessible",
    ],
)
def test_no_problem(visits, kind):
    found = [
        f"{visit['page']} at {visit['width']} px, {visit['colorScheme']}: {problem}"
        for visit in visits
        for problem in visit["problems"][kind]
    ]
    assert not found, "\n".join(found)
