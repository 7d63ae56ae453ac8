"""Every picture of the site: two densities, and words for those who cannot see it."""

import re

import pytest
from PIL import Image

NAMES_ITSELF = re.compile(
    r"(?:an? |the )?(?:figure|plot of|graph of|image|picture|photo|diagram of|screenshot)\b", re.I
)
# What an eye sees: positions, shapes, colours, motion, and parts of a plot.
SEEN = re.compile(
    r"\b(?:left|right|top|bottom|above|below|inside|outside|between|beside|along|across|middle|axis|axes|"
    r"curves?|lines?|dots?|points?|bars?|"
    r"bands?|bends?|panels?|dashed|dotted|solid|straight|colou?rs?|dark|bright|pale|black|grey|white|blue|orange|green|red|ris(?:e|es|ing)|"
    r"f[ae]lls?|falling|drops?|grows?|shrinks?|flat|steep|peaks?|valleys?|slopes?|lies?|cross(?:es)?|"
    r"heat maps?|histograms?|tables?|boxes|arrows?|circles?)\b",
    re.I,
)


@pytest.fixture(scope="module")
def pictures(pages):
    """Pairs of a page's name and an <img> of its text."""
    return [(name, image) for name, page in pages.items() for image in page.select("article img")]


def caption(image):
    figure = image.find_parent("figure")
    text = figure.select_one(".caption-text") if figure else None
    return text.get_text(" ", strip=True) if text else ""


def fault(alt, caption):
    """Return what is wrong with an alternative text, None where nothing is."""
    if len(alt) < 60:
        return "too short to say what is to be seen"
    if alt.rstrip(".").lower() == caption.rstrip(".").lower():
        return "repeats the caption"
    if NAMES_ITSELF.match(alt):
        return "says what the picture is called"
    if not SEEN.search(alt):
        return "names nothing that can be seen"
    return None


def test_alternative_texts_say_what_is_to_be_seen(pictures):
    faults = [
        f"{page}: {found}: {image['alt']}"
        for page, image in pictures
        if (found := fault(image["alt"], caption(image)))
    ]
    assert len(pictures) > 50
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "alt",
    [
        "A red curve falls.",
        "Figure of the kernel against the angle, for networks of many widths and depths.",
        "The plot of the loss against time on the left and a histogram on the right side.",
        "The neural tangent kernel of wide networks at initialization and after training for long.",
        "Two red curves fall from left to right, as the caption of this figure says, word for word.",
    ],
)
def test_a_poor_text_is_found(alt):
    assert fault(
        alt, "Two red curves fall from left to right, as the caption of this figure says, word for word"
    )


def test_frames_of_a_slider_differ_in_words(pictures):
    frames = {}
    for _page, image in pictures:
        if slider := image.find_parent(class_="ntk-slider"):
            frames.setdefault(slider.find_parent("figure")["id"], []).append(image["alt"])
    assert frames
    assert not {name: alts for name, alts in frames.items() if len(set(alts)) < len(alts)}


def test_pictures_have_a_size_and_a_sharper_file(pictures, site):
    for page, image in pictures:
        sources = [part.split() for part in image.get("srcset", f"{image['src']} 1x").split(", ")]
        assert sources[0] == [image["src"], "1x"], (page, image)
        widths = []
        for source, density in sources:
            with Image.open(site / source) as picture:
                assert picture.format == "WEBP", (page, source)
                assert picture.height / picture.width == pytest.approx(
                    int(image["height"]) / int(image["width"]), rel=0.01
                )
                widths.append(picture.width / float(density[:-1]))
        assert widths == pytest.approx([widths[0]] * len(widths), rel=0.01), (page, image)
    assert sum("srcset" in image.attrs for _page, image in pictures) > len(pictures) / 2


def test_only_hidden_frames_wait(pictures):
    assert all(("hidden" in image.attrs) == (image.get("loading") == "lazy") for _page, image in pictures)
