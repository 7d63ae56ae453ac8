"""Of the theme's two thousand icons, the style sheet keeps those that the site shows."""

import re
from pathlib import Path

__all__ = ["keep_used"]

RULE = re.compile(r'((?:\.fa-[\w-]+,?)+)\{--fa:"[^"]*"\}')
NAME = re.compile(r"\bfa-[\w-]+")


def keep_used(app, exception) -> None:
    """Take the rules of icons that no page and no script names out of the theme's style sheet."""
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)
    files = [*out.glob("**/*.html"), *(out / "_static" / "scripts").glob("*.js")]
    used = {name for file in files for name in NAME.findall(file.read_text(encoding="utf-8"))}
    sheet = out / "_static" / "styles" / "pydata-sphinx-theme.css"
    css = sheet.read_text(encoding="utf-8")
    sheet.write_text(
        RULE.sub(lambda rule: rule[0] if used & set(NAME.findall(rule[1])) else "", css), encoding="utf-8"
    )
