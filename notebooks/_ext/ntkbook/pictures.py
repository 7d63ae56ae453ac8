"""The pictures of a page: files at two densities, so that a plain screen loads less.

The stored resolution is for sharp screens. For the others there is a picture as wide as the page
shows it, wherever that one is lighter.
"""

import re
import shutil
from html import escape
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

from PIL import Image

__all__ = ["FOLDER", "first_tags", "offer", "save"]

FOLDER = Path("_build", "figures")
COLUMN = 774  # pixels: the page shows no picture wider
IMAGE = re.compile(r'<img\b[^>]*\bsrc="_images/([\w-]+)\.webp"[^>]*>')


class _FirstTags(HTMLParser):
    def __init__(self, html: str):
        super().__init__()
        self.attributes: dict[str, dict[str, str]] = {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.attributes.setdefault(tag, {key: value or "" for key, value in attrs})


def first_tags(html: str) -> dict[str, dict[str, str]]:
    """Return the attributes of the first tag of each name."""
    return _FirstTags(html).attributes


def save(data: bytes, file: Path, width: int) -> None:
    """Write a stored picture, shown `width` pixels wide, as the WebP `file`, and beside it the lighter `-1x`
    one."""
    picture, width = Image.open(BytesIO(data)), min(width, COLUMN)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data if picture.format == "WEBP" else _lightest(picture, picture, quality=80))
    small = picture.convert("RGB").resize(
        (width, round(picture.height / picture.width * width)), Image.Resampling.LANCZOS
    )
    light = _lightest(small, small.quantize(64, dither=Image.Dither.NONE), quality=85)
    _at_1x(file).unlink(missing_ok=True)
    if small.width < picture.width and len(light) < file.stat().st_size:
        _at_1x(file).write_bytes(light)


def _at_1x(file: Path) -> Path:
    return file.with_stem(f"{file.stem}-1x")


def _lightest(picture: Image.Image, in_few_colours: Image.Image, quality: int) -> bytes:
    """Return the smaller of two WebP files: lossy, at a quality without visible loss, or in few colours,
    lossless."""
    lossy, lossless = BytesIO(), BytesIO()
    picture.save(lossy, "WEBP", quality=quality)
    in_few_colours.convert("RGB").save(lossless, "WEBP", lossless=True)
    return min(lossless.getvalue(), lossy.getvalue(), key=len)


def offer(app, pagename, templatename, context, doctree) -> None:
    """Give every picture its size and densities, and let those that are hidden wait until they are shown."""
    folder, target = Path(app.confdir, FOLDER), Path(app.outdir, app.builder.imagedir)

    def tag(match: re.Match) -> str:
        return _tag(match[0], folder / f"{match[1]}.webp", target)

    context["body"] = IMAGE.sub(tag, context.get("body", ""))


def _tag(html: str, file: Path, target: Path) -> str:
    given = first_tags(html)["img"]
    with Image.open(file) as picture:
        width, height = picture.size
    shown = int(given.get("width", width))
    light = _at_1x(file) if _at_1x(file).exists() else file
    new = {
        "src": _publish(light, target),
        "alt": given["alt"],
        "width": shown,
        "height": round(height / width * shown),
    }
    if light != file:
        new["srcset"] = f"{new['src']} 1x, {_publish(file, target)} {width / min(shown, COLUMN):.2f}x"
    if "hidden" in given:
        new |= {"hidden": "", "loading": "lazy"}
    return "<img " + " ".join(f'{key}="{escape(str(value))}"' for key, value in new.items()) + ">"


def _publish(file: Path, target: Path) -> str:
    target.mkdir(exist_ok=True)
    shutil.copyfile(file, target / file.name)
    return f"_images/{file.name}"
