"""The one description of a fully connected network, its initialization and its forward pass."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ntk_helpers._inputs import check_choice, check_points
from ntk_helpers.activations import Activation, get_activation

__all__ = ["MLP", "PARAMETERIZATIONS"]

PARAMETERIZATIONS = ("ntk", "standard")


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["sigma_w2", "sigma_b2"],
    meta_fields=["depth", "width", "d_out", "activation", "parameterization"],
)
@dataclass(frozen=True)
class MLP:
    r"""A fully connected network of `depth` weight layers: depth 1 is a linear model.

    $z^1 = \mathrm{affine}(x)$, $z^{l+1} = \mathrm{affine}(\phi(z^l))$, output $f(x) = z^L$, with hidden
    layers of `width` units. The two parameterizations give the same functions at initialization and
    different tangent kernels:

    - `"ntk"`: $\mathrm{affine}(a) = \sigma_w a W/\sqrt{n} + \sigma_b b$ with $W_{ij}, b_j \sim N(0, 1)$ and $n$ the
      fan-in (Jacot et al. 2018, section 2);
    - `"standard"`: $\mathrm{affine}(a) = a W + b$ with $W_{ij} \sim N(0, \sigma_w^2/n)$, $b_j \sim N(0, \sigma_b^2)$.
      Biases are parameters even where $\sigma_b^2 = 0$.

    The variances are leaves of a pytree, so a network passes through `jit`, `vmap` and `grad` in them;
    everything else is static. Raises `ValueError` for sizes below 1, unknown names and negative variances.
    """

    depth: int
    width: int
    d_out: int = 1
    activation: str = "relu"
    sigma_w2: float = 2.0
    sigma_b2: float = 0.0
    parameterization: str = "ntk"

    def __post_init__(self):
        for name in ("depth", "width", "d_out"):
            size = getattr(self, name)
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} is {size!r}; expected an integer of at least 1.")
        check_choice("parameterization", self.parameterization, PARAMETERIZATIONS)
        get_activation(self.activation)
        for name in ("sigma_w2", "sigma_b2"):
            variance = getattr(self, name)
            if isinstance(variance, (int, float, np.number)) and not 0 <= variance < float("inf"):
                raise ValueError(f"{name} is {variance!r}; expected a variance, finite and at least 0.")

    @property
    def phi(self) -> Activation:
        """The network's activation with its dual maps."""
        return get_activation(self.activation)

    def fan_in(self, d_in: int) -> tuple[int, ...]:
        """Fan-in of each weight layer for inputs of `d_in` features."""
        return (d_in, *[self.width] * (self.depth - 1))

    def init(self, key: Array, d_in: int, dtype=float) -> PyTree:
        """Draw parameters: a list over layers of `{"w": (fan_in, fan_out), "b": (fan_out,)}`."""
        if not isinstance(d_in, int) or d_in < 1:
            raise ValueError(f"d_in is {d_in!r}; expected an integer of at least 1.")
        return _init(self, key, d_in, jax.dtypes.canonicalize_dtype(dtype).name)

    def apply(self, params: PyTree, x: Float[Array, "n d"]) -> Float[Array, "n o"]:
        """Outputs of the network at inputs `x`."""
        x, _ = check_points(x)
        if len(params) != self.depth or params[0]["w"].shape[0] != x.shape[1]:
            raise ValueError(
                f"params hold {len(params)} layers for {params[0]['w'].shape[0]} features; "
                f"expected {self.depth} layers for {x.shape[1]} features, as init(key, {x.shape[1]}) gives."
            )
        return self.preactivations(params, x)[-1]

    def preactivations(self, params: PyTree, x: Float[Array, "n d"]) -> list[Float[Array, "n m"]]:
        """The preactivations of every layer, the output last."""
        w_scale, b_scale = self.scales(x.shape[1])
        a, out = x, []
        for layer, w_s in zip(params, w_scale):
            out.append(w_s * (a @ layer["w"]) + b_scale * layer["b"])
            a = self.phi.fn(out[-1])
        return out

    def scales(self, d_in: int) -> tuple[list, Array | float]:
        r"""The factors of weights (by layer) and biases in the forward pass: $\sigma_w/\sqrt n$, $\sigma_b$, or 1."""
        if self.parameterization == "standard":
            return [1.0] * self.depth, 1.0
        return [jnp.sqrt(self.sigma_w2 / n) for n in self.fan_in(d_in)], jnp.sqrt(self.sigma_b2)


@partial(jax.jit, static_argnums=(2, 3))
def _init(net: MLP, key: Array, d_in: int, dtype: str) -> PyTree:
    fan_in = net.fan_in(d_in)
    fan_out = (*fan_in[1:], net.d_out)
    # One draw for all hidden layers compiles faster than one each; the biases are one more row of the weights.
    rows = [n + 1 for n in fan_in]
    body, head = (
        jax.random.normal(k, shape, dtype)
        for k, shape in zip(jax.random.split(key), ((sum(rows[:-1]), net.width), (rows[-1], net.d_out)))
    )
    blocks = [*jnp.split(jax.lax.optimization_barrier(body), np.cumsum(rows[:-1]))[:-1], head]
    params = [{"w": block[:-1], "b": block[-1]} for block in blocks]
    if net.parameterization == "ntk":
        return params
    return [
        {"w": jnp.sqrt(net.sigma_w2 / n) * p["w"], "b": jnp.sqrt(net.sigma_b2) * p["b"]} for p, n in zip(params, fan_in)
    ]
