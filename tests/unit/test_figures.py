"""What a figure stores: picture, caption, alternative text; and a slider that needs no kernel."""

import base64
import html
import io
import re

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from ntk_helpers.book import figures


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    monkeypatch.setattr(figures, "display", lambda data, raw: outputs.append(data))
    return outputs


def line(slope=1):
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, slope])
    return fig


def pictures(markup):
    found = re.findall(r"data:image/(\w+);base64,([A-Za-z0-9+/=]+)", markup)
    return [(kind, Image.open(io.BytesIO(base64.b64decode(data)))) for kind, data in found]


def test_a_figure_stores_picture_caption_and_alt(shown):
    figures.show(line(), name="fig-01-line", caption="A line, $a < b$.", alt='A line that "rises" & ends.')
    (output,) = shown
    assert output["text/plain"] == 'Figure fig-01-line: A line that "rises" & ends.'
    ((kind, picture),) = pictures(output["text/html"])
    assert kind == "png" and picture.format == "PNG" and picture.width >= 300
    assert html.escape('A line that "rises" & ends.') in output["text/html"]
    assert "<figcaption>A line, $a &lt; b$.</figcaption>" in output["text/html"]
    assert 'id="fig-01-line"' in output["text/html"]
    assert not plt.get_fignums()


def test_a_slider_stores_every_frame_and_shows_the_first(shown):
    figures.slider(
        [line(s) for s in (1, 2, 3)],
        [10, 100, 1000],
        label="width",
        name="fig-s",
        caption="c",
        alts=["one", "two", "three"],
    )
    markup = shown[0]["text/html"]
    assert [picture.format for _, picture in pictures(markup)] == ["WEBP"] * 3
    assert (
        markup.count(" hidden>") == 2
        and 'max="2"' in markup
        and html.escape('["10", "100", "1000"]') in markup
    )
    assert all(f'alt="{alt}"' in markup for alt in ("one", "two", "three"))
    assert "<script" not in markup and "http" not in markup
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"name": "Line 1"}, "name is 'Line 1'"),
        ({"caption": " "}, "needs a caption"),
        ({"alt": ""}, "alternative text"),
        ({"alt": "c"}, "not the caption"),
    ],
)
def test_a_figure_without_words_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        figures.show(line(), **({"name": "fig-a", "caption": "c", "alt": "a"} | wrong))
    plt.close("all")


@pytest.mark.parametrize("labels, alts", [([1], ["a", "b"]), ([1, 2], ["a"])])
def test_a_slider_needs_a_label_and_a_text_for_each_frame(labels, alts):
    with pytest.raises(ValueError, match=r"2 figures, \d labels, \d alts"):
        figures.slider([line(), line()], labels, label="width", name="fig-s", caption="c", alts=alts)
    plt.close("all")
