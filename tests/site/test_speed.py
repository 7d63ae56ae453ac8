"""The chapters are light, and soon to be read. Run with -s for the table of weights and times."""

import pytest

KILOBYTES = 2000  # all that a chapter loads on a plain screen, decoded
SHARP_KILOBYTES = 2200  # and on a sharp one
READABLE = 5.0  # work to a chapter's first formula over the front page's: 3 where nothing else runs


@pytest.fixture(scope="module")
def speeds(site, in_browser):
    speeds = in_browser("speed.mjs", *sorted(path.name for path in site.glob("[0-9][0-9]_*.html")))
    print("\n  kB  kB2x  text  first    all  work front (ms)")
    for speed in speeds:
        print("{kB:4} {kB2x:5} {text:5} {first:6} {all:6} {work:5} {front:5}  {page}".format(**speed))
    return speeds


def test_chapters_are_light(speeds):
    assert speeds
    heavy = {
        speed["page"]: speed
        for speed in speeds
        if speed["kB"] >= KILOBYTES or speed["kB2x"] >= SHARP_KILOBYTES
    }
    assert not heavy


def test_a_plain_screen_loads_less(speeds):
    assert all(speed["kB"] < speed["kB2x"] for speed in speeds)


def test_chapters_are_soon_to_be_read(speeds):
    """What the page's thread computes, against the front page beside it: other programs slow both down."""
    slow = {speed["page"]: speed for speed in speeds if speed["work"] >= READABLE * speed["front"]}
    assert not slow
