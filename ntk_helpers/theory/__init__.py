"""Predictions that need no network: phases and depth scales of infinite networks, risks of double descent."""

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

__all__ = [
    "FixedPoint",
    "Layers",
    "Phase",
    "Risk",
    "critical_sigma_w2",
    "descent_risk",
    "fixed_point",
    "hermite_parts",
    "linear_risk",
    "optimal_ridge",
    "phase",
    "propagate",
    "random_features_risk",
    "ridgeless_risk",
    "trainable_depth",
    "weak_features_risk",
]
