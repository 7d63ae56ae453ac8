"""Numbers figures, equations, theorems and exercises by chapter: Fig. 1.2 is in 01_*.ipynb, Fig. A.2 in the
first appendix that has any.

Sphinx numbers by the position in the table of contents, so that a chapter added between two
others would rename everything after it. A chapter's own number is stable.
"""

import re
from string import ascii_uppercase

__all__ = ["number_by_chapter"]


def number_by_chapter(app, env) -> list[str]:
    """After Sphinx has assigned its numbers, replace them by (chapter, count)."""
    letters = iter(ascii_uppercase)
    for docname, kinds in env.toc_fignumbers.items():
        if not any(kinds.values()):
            continue
        chapter = re.match(r"(\d\d)_", docname)
        place = int(chapter[1]) if chapter else next(letters)
        for numbers in kinds.values():
            for count, label in enumerate(numbers, 1):
                numbers[label] = (place, count)
    return []
