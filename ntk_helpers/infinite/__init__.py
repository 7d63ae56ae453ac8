"""Kernels as width goes to infinity, where they are deterministic and known before any network is drawn."""

from ntk_helpers.infinite.fully_connected import Kernels, kernels, nngp, ntk

__all__ = ["Kernels", "kernels", "nngp", "ntk"]
