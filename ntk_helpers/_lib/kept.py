"""What was made of an object, a compiled program say, kept as long as the object lives and no longer."""

import weakref
from collections.abc import Callable, Hashable
from typing import TypeVar

__all__ = ["remembered"]

KEPT = 64
"""So many things are kept of one object; the oldest goes first."""
_kept: dict[int, dict] = {}
"""By the id of the object, which need not be hashable."""
Made = TypeVar("Made")


def remembered(
    owner: object, key: Hashable, make: Callable[[], Made], lasts: Callable[[Made], bool] = lambda made: True
) -> Made:
    """What `make()` gave the first time for this owner and key, if that `lasts`; it holds no owner."""
    kept = _of(owner)
    if key in kept:
        return kept[key]
    made = make()
    if lasts(made):
        kept[key] = made
        if len(kept) > KEPT:
            del kept[next(iter(kept))]
    return made


def _of(owner: object) -> dict:
    if id(owner) not in _kept:
        try:
            weakref.finalize(owner, _kept.pop, id(owner), None)
        except TypeError:  # of a class whose objects cannot be referred to weakly
            return {}
        _kept[id(owner)] = {}
    return _kept[id(owner)]
