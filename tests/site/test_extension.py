"""The Sphinx extension: what each plain form becomes."""

import base64
from io import BytesIO
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from ntkbook import markdown, numbering, outputs, pictures, reader
from PIL import Image


def encoded(width, height, kind):
    buffer = BytesIO()
    Image.effect_noise((width, height), 100).save(buffer, kind, lossless=True)
    return base64.b64encode(buffer.getvalue()).decode()


FIGURE = (
    '<figure class="ntk-figure" id="fig-01-a">'
    '<img src="data:image/png;base64,{}" alt="A &quot;line&quot;: it falls." '
    'width="720" style="max-width:100%"><figcaption>Loss $L &lt; 1$ &amp; time.</figcaption></figure>'
).format(encoded(1440, 20, "png"))
SLIDER = (
    '<figure class="ntk-slider" id="fig-01-s"><img src="data:image/webp;base64,{0}" alt="one" width="720">\n'
    '<img src="data:image/webp;base64,{0}" alt="two" width="720" hidden>\n\n'
    '<input type="range"><output>1</output><figcaption>Width $n$.</figcaption></figure>'
).format(encoded(30, 20, "webp"))
CLAIM = "✓ the gap {}: measured 1e-17, expected < 1e-12 [Jacot 2018, Thm 1]"


@pytest.mark.parametrize(
    ("plain", "myst"),
    [
        ("[(eq-01-flow)](#eq-01-flow)", "{eq}`eq-01-flow`"),
        ('Hence <a id="eq-01-flow"></a>\n\n$$\na\n$$ (eq-01-flow)', "Hence\n\n$$\na\n$$ (eq-01-flow)"),
        ("[the theorem](#thm-01-x)", "{numref}`Theorem %s <thm-01-x>`"),
        ("[it](01_ntk.ipynb#def-01-x)", "{numref}`Definition %s <def-01-x>`"),
        ("[the exercise](#ex-01-2)", "{numref}`Exercise %s <ex-01-2>`"),
        ("[the figure](#fig-01-a)", "{numref}`fig-01-a`"),
        ("[Jacot et al. (2018)](#cite-jacot2018)", "{cite:t}`jacot2018`"),
        ("[Jacot et al. (2018), Theorem 1](#cite-jacot2018)", "{cite:t}`jacot2018{Theorem 1}`"),
        ('## Two cells <a id="sec-01-two"></a>', "(sec-01-two)=\n## Two cells"),
        (
            "[chapter 01](01_ntk.ipynb) and [a section](#sec-x)",
            "[chapter 01](01_ntk.ipynb) and [a section](#sec-x)",
        ),
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
    with Image.open(images / "fig-01-a.webp") as picture, Image.open(images / "fig-01-a-1x.webp") as at_1x:
        assert (picture.format, picture.size, at_1x.format, at_1x.size) == (
            "WEBP",
            (1440, 20),
            "WEBP",
            (720, 10),
        )
    assert output.data == {
        "text/markdown": "```{figure} /_build/figures/fig-01-a.webp\n"
        ':name: "fig-01-a"\n:alt: "A \\"line\\": it falls."\n:width: "720"\n\nLoss $L < 1$ & time.\n```\n'
    }


def test_a_slider_stays_html_in_one_block_with_its_frames_in_files(tmp_path):
    [output] = outputs.convert([display(SLIDER)], tmp_path)
    assert output.data["text/markdown"] == (
        '```{slider}\n:name: "fig-01-s"\n\n<div class="ntk-slider">'
        '<img src="_images/fig-01-s-1.webp" alt="one" width="720">'
        ' <img src="_images/fig-01-s-2.webp" alt="two" width="720" hidden>'
        ' <input type="range"><output>1</output></div>\n\nWidth $n$.\n```\n'
    )
    assert (tmp_path / "fig-01-s-2.webp").read_bytes() == base64.b64decode(encoded_in(SLIDER))
    assert not list(tmp_path.glob("*-1x.webp"))  # no wider than it is shown


def encoded_in(html):
    return html.partition("base64,")[2].partition('"')[0]


def page_of(html, folder):
    app = SimpleNamespace(confdir=folder, outdir=folder / "html", builder=SimpleNamespace(imagedir="_images"))
    (folder / "html").mkdir()
    context = {"body": html}
    pictures.offer(app, "page", "page.html", context, None)
    return context["body"]


@pytest.mark.parametrize(
    ("width", "rest", "densities"),
    [
        (720, "", 'width="720" height="10" srcset="_images/a-1x.webp 1x, _images/a.webp 2.00x"'),
        (
            1548,
            " hidden",
            'width="1548" height="22" srcset="_images/a-1x.webp 1x, _images/a.webp 1.86x" '
            'hidden="" loading="lazy"',
        ),
    ],
)
def test_a_picture_is_offered_at_two_densities(tmp_path, width, rest, densities):
    pictures.save(base64.b64decode(encoded_in(FIGURE)), tmp_path / pictures.FOLDER / "a.webp", width)
    page = page_of(f'<p><img alt="a &lt; b" src="_images/a.webp" width="{width}"{rest}></p>', tmp_path)
    assert page == f'<p><img src="_images/a-1x.webp" alt="a &lt; b" {densities}></p>'
    assert {path.name for path in (tmp_path / "html" / "_images").iterdir()} == {"a.webp", "a-1x.webp"}


def test_a_picture_that_would_not_be_lighter_keeps_its_one_file(tmp_path):
    pictures.save(base64.b64decode(encoded_in(SLIDER)), tmp_path / pictures.FOLDER / "a.webp", 30)
    page = page_of('<img alt="a" src="_images/a.webp" width="30">', tmp_path)
    assert page == '<img src="_images/a.webp" alt="a" width="30" height="20">'


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
    assert html.startswith('<details class="ntk-checked"><summary>2 claims checked</summary><ul')


def test_a_single_claim_is_its_own_line(tmp_path):
    claim = new_output("stream", text=CLAIM.format("a < b"))
    [folded] = outputs.convert([claim], tmp_path)
    assert "<summary>the gap a &lt; b</summary><ul" in folded.data["text/html"]
    [open_] = outputs.convert([claim], tmp_path, fold=False)
    assert open_.data["text/html"].startswith("<ul")


def test_other_outputs_stay(tmp_path):
    given = [
        new_output("stream", text="1\n"),
        display("<table></table>"),
        new_output("stream", name="stderr", text="x"),
    ]
    assert outputs.convert(given, tmp_path) == given


def read(*cells):
    return reader.read(nbformat.writes(new_notebook(cells=list(cells))), images="unused").cells


def solution(source="#@title Solution\ncheck(1)"):
    return new_code_cell(
        source, metadata={"tags": ["solution"]}, outputs=[new_output("stream", text=CLAIM.format(1))]
    )


def test_solutions_of_an_exercise_share_one_closed_details():
    one, two = (new_markdown_cell(f'**Exercise (A & {x}).** <a id="ex-01-{x}"></a>\nDo it.') for x in "BC")
    cells = read(one, solution(), solution(), two, solution())
    kinds = [cell.source.split(">")[0] if cell.cell_type == "markdown" else "code" for cell in cells]
    opens, closes = '<details class="ntk-solution"', "</details"
    assert kinds[1:5] == [opens, "code", "code", closes] and kinds[6:] == [opens, "code", closes]
    assert "A &amp; B" in cells[1].source
    assert cells[2].source == "check(1)"


def test_claims_are_numbered_through_the_chapter():
    html = [
        cell.outputs[0].data["text/html"] for cell in read(solution(), solution()) if cell.cell_type == "code"
    ]
    assert 'id="claim-1"' in html[0] and 'id="claim-2"' in html[1]


def test_colab_cells_are_left_out():
    assert read(new_code_cell("install", metadata={"tags": ["colab-only"]})) == []
    assert read(new_markdown_cell('- <a id="cite-x"></a>', metadata={"tags": ["colab-only"]})) == []


def test_hidden_code_is_folded_and_its_output_is_not():
    shown = new_code_cell(
        "plot()", metadata={"tags": ["hide-input"]}, outputs=[new_output("stream", text="1\n")]
    )
    opens, cell, closes, output = read(shown)
    assert opens.source.startswith('<details class="ntk-hidden">') and closes.source == "</details>"
    assert cell.source == "plot()" and cell.outputs == []
    assert output.metadata.tags == ["remove-input"] and output.outputs[0].text == "1\n"


def test_statistics_are_folded_whole():
    folded = new_code_cell(
        "check(1)", metadata={"tags": ["hide-cell"]}, outputs=[new_output("stream", text=CLAIM.format(1))]
    )
    opens, cell, closes = read(folded)
    assert opens.source.startswith('<details class="ntk-hidden">') and closes.source == "</details>"
    assert cell.source == "check(1)" and cell.outputs[0].data["text/html"].startswith("<ul")


def test_the_line_under_the_title():
    doors = "[Open in Colab](https://colab.example/x.ipynb) · [Download](01_x.ipynb)"
    line = f"{doors} · 41 CPU seconds on 2026-11-24, JAX 0.10.2"
    [cell] = read(new_markdown_cell(f"# 01 Title\n\n{line}"))
    assert cell.source == (
        "# 01 Title\n\n{.ntk-doors}\n[Open in Colab](https://colab.example/x.ipynb)"
        " · {download}`Download <01_x.ipynb>` · 41 CPU seconds on 2026-11-24, JAX 0.10.2"
    )


def test_numbers_follow_the_chapter_and_not_its_place():
    env = SimpleNamespace(
        toc_fignumbers={
            "07_x": {"figure": {"a": (3,), "b": (4,)}},
            "without": {"figure": {}},
            "first": {"figure": {"c": (5,)}, "displaymath": {"e": (6,)}},
            "second": {"figure": {"d": (6,)}},
        }
    )
    numbering.number_by_chapter(None, env)
    assert env.toc_fignumbers == {
        "07_x": {"figure": {"a": (7, 1), "b": (7, 2)}},
        "without": {"figure": {}},
        "first": {"figure": {"c": ("A", 1)}, "displaymath": {"e": ("A", 1)}},
        "second": {"figure": {"d": ("B", 1)}},
    }
