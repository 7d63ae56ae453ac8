"""The tangent kernel of a finite network: at given parameters, and in law over random ones."""

from ntk_helpers.finite._cost import NTKCost
from ntk_helpers.finite.corrections import KernelCorrections, kernel_corrections
from ntk_helpers.finite.empirical import empirical_ntk, empirical_ntk_cost
from ntk_helpers.finite.moments import NTKMoments, ntk_moments
from ntk_helpers.finite.sampling import NTKSamples, sample_ntk

__all__ = [
    "KernelCorrections",
    "NTKCost",
    "NTKMoments",
    "NTKSamples",
    "empirical_ntk",
    "empirical_ntk_cost",
    "kernel_corrections",
    "ntk_moments",
    "sample_ntk",
]
