"""From the stored outputs of a cell to what the site shows.

Figures become image files with number, caption and alternative text; sliders keep their own
HTML, with their frames in files, and become numbered figures too; the lines that ``check`` prints become a
list of claims.
"""

import base64
import re
from html import escape, unescape
from itertools import count, groupby
from pathlib import Path

import nbformat

from . import pictures
from .markdown import directive

__all__ = ["claims_html", "convert", "count_claims"]

CLAIM = re.compile(
    r"✓ (?P<claim>.+): measured (?P<measured>[^,]+), expected (?P<expected>.+?) \[(?P<source>.+)\]$"
)
CAPTION = re.compile(r"<figcaption[^>]*>(.*?)</figcaption>", re.S)


def convert(outputs: list, images: Path, first_claim: int = 1, fold: bool = True) -> list:
    """Return the outputs as the site shows them; image files are written to `images`.

    Claims are one line that opens, where `fold` does not say that they are inside such a line already.
    """
    converted = []
    for output in outputs:
        if output["output_type"] == "stream" and output["name"] == "stdout":
            new = _stdout(output["text"], first_claim, fold)
            first_claim += count_claims(output)
        else:
            new = [_display(output, images)]
        converted += new
    return converted


def count_claims(output) -> int:
    """Return how many lines of an output are claims."""
    return sum(CLAIM.match(line) is not None for line in output.get("text", "").splitlines())


def _stdout(text: str, number: int, fold: bool) -> list:
    """Split a stream into claims and everything else, in order."""
    outputs = []
    for is_claims, group in groupby(text.splitlines(), lambda line: CLAIM.match(line) is not None):
        lines = list(group)
        if is_claims:
            html = _folded(claims_html(lines, number), lines) if fold else claims_html(lines, number)
            number += len(lines)
            outputs.append(nbformat.v4.new_output("display_data", data={"text/html": html}))
        elif any(line.strip() for line in lines):
            outputs.append(nbformat.v4.new_output("stream", text="\n".join(lines) + "\n"))
    return outputs


def _folded(html: str, lines: list[str]) -> str:
    """One line for the claims of a cell: the only claim itself, or how many there are."""
    one = escape(CLAIM.match(lines[0])["claim"])
    summary = one if len(lines) == 1 else f"{len(lines)} claims checked"
    return f'<details class="ntk-checked"><summary>{summary}</summary>{html}</details>'


def claims_html(lines: list[str], number: int = 1) -> str:
    """Return the lines that ``check`` printed as a list, with ids claim-<number>, ..."""
    items = []
    for i, line in enumerate(lines, number):
        claim, measured, expected, source = map(escape, CLAIM.match(line).groups())
        items.append(
            f'<li id="claim-{i}"><span class="ntk-claim-text">'
            f'<span class="visually-hidden">Checked claim: </span>{claim}</span> '
            f'<span class="ntk-claim-numbers">measured <b>{measured}</b>, expected <b>{expected}</b>'
            f'<span class="ntk-claim-source"><span class="visually-hidden">, source:</span> {source}</span>'
            "</span></li>"
        )
    return f'<ul class="ntk-claims">{"".join(items)}</ul>'


def _display(output, images: Path):
    html = output.get("data", {}).get("text/html", "")
    if 'class="ntk-figure"' in html:
        markdown = _figure(html, images)
    elif 'class="ntk-slider"' in html:
        markdown = _slider(html, images)
    else:
        return output
    return nbformat.v4.new_output("display_data", data={"text/markdown": markdown})


def _figure(html: str, images: Path) -> str:
    attributes = pictures.first_tags(html)
    name, image = attributes["figure"]["id"], attributes["img"]
    file = images / f"{name}.webp"
    _save(image, file)
    options = {"name": name, "alt": image["alt"], "width": image["width"]}
    return directive("figure", f"/{images.parent.name}/{images.name}/{file.name}", _caption(html), **options)


def _slider(html: str, images: Path) -> str:
    """The outer <figure> is left to the directive, which numbers it and adds the caption."""
    name = pictures.first_tags(html)["figure"]["id"]
    inner = re.search(r"<figure[^>]*>(.*)</figure>", CAPTION.sub("", html), re.S)[1]
    frames = count(1)

    def frame(match: re.Match) -> str:
        image = pictures.first_tags(match[0])["img"]
        file = images / f"{name}-{next(frames)}.webp"
        _save(image, file)
        return match[0].replace(image["src"], f"_images/{file.name}")

    one_block = re.sub(r"\s*\n\s*", " ", re.sub(r"<img [^>]*>", frame, inner).strip())
    return directive(
        "slider", None, f'<div class="ntk-slider">{one_block}</div>\n\n{_caption(html)}', name=name
    )


def _save(image: dict[str, str], file: Path) -> None:
    data = base64.b64decode(image["src"].partition(";base64,")[2])
    pictures.save(data, file, int(image["width"]))


def _caption(html: str) -> str:
    match = CAPTION.search(html)
    return unescape(re.sub(r"<[^>]+>", "", match[1])).strip() if match else ""
