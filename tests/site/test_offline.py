"""The site as a zip: the same bytes each time, and all of it works from a folder, without a server."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

HERE = Path(__file__).resolve().parent
CHAPTER, WORD = "01_neural_tangent_kernel.html", "eigenvector"


def pack(site, out):
    command = [sys.executable, HERE.parents[1] / "tools" / "offline.py", site, out]
    subprocess.run(command, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def packed(site, tmp_path_factory):
    return pack(site, tmp_path_factory.mktemp("offline") / "book.zip")


@pytest.fixture(scope="module")
def visit(packed, with_browser):
    """What offline.mjs saw in the unpacked folder, whose name has a space as a reader's may."""
    folder = packed.parent / "my books"
    with ZipFile(packed) as archive:
        archive.extractall(folder)
    return json.loads(
        with_browser("node", HERE / "offline.mjs", folder / "ntk-book", WORD, "index.html", CHAPTER).stdout
    )


def test_the_same_site_gives_the_same_bytes(site, packed, tmp_path):
    copied = shutil.copytree(site, tmp_path / "site", copy_function=shutil.copyfile)  # other dates
    assert pack(copied, tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def test_everything_is_in_one_folder_and_sorted(packed):
    names = ZipFile(packed).namelist()
    assert names == sorted(names)
    assert {name.split("/")[0] for name in names} == {"ntk-book"}
    assert {"ntk-book/index.html", "ntk-book/searchindex.js", f"ntk-book/{CHAPTER}"} <= set(names)


def test_nothing_fails_and_nothing_is_asked_of_anybody_else(visit):
    assert visit["problems"] == []


def test_formulas_are_typeset_in_their_font(visit):
    formulas = visit["formulas"][CHAPTER]
    assert formulas["typeset"] == formulas["all"] > 100
    assert formulas["fonts"] > 0


def test_search_finds_a_chapter_by_a_word_in_it(visit):
    assert visit["address"].endswith(f"search.html?q={WORD}")
    assert CHAPTER in visit["found"]
    assert visit["opened"].endswith(visit["found"][0])
