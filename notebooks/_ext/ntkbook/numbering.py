"""Numbers figures, equations, theorems and exercises by chapter: Fig. 1.2 is in 01_*.ipynb.

Sphinx numbers by the position in the table of contents, so that a chapter added between two
others would rename everything after it. A chapter's own number is stable.
"""

import re

__all__ = ["number_by_chapter"]


def number_by_chapter(app, env) -> list[str]:
    """After Sphinx has assigned its numbers, replace them by (chapter, count)."""
    for docname, kinds in env.toc_fignumbers.items():
        chapter = re.match(r"(\d\d)_", docname)
        if chapter is None:
            continue
        for numbers in kinds.values():
            for count, label in enumerate(numbers, 1):
                numbers[label] = (int(chapter[1]), count)
    return []
