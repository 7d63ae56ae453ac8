"""Any kernel in blocks: on disk, over devices and processes."""

from ntk_helpers.scale.tiling import tiled

__all__ = ["tiled"]
