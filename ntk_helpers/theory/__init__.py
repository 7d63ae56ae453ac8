"""Predictions that need no network: phases and depth scales of infinite networks, risks of double descent,
and what a kernel learns first."""

from ntk_helpers.theory.meanfield import (
    FixedPoint,
    Layers,
    Phase,
    critical_sigma_w2,
    fixed_point,
    phase,
    propagate,
    trainable_depth,
)
from ntk_helpers.theory.random_features import hermite_parts, random_features_risk
from ntk_helpers.theory.risk import (
    Risk,
    descent_risk,
    linear_risk,
    optimal_ridge,
    ridgeless_risk,
    weak_features_risk,
)
from ntk_helpers.theory.spectra import (
    LearningCurve,
    Spectrum,
    kernel_spectrum,
    label_power,
    learning_curve,
    sphere_power,
)

__all__ = [
    "FixedPoint",
    "Layers",
    "LearningCurve",
    "Phase",
    "Risk",
    "Spectrum",
    "critical_sigma_w2",
    "descent_risk",
    "fixed_point",
    "hermite_parts",
    "kernel_spectrum",
    "label_power",
    "learning_curve",
    "linear_risk",
    "optimal_ridge",
    "phase",
    "propagate",
    "random_features_risk",
    "ridgeless_risk",
    "sphere_power",
    "trainable_depth",
    "weak_features_risk",
]
