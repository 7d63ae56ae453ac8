"""The site in a real browser: every page, wide and narrow, light and dark."""

import functools
import json
import os
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
PAGE_BYTES = 2_500_000

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: install Debian's chromium, or name it in CHROMIUM"),
    pytest.mark.skipif(not shutil.which("node"), reason="no Node.js, which drives the browser"),
    pytest.mark.skipif(
        not (HERE / "node_modules").is_dir(), reason="run `npm ci --ignore-scripts` in tests/site for the browser tests"
    ),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """The requests are of no interest here."""


@pytest.fixture(scope="module")
def visits(site):
    """What pages.mjs found: a list of visits, one for each page, width and colour scheme."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pages = sorted(path.name for path in site.glob("*.html"))
    result = subprocess.run(
        ["node", str(HERE / "pages.mjs"), f"http://127.0.0.1:{server.server_port}/", *pages],
        capture_output=True, text=True, check=False, env={**os.environ, "CHROMIUM": CHROMIUM},
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_every_page_was_visited_four_times(visits, site):
    assert len(visits) == 4 * len(list(site.glob("*.html")))


def test_the_visits_saw_what_a_chapter_has(visits):
    chapters = [visit for visit in visits if visit["page"][:2].isdigit()]
    for visit in chapters:
        assert min(visit["counts"][kind] for kind in ("math", "figures", "solutions", "claims")) > 0, visit
    assert sum(visit["counts"]["sliders"] for visit in chapters) > 0


@pytest.mark.parametrize(
    "kind",
    ["requests", "errors", "formulas", "scroll", "images", "sliders", "solutions", "axe"],
    ids=[
        "no_request_leaves_the_site", "no_script_fails", "every_formula_is_typeset", "no_page_scrolls_sideways",
        "every_picture_is_there", "sliders_work_by_keyboard", "solutions_open_by_keyboard", "accessible",
    ],
)  # fmt: skip
def test_no_problem(visits, kind):
    found = [
        f"{visit['page']} at {visit['width']} px, {visit['colorScheme']}: {problem}"
        for visit in visits
        for problem in visit["problems"][kind]
    ]
    assert not found, "\n".join(found)


def test_pages_are_light(visits):
    heavy = {visit["page"]: visit["counts"]["bytes"] for visit in visits if visit["counts"]["bytes"] > PAGE_BYTES}
    assert not heavy
