"""Every chapter is what a chapter has to be; and each rule finds the defect it is there for."""

import copy
from pathlib import Path

import lint as rules
import nbformat
import pytest
from lint import RULES, Chapter, citation_keys, lint
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CHAPTERS = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
CLAIM = "✓ the kernel is symmetric: measured 1e-17, expected < 1e-12 [Jacot 2018, Prop. 2]\n"
ALT = "A falling curve with a grey band around it that gets narrower from left to right."


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter(name):
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    problems = lint(Chapter(name, notebook, citation_keys(NOTEBOOKS / "references.bib"), set(CHAPTERS)))
    assert not problems, "\n".join(problems)


def test_there_are_chapters():
    assert CHAPTERS, f"no chapter in {NOTEBOOKS}"


def figure(name="fig-03-a", caption="The kernel narrows.", alt=ALT):
    html = f'<figure id="{name}"><img src="data:," alt="{alt}"><figcaption>{caption}</figcaption></figure>'
    return new_output("display_data", data={"text/html": html})


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def solution():
    metadata = {
        "tags": ["solution"],
        "cellView": "form",
        "jupyter": {"outputs_hidden": True, "source_hidden": True},
    }
    return new_code_cell("#@title Solution\ncheck(1)", outputs=[stream(CLAIM)], metadata=metadata)


def sound_notebook():
    """A chapter without any defect."""
    text = "Why the kernel stays [as it is](00_start.ipynb), see [Jacot et al. (2018)](#cite-jacot2018). "
    cells = [
        new_markdown_cell("# 03 Title"),
        new_markdown_cell(
            "**You will learn**\n\n- one\n- two,\n  on two lines\n- three\n\n**You need** chapter 01."
        ),
        new_code_cell("install", metadata={"tags": ["colab-only", "hide-input"]}),
        new_code_cell("book.setup()", metadata={"tags": ["hide-input"]}),
        new_markdown_cell("## A section\n\n" + text * 110),
        *[new_code_cell("check(1)", outputs=[stream(CLAIM)]) for _ in range(10)],
        *[new_code_cell("show()", outputs=[figure(f"fig-03-{i}")]) for i in range(4)],
        new_markdown_cell("## When this fails\n\n$$\nx\n$$ (eq-x)"),
        new_markdown_cell("## Summary"),
        new_markdown_cell("## Exercises"),
    ]
    for number in range(3):
        cells += [
            new_markdown_cell(
                f'**Exercise (Title).** <a id="ex-03-{number}"></a>\nDo it.\n\n*Level 2, 20 minutes.*'
            ),
            solution(),
        ]
    cells.append(new_markdown_cell("## References\n\n- [Jacot et al. (2018)](#cite-jacot2018)"))
    cells.append(new_code_cell("book.versions()", metadata={"tags": ["nbval-ignore-output"]}))
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
    return new_notebook(cells=cells, metadata={"ntk_book": {"cpu_seconds": 41}})


def code(notebook, start):
    return next(cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.startswith(start))


def prose(notebook, start):
    return next(
        cell for cell in notebook.cells if cell.cell_type == "markdown" and cell.source.startswith(start)
    )


def replace(start, old, new):
    def plant(notebook):
        cell = prose(notebook, start)
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return plant


def add_output(output):
    return lambda notebook: code(notebook, "check").outputs.append(output)


def set_figure(**changes):
    def plant(notebook):
        code(notebook, "show").outputs = [figure(**changes)]

    return plant


def set_source(start, source):
    def plant(notebook):
        code(notebook, start).source = source

    return plant


def set_tags(start, *tags):
    def plant(notebook):
        code(notebook, start).metadata["tags"] = list(tags)

    return plant


def drop(start, how_many=1):
    def plant(notebook):
        for cell in [cell for cell in notebook.cells if cell.source.startswith(start)][:how_many]:
            notebook.cells.remove(cell)

    return plant


def lengthen_all(notebook):
    for cell in notebook.cells:
        if cell.source.startswith(("check", "show")):
            cell.source += "\nx = 1" * 9


def never_run(notebook):
    code(notebook, "check").execution_count = None


def unhidden(notebook):
    code(notebook, "#@title").metadata.pop("cellView")


def half_hidden(notebook):
    code(notebook, "#@title").metadata["jupyter"].pop("outputs_hidden")


def crowd(notebook):
    code(notebook, "check").outputs = [stream(CLAIM * 7)]


def a_little_slow(notebook):
    notebook.metadata["ntk_book"]["cpu_seconds"] = 113


def slow(notebook):
    notebook.metadata["ntk_book"]["cpu_seconds"] = 900


DEFECTS = [
    ("executed", never_run, "execution counts"),
    ("executed", drop("show"), "execution counts"),
    ("clean_outputs", add_output(stream("watch out", "stderr")), "stderr"),
    ("clean_outputs", add_output(new_output("error", ename="E", evalue="", traceback=[])), "error"),
    ("clean_outputs", add_output(stream("UserWarning: x")), "warning"),
    ("clean_outputs", add_output(new_output("display_data", data={"image/png": "AA=="})), "without caption"),
    ("cell_lengths", set_source("check", "x = 1\n" * 25 + "x"), "26 lines"),
    ("cell_lengths", lengthen_all, "median"),
    ("cell_lengths", drop("check", 5), "9 code cells"),
    ("words", replace("## A section", "Why the kernel stays", ""), "words"),
    ("words", replace("## A section", "Why", "Why " * 20), "words"),
    ("figures", drop("show"), "3 figures"),
    ("figures", set_figure(alt=""), "alt text"),
    ("figures", set_figure(alt="A plot."), "alt text"),
    ("figures", set_figure(alt=ALT, caption=ALT), "alt text"),
    ("figures", set_figure(caption=" "), "no caption"),
    ("figures", set_figure(name="fig-a"), "fig-03-"),
    ("skeleton", replace("# 03", "03", "04"), "first cell"),
    ("skeleton", replace("**You will", "- one\n", ""), "three points"),
    ("skeleton", replace("**You will", "**You need**", "Needed"), "You need"),
    ("skeleton", replace("## Summary", "Summary", "In short"), "in this order"),
    ("skeleton", replace("## When this fails", "## When", "### When"), "in this order"),
    ("hidden_cells", set_tags("book.setup"), "book.setup()"),
    ("hidden_cells", set_tags("book.versions"), "book.versions()"),
    ("hidden_cells", set_tags("check", "nbval-ignore-output"), "escapes"),
    ("hidden_cells", set_source("check", "# NBVAL_SKIP\ncheck(1)"), "by a comment"),
    ("claims", drop("check", 1), "9 checked claims"),
    ("claims", add_output(stream("✓ it works\n")), "claim without"),
    ("claims", add_output(stream("✓ a: measured 1, expected 1 ± 0 []\n")), "claim without"),
    ("exercises", drop("**Exercise"), "2 exercises"),
    ("exercises", drop("#@title"), "not followed by a solution"),
    ("exercises", set_source("#@title", "#@title Solution\nprint(1)"), "not followed by a solution"),
    ("exercises", replace("**Exercise", "<a id", "<b id"), "does not start with"),
    ("exercises", replace("**Exercise", "Level 2", "Level 4"), "does not end with"),
    ("exercises", unhidden, "not hidden"),
    ("exercises", half_hidden, "not hidden"),
    ("markdown", replace("## A section", "Why", r"$\bm{x}$"), "boldsymbol"),
    ("markdown", replace("## A section", "Why", "$$\nx \\tag{1}\n$$"), "\\tag"),
    ("markdown", replace("## A section", "Why", "\\begin{align*}"), "aligned"),
    ("markdown", replace("## A section", "\n\n", "\n\n```{note}\n"), "directive"),
    ("markdown", replace("## A section", "Why", "{cite:t}`x`"), "role"),
    ("markdown", replace("## A section", "\n\n", "\n\n> $$\n"), "stray"),
    (
        "markdown",
        replace("## A section", "\n\n", '\n\n**Theorem (A).** <a id="thm-03-a"></a> B.\n\n'),
        "no box",
    ),
    ("markdown", replace("## A section", "\n\n", "\n$$x = 1.$$\n"), "lines of their own"),
    ("markdown", replace("## A section", "00_start.ipynb", "09_x.ipynb"), "09_x.ipynb"),
    (
        "markdown",
        replace("## A section", "\n\n", "\n\n| | question |\n|---|---|\n| 1 | 2 |\n\n"),
        "without a heading",
    ),
    ("references", replace("## A section", "cite-jacot2018", "cite-nobody1900"), "nobody1900"),
    ("references", replace("## References", "cite-jacot2018", "cite-lee2019"), "not listed"),
    ("references", replace("## References", "(#cite-jacot2018)", ""), "nothing is listed"),
    ("time", slow, "900 CPU seconds"),
    ("time", lambda notebook: notebook.metadata.clear(), "0 CPU seconds"),
    ("calm", set_source("check", "x = 1\n" * 15 + "x"), "16 lines"),
    ("calm", lengthen_all, "median"),
    ("calm", crowd, "16 claims in sight"),
    ("calm", a_little_slow, "113 CPU seconds"),
    ("telling", add_output(stream("✓ a: measured 21, expected > 1 [s]\n")), "factor"),
    ("telling", add_output(stream("✓ a: measured -0.5, expected < 1 with ± 0.1 (9 draws) [s]\n")), "factor"),
    (
        "telling",
        add_output(stream("✓ a: measured 1, expected 1 ± 0.6 (9 draws; 1 would show) [s]\n")),
        "half",
    ),
]


@pytest.fixture(autouse=True)
def second_edition(request, monkeypatch):
    if "name" not in request.fixturenames:  # the chapters are what they are
        monkeypatch.setattr(rules, "SECOND", {"03"})


def problems(notebook):
    return lint(Chapter("03_title.ipynb", notebook, {"jacot2018", "lee2019"}, {"00_start.ipynb"}))


def test_a_sound_chapter_passes():
    assert problems(sound_notebook()) == []


@pytest.mark.parametrize(("rule", "plant", "message"), DEFECTS)
def test_a_defect_is_found(rule, plant, message):
    notebook = copy.deepcopy(sound_notebook())
    plant(notebook)
    assert any(problem.startswith(f"{rule}: ") and message in problem for problem in problems(notebook))


def test_a_loose_claim_says_why():
    notebook = sound_notebook()
    add_output(stream("✓ a: measured 21, expected > 1 [s]\n"))(notebook)
    set_source("check", "# loose: the theorem says no more\ncheck(1)")(notebook)
    assert problems(notebook) == []


def test_every_rule_has_a_planted_defect():
    assert {rule for rule, _, _ in DEFECTS} == {rule.__name__ for rule in RULES}
