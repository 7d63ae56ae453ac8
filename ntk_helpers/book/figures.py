"""Figures that a reader can see, read and have read aloud: style, caption, alt text, sliders without a
kernel."""

import base64
import html
import io
import json
import re
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

__all__ = ["show", "slider", "use_style"]

_NAME = re.compile(r"fig-[a-z0-9-]+")


def use_style() -> None:
    """The book's look: colour-blind safe colours, a light grid, sizes that read on a phone.

    >>> use_style()
    >>> plt.rcParams["axes.spines.top"]
    False
    """
    sns.set_theme(
        context="notebook",
        style="ticks",
        palette="colorblind",
        rc={
            "figure.figsize": (7.2, 4.0),
            "figure.dpi": 100,
            "savefig.dpi": 144,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "legend.frameon": False,
            "image.cmap": "viridis",
            "figure.constrained_layout.use": True,
            "axes.unicode_minus": False,
        },
    )


def show(fig: Figure, *, name: str, caption: str, alt: str) -> None:
    """Display a figure with its caption and alternative text, and close it.

    `name` (`fig-...`) is its anchor. The alternative text says what is to be seen to somebody who cannot
    see it.

    Raises:

    - `ValueError` for a bad name, an empty text, a caption that is also the alternative text, and no figure.

    >>> figure = plt.figure()
    >>> show(figure, name="fig-nothing", caption="An empty figure.", alt="Nothing is drawn.")
    {'text/html': '<figure class="ntk-figure" id="fig-nothing">...
    """
    _check_texts(name, caption, [alt])
    _check_figures([fig])
    image = _image(fig, "png", alt)
    _display(f'<figure class="ntk-figure" id="{name}">{image}{_caption(caption)}</figure>', name, alt)


def slider(
    figs: Sequence[Figure], labels: Sequence, *, label: str, name: str, caption: str, alts: Sequence[str]
) -> None:
    """Display figures as the frames of one slider, which needs no kernel and no script from outside.

    `labels` are the values that the slider steps through and `label` says of what; `alts` describe the
    frames, one each.

    Raises:

    - `ValueError` where the numbers of frames, labels and texts differ, and as `show`.

    >>> frames, alts = [plt.figure(), plt.figure()], ["Nothing is drawn.", "Again nothing."]
    >>> texts = {"label": "frame", "name": "fig-nothing", "caption": "Two empty figures.", "alts": alts}
    >>> slider(frames, [1, 2], **texts)
    {'text/html': '<figure class="ntk-slider" id="fig-nothing">...
    """
    for what, parts in (("figs", figs), ("labels", labels), ("alts", alts)):
        if isinstance(parts, str) or not isinstance(parts, Sequence | np.ndarray):
            raise ValueError(f"{what} is {parts!r}; expected a list with an entry for each frame.")
    _check_texts(name, caption, alts)
    _check_figures(figs)
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"label is {label!r}; expected what the slider steps through, in words.")
    if not len(figs) == len(labels) == len(alts) > 1:
        raise ValueError(
            f"{len(figs)} figures, {len(labels)} labels, {len(alts)} alts; expected as many each, at least 2."
        )
    images = "".join(_image(fig, "webp", alt, hidden=i > 0) for i, (fig, alt) in enumerate(zip(figs, alts)))
    values = html.escape(json.dumps([str(value) for value in labels], ensure_ascii=False))
    move = (
        "const f=this.closest('figure'),t=JSON.parse(this.dataset.labels)[this.value];"
        "f.querySelectorAll('img').forEach((m,i)=>m.hidden=i!=this.value);"
        "f.querySelector('output').textContent=t;this.setAttribute('aria-valuetext',t)"
    )
    control = (
        f"<label>{html.escape(label)}: <output>{html.escape(str(labels[0]))}</output> "
        f'<input type="range" min="0" max="{len(figs) - 1}" value="0" step="1" data-labels="{values}" '
        f'aria-label="{html.escape(label)}" aria-valuetext="{html.escape(str(labels[0]))}" '
        f'oninput="{html.escape(move)}" style="width:100%"></label>'
    )
    _display(
        f'<figure class="ntk-slider" id="{name}">{images}{control}{_caption(caption)}</figure>', name, alts[0]
    )


def _check_texts(name: str, caption: str, alts: Sequence[str]) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"name is {name!r}; expected fig- and lower-case letters, digits or hyphens.")
    texts = [text.strip() if isinstance(text, str) else "" for text in (caption, *alts)]
    if not all(texts) or texts[0] in texts[1:]:
        raise ValueError(f"figure {name} needs a caption, and an alternative text that is not the caption.")


def _check_figures(figs: Sequence) -> None:
    for fig in figs:
        if not isinstance(fig, Figure):
            raise ValueError(f"fig is {fig!r}; expected a matplotlib figure.")


def _caption(caption: str) -> str:
    return f"<figcaption>{html.escape(caption)}</figcaption>"


def _image(fig: Figure, kind: str, alt: str, hidden: bool = False) -> str:
    width = round(fig.get_figwidth() * 100)
    style = "max-width:100%;height:auto;background:white"
    attributes = f'alt="{html.escape(alt)}" width="{width}" style="{style}"{" hidden" if hidden else ""}'
    return f'<img src="{_data_uri(fig, kind)}" {attributes}>'


def _data_uri(fig: Figure, kind: str) -> str:
    buffer = io.BytesIO()
    options = (
        {"pil_kwargs": {"quality": 80, "method": 6}} if kind == "webp" else {"metadata": {"Software": None}}
    )
    fig.savefig(buffer, format=kind, **options)
    plt.close(fig)
    data = buffer.getvalue() if kind == "webp" else _in_few_colours(buffer)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _in_few_colours(png: io.BytesIO) -> bytes:
    """The picture with a palette of 96 colours, a third of the size."""
    out = io.BytesIO()
    Image.open(png).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def _display(markup: str, name: str, alt: str) -> None:
    display({"text/html": markup, "text/plain": f"Figure {name}: {alt}"}, raw=True)
