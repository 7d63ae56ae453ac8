"""Mean and covariance of functions at test points: of Gaussian processes, and of ensembles of trained
networks."""

from typing import NamedTuple

from jaxtyping import Array, Float

__all__ = ["Posterior"]


class Posterior(NamedTuple):
    """Mean of each output, and the covariance that all outputs share."""

    mean: Float[Array, "m o"]
    covariance: Float[Array, "m m"]
