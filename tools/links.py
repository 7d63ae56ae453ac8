"""Write the hosting setting (project.urls in pyproject.toml) into the documents that repeat it.

CITATION.cff holds the addresses that were written last, so it says what to replace.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ["README.md", "notebooks/lecturers.md", "CITATION.cff"]


def written(citation: str) -> dict[str, str]:
    """The addresses in CITATION.cff."""
    return {
        key: re.search(rf"^{key}: (\S+)$", citation, re.MULTILINE)[1] for key in ("repository-code", "url")
    }


def moved(text: str, old: dict[str, str], new: dict[str, str]) -> str:
    """`text` with the old home page and the old repository, in whatever address names it, replaced."""
    slug, new_slug = (urls["repository-code"].partition("github.com/")[2] for urls in (old, new))
    return re.sub(rf"(?<=/){slug}\b", new_slug, text.replace(old["url"], new["url"]))


if __name__ == "__main__":
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    old = written((ROOT / "CITATION.cff").read_text())
    new = {"repository-code": urls["Repository"], "url": urls["Homepage"]}
    for document in DOCUMENTS:
        path = ROOT / document
        path.write_text(moved(path.read_text(), old, new))
