"""Every chapter as Colab runs it: nothing there but Colab's packages and the notebook's file.

The cell that installs the package asks the hosting for it. git reads that address from a local clone of
the last commit here (`insteadOf`), so commit before `make colab`.
"""

import pytest
from simulation import ROOT

CHAPTERS = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
INSTALL_LIMIT = 60  # seconds
every_chapter = pytest.mark.parametrize("run", CHAPTERS, indirect=True, scope="session")


@every_chapter
def test_the_chapter_runs_to_its_end(run):
    assert run.error is None, run.error


@every_chapter
def test_the_package_comes_in_less_than_a_minute(run):
    assert any(each.startswith("ntk-helpers==") for each in run.after - run.before)
    assert run.install_seconds < INSTALL_LIMIT


@every_chapter
def test_nothing_that_was_there_is_changed(run):
    assert run.before <= run.after, sorted(run.before - run.after)


@every_chapter
def test_the_outputs_are_those_stored(run):
    assert not run.differences, "\n".join(run.differences)
