"""The Sphinx extension: what each plain form becomes."""

import base64
from io import BytesIO
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from ntkbook import markdown, numbering, outputs, reader
from PIL import Image


def png(width, height):
    buffer = BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


FIGURE = (
    '<figure class="ntk-figure" id="fig-01-a"><img src="data:image/png;base64,{}" alt="A &quot;line&quot;: it falls." '
    'width="720" style="max-width:100%"><figcaption>Loss $L &lt; 1$ &amp; time.</figcaption></figure>'
).format(png(3, 2))
SLIDER = (
    '<figure class="ntk-slider" id="fig-01-s"><img src="data:image/webp;base64,AA==" alt="one">\n\n'
    '<input type="range"><output>1</output><figcaption>Width $n$.</figcaption></figure>'
)
CLAIM = "✓ the gap {}: measured 1e-17, expected < 1e-12 [Jacot 2018, Thm 1]"


@pytest.mark.parametrize(
    ("plain", "myst"),
    [
        ("[(eq-01-flow)](#eq-01-flow)", "{eq}`eq-01-flow`"),
        ("[the theorem](#thm-01-x)", "{numref}`Theorem %s <thm-01-x>`"),
        ("[it](01_ntk.ipynb#def-01-x)", "{numref}`Definition %s <def-01-x>`"),
        ("[the exercise](#ex-01-2)", "{numref}`Exercise %s <ex-01-2>`"),
        ("[the figure](#fig-01-a)", "{numref}`fig-01-a`"),
        ("[Jacot et al. (2018)](#cite-jacot2018)", "{cite:t}`jacot2018`"),
        ("[Jacot et al. (2018), Theorem 1](#cite-jacot2018)", "{cite:t}`jacot2018{Theorem 1}`"),
        ('## Two cells <a id="sec-01-two"></a>', "(sec-01-two)=\n## Two cells"),
        ("[chapter 01](01_ntk.ipynb) and [a section](#sec-x)", "[chapter 01](01_ntk.ipynb) and [a section](#sec-x)"),
        ("in code `[(eq-x)](#eq-x)` nothing changes", "in code `[(eq-x)](#eq-x)` nothing changes"),
        ("```\n[x](#thm-x)\n```\n[x](#thm-x)", "```\n[x](#thm-x)\n```\n{numref}`Theorem %s <thm-x>`"),
    ],
)
def test_references(plain, myst):
    assert markdown.convert(plain) == myst


@pytest.mark.parametrize(
    ("plain", "myst"),
    [
        (
            '**Theorem (Limit, $f(x)$).** <a id="thm-x"></a>\nText.',
            '```{box} Theorem\n:title: "Limit, $f(x)$"\n:label: "thm-x"\n\nText.\n```\n',
        ),
        ("**Proof.** By [(eq-a)](#eq-a).", "```{box} Proof\n\nBy {eq}`eq-a`.\n```\n"),
        ("**Warning (float32).** Text.", '```{admonition} float32\n:class: "warning"\n\nText.\n```\n'),
        ("**Note.** Text.", '```{admonition} Note\n:class: "note"\n\nText.\n```\n'),
        ("**Remark.**\n```\ncode\n```", "````{box} Remark\n\n```\ncode\n```\n````\n"),
        ("**Why.** Not a box.", "**Why.** Not a box."),
        ("Text **Proof.** inside.", "Text **Proof.** inside."),
    ],
)
def test_boxes(plain, myst):
    assert markdown.convert(plain) == myst


def display(html):
    return new_output("display_data", data={"text/html": html, "text/plain": "Figure"})


def test_a_figure_becomes_a_file_with_number_caption_and_alt(tmp_path):
    images = tmp_path / "_build" / "figures"
    [output] = outputs.convert([display(FIGURE)], images)
    with Image.open(images / "fig-01-a.webp") as picture:
        assert picture.size == (3, 2) and picture.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    assert output.data == {
        "text/markdown": "```{figure} /_build/figures/fig-01-a.webp\n"
        ':name: "fig-01-a"\n:alt: "A \\"line\\": it falls."\n:width: "720"\n\nLoss $L < 1$ & time.\n```\n'
    }


def test_a_slider_stays_html_in_one_block(tmp_path):
    [output] = outputs.convert([display(SLIDER)], tmp_path)
    assert output.data["text/markdown"] == (
        '```{slider}\n:name: "fig-01-s"\n\n<div class="ntk-slider"><img src="data:image/webp;base64,AA==" alt="one">'
        ' <input type="range"><output>1</output></div>\n\nWidth $n$.\n```\n'
    )


def test_claims_leave_the_stream_in_order(tmp_path):
    text = f"before\n{CLAIM.format('a < b')}\n{CLAIM.format(2)}\nafter\n"
    first, claims, last = outputs.convert([new_output("stream", text=text)], tmp_path, first_claim=3)
    assert (first.text, last.text) == ("before\n", "after\n")
    html = claims.data["text/html"]
    assert html.count("<li ") == 2
    assert 'id="claim-3"' in html and 'id="claim-4"' in html
    assert "the gap a &lt; b</span>" in html
    assert "measured <b>1e-17</b>, expected <b>&lt; 1e-12</b>" in html
    assert "Jacot 2018, Thm 1" in html


def test_other_outputs_stay(tmp_path):
    given = [new_output("stream", text="1\n"), display("<table></table>"), new_output("stream", name="stderr", text="x")]
    assert outputs.convert(given, tmp_path) == given


def read(*cells):
    return reader.read(nbformat.writes(new_notebook(cells=list(cells))), images="unused").cells


def solution(source="#@title Solution\ncheck(1)"):
    return new_code_cell(source, metadata={"tags": ["solution"]}, outputs=[new_output("stream", text=CLAIM.format(1))])


def test_solutions_of_an_exercise_share_one_closed_details():
    one, two = (new_markdown_cell(f'**Exercise (A & {x}).** <a id="ex-01-{x}"></a>\nDo it.') for x in "BC")
    cells = read(one, solution(), solution(), two, solution())
    kinds = [cell.source.split(">")[0] if cell.cell_type == "markdown" else "code" for cell in cells]
    opens, closes = '<details class="ntk-solution"', "</details"
    assert kinds[1:5] == [opens, "code", "code", closes] and kinds[6:] == [opens, "code", closes]
    assert "A &amp; B" in cells[1].source
    assert cells[2].source == "check(1)"


def test_claims_are_numbered_through_the_chapter():
    html = [cell.outputs[0].data["text/html"] for cell in read(solution(), solution()) if cell.cell_type == "code"]
    assert 'id="claim-1"' in html[0] and 'id="claim-2"' in html[1]


def test_colab_cells_are_left_out():
    assert read(new_code_cell("install", metadata={"tags": ["colab-only"]})) == []
    assert read(new_markdown_cell('- <a id="cite-x"></a>', metadata={"tags": ["colab-only"]})) == []


def test_hidden_code_is_folded_and_its_output_is_not():
    shown = new_code_cell("plot()", metadata={"tags": ["hide-input"]}, outputs=[new_output("stream", text="1\n")])
    opens, cell, closes, output = read(shown)
    assert opens.source.startswith('<details class="ntk-hidden">') and closes.source == "</details>"
    assert cell.source == "plot()" and cell.outputs == []
    assert output.metadata.tags == ["remove-input"] and output.outputs[0].text == "1\n"


def test_the_line_under_the_title():
    line = "[Open in Colab](https://colab.example/x.ipynb) · [Download](01_x.ipynb) · 41 CPU seconds on 2026-11-24, JAX 0.10.2"
    [cell] = read(new_markdown_cell(f"# 01 Title\n\n{line}"))
    assert cell.source == (
        "# 01 Title\n\n{.ntk-doors}\n[Open in Colab](https://colab.example/x.ipynb)"
        " · {download}`Download <01_x.ipynb>` · 41 CPU seconds on 2026-11-24, JAX 0.10.2"
    )


def test_numbers_follow_the_chapter_and_not_its_place():
    env = SimpleNamespace(toc_fignumbers={"07_x": {"figure": {"a": (3,), "b": (4,)}}, "index": {"figure": {"c": (1,)}}})
    numbering.number_by_chapter(None, env)
    assert env.toc_fignumbers == {"07_x": {"figure": {"a": (7, 1), "b": (7, 2)}}, "index": {"figure": {"c": (1,)}}}
