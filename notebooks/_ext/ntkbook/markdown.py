"""From the notebooks' plain Markdown to MyST.

A chapter must read well in Colab and JupyterLab, so it holds no directive. What it holds
instead follows a few fixed forms, and each form is turned into the book feature it means:

    **Theorem (Title).** <a id="thm-x"></a>   a cell that starts so is one box
    ## Section <a id="sec-x"></a>             a heading that can be referred to
    <a id="eq-x"></a>                         nothing: the equation below has this label itself
    [(eq-x)](#eq-x)                           the number of an equation
    [the theorem](#thm-x)                     "Theorem 1.2"; same for figures and exercises
    [Jacot et al. (2018)](#cite-jacot2018)    an entry of the bibliography
"""

import json
import re

__all__ = ["convert", "directive", "exercise_title"]

BOXES = {
    "alg": "Algorithm",
    "cor": "Corollary",
    "def": "Definition",
    "exm": "Example",
    "lem": "Lemma",
    "prop": "Proposition",
    "rem": "Remark",
    "thm": "Theorem",
    "ex": "Exercise",
}
ADMONITIONS = {"Important", "Note", "Tip", "Warning"}
BOX = re.compile(
    r"\*\*(?P<kind>[A-Z][a-z]+)(?: \((?P<title>.+?)\))?\.\*\*[ \t]*(?:<a id=\"(?P<label>[\w-]+)\"></a>)?\s*"
)
HEADING = re.compile(r"^(#{2,6} .*?)[ \t]*<a id=\"([\w-]+)\"></a>[ \t]*$", re.M)
EQUATION_ANCHOR = re.compile(r" <a id=\"eq-[\w-]+\"></a>$", re.M)
EQUATION = re.compile(r"\[\(eq-[\w-]+\)\]\((?:[\w./-]+\.ipynb)?#(eq-[\w-]+)\)")
CITATION = re.compile(r"\[([^\[\]]*)\]\(#cite-([\w-]+)\)")
REFERENCE = re.compile(rf"\[[^\[\]]*\]\((?:[\w./-]+\.ipynb)?#(({'|'.join(BOXES)}|fig)-[\w-]+)\)")
CODE = re.compile(r"(^```.*?^```[ \t]*$|`[^`\n]+`)", re.M | re.S)


def directive(name: str, argument: str | None, body: str, /, **options: str) -> str:
    """Return a MyST directive whose fence is longer than any fence in its body."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"^`{3,}", body, re.M))])
    header = "".join(f":{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in options.items())
    return f"{fence}{{{name}}} {argument or ''}".rstrip() + f"\n{header}\n{body.strip()}\n{fence}\n"


def convert(source: str) -> str:
    """Turn one Markdown cell into MyST; code in it is left as it is."""
    parts = CODE.split(source)
    parts[::2] = [_references(part) for part in parts[::2]]
    return _box("".join(parts))


def exercise_title(source: str) -> str | None:
    """Return the title of the exercise that a cell states, None where it states none."""
    match = BOX.match(source)
    return (match["title"] or "Exercise") if match and match["kind"] == "Exercise" else None


def _box(source: str) -> str:
    match = BOX.match(source)
    if match is None:
        return source
    kind, title, body = match["kind"], match["title"], source[match.end() :]
    if kind in BOXES.values() or kind == "Proof":
        options = {"title": title, "label": match["label"]}
        return directive("box", kind, body, **{key: value for key, value in options.items() if value})
    if kind in ADMONITIONS:
        return directive("admonition", title or kind, body, **{"class": kind.lower()})
    return source


def _references(text: str) -> str:
    text = HEADING.sub(r"(\2)=\n\1", text)
    text = EQUATION_ANCHOR.sub("", text)
    text = EQUATION.sub(r"{eq}`\1`", text)
    text = CITATION.sub(_citation, text)
    return REFERENCE.sub(_reference, text)


def _citation(match: re.Match) -> str:
    """Keep what the author wrote after the year: "Jacot et al. (2018), Theorem 1"."""
    after = re.search(r"\d{4}\w?\)?,\s*(.+)$", match[1])
    return f"{{cite:t}}`{match[2]}{{{after[1]}}}`" if after else f"{{cite:t}}`{match[2]}`"


def _reference(match: re.Match) -> str:
    label, prefix = match.groups()
    return f"{{numref}}`{BOXES[prefix]} %s <{label}>`" if prefix in BOXES else f"{{numref}}`{label}`"
