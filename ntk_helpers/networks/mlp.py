"""The one description of a fully connected network, its initialization and its forward pass."""

import reprlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from ntk_helpers._lib.inputs import (
    check_choice,
    check_key,
    check_points,
    check_positive,
    check_size,
    check_variance,
)
from ntk_helpers._lib.models import door_of
from ntk_helpers.networks.activation import Activation
from ntk_helpers.networks.registry import get_activation

__all__ = ["MLP", "PARAMETERIZATIONS", "check_kernel_limit", "check_network", "check_parameters"]

PARAMETERIZATIONS = ("ntk", "standard", "mup")
"""The names that `MLP(parameterization=...)` knows: see `MLP`."""
VARIANCES = ("sigma_w2", "sigma_b2")


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True)
class MLP:
    r"""A fully connected network of `depth` weight layers: depth 1 is an affine model.

    $z^1 = \mathrm{affine}(x)$, $z^{l+1} = \mathrm{affine}(\phi(z^l))$, output $f(x) = \alpha z^L$. `width` is
    the number of units of every hidden layer, or a tuple with a number for each of the depth - 1. The first
    two parameterizations give the same functions at initialization and different tangent kernels:

    - `"ntk"`: $\mathrm{affine}(a) = \sigma_w a W/\sqrt{n} + \sigma_b b$ with $W_{ij}, b_j \sim N(0, 1)$ and
      $n$ the fan-in (Jacot et al. 2018, section 2);
    - `"standard"`: $\mathrm{affine}(a) = a W + b$ with $W_{ij} \sim N(0, \sigma_w^2/n)$,
      $b_j \sim N(0, \sigma_b^2)$. Biases are parameters even where $\sigma_b^2 = 0$;
    - `"mup"`: as `"ntk"`, and $f(x) = \alpha z^L/\sqrt{n}$ with $n$ the width of the last hidden layer
      (maximal update: Yang & Hu 2021). Trained at the rates of `scale_by_parameterization`, its hidden layers
      move at every width as they do at width $\alpha^2$, where it is the network in NTK parameterization:
      $\alpha^2$ is the base width.

    `alpha` is the scale of the output, bias included: training is lazy where $\alpha$ is large, and rich
    where it is small (Chizat, Oyallon & Bach 2019, with rates divided by $\alpha^2$). The mean-field scale
    1/n of two layers is that of `"mup"`, or of `"ntk"` with $\alpha = 1/\sqrt{n}$.

    `activation` is a name (`activation_names`) or an `Activation`, as `quadrature` makes of any elementwise
    function. The variances are leaves of a pytree, so a network passes through `jit`, `vmap` and `grad` in
    them; everything else is static. Raises `ValueError` for sizes below 1, unknown names, negative
    variances and an `alpha` that is not positive.

    >>> net = MLP(depth=3, width=512, activation="tanh", sigma_w2=1.5, sigma_b2=0.1)
    >>> net.apply(net.init(jax.random.key(0), 4), jnp.ones((2, 4))).shape
    (2, 1)
    """

    depth: int
    width: int | tuple[int, ...]
    d_out: int = 1
    activation: str | Activation = "relu"
    sigma_w2: float = 2.0
    sigma_b2: float = 0.0
    parameterization: str = "ntk"
    alpha: float = 1.0

    def __post_init__(self):
        depth = check_size("depth", self.depth)
        if isinstance(self.width, (tuple, list)):
            if len(self.width) != depth - 1:
                raise ValueError(
                    f"width is {self.width!r}; expected one number, or {depth - 1} for depth {depth}."
                )
            width = tuple(check_size("width", each) for each in self.width)
        else:
            width = check_size("width", self.width)
        for name, size in (("depth", depth), ("width", width), ("d_out", check_size("d_out", self.d_out))):
            object.__setattr__(self, name, size)
        check_choice("parameterization", self.parameterization, PARAMETERIZATIONS)
        get_activation(self.activation)
        for name in VARIANCES:
            check_variance(name, getattr(self, name))
        check_positive("alpha", self.alpha)
        object.__setattr__(self, "alpha", float(self.alpha))

    def tree_flatten_with_keys(self):
        static = dict(vars(self))
        leaves = tuple((jax.tree_util.GetAttrKey(name), static.pop(name)) for name in VARIANCES)
        # What is compiled is for the activation, not for its name, which may be registered again.
        return leaves, (tuple(static.items()), self.phi)

    @classmethod
    def tree_unflatten(cls, static, variances):
        """Unchecked, unlike the constructor: the leaves of a tree may be gradients, of any sign, or
        placeholders."""
        net = object.__new__(cls)
        vars(net).update(static[0], **dict(zip(VARIANCES, variances)))
        return net

    @property
    def phi(self) -> Activation:
        """The network's activation with its dual maps."""
        return get_activation(self.activation)

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each hidden layer, depth - 1 numbers."""
        return self.width if isinstance(self.width, tuple) else (self.width,) * (self.depth - 1)

    @property
    def output_scale(self) -> float:
        r"""The factor of $z^L$ in the output: $\alpha$, in `"mup"` over the root of the last hidden width."""
        if self.parameterization == "mup" and self.widths:
            return self.alpha / self.widths[-1] ** 0.5
        return self.alpha

    def fan_in(self, d_in: int) -> tuple[int, ...]:
        """Fan-in of each weight layer for inputs of `d_in` features."""
        return (d_in, *self.widths)

    def init(self, key: Array, d_in: int, dtype=float) -> PyTree:
        """Draw parameters: a list over layers of `{"w": (fan_in, fan_out), "b": (fan_out,)}`."""
        check_network(self)
        check_key(key)
        # One compilation for all activations, and for μP, which draws as the NTK parameterization does.
        kind = "standard" if self.parameterization == "standard" else "ntk"
        shapes = replace(self, activation="relu", alpha=1.0, parameterization=kind)
        return _init(shapes, key, check_size("d_in", d_in), jax.dtypes.canonicalize_dtype(dtype).name)

    def apply(self, params: PyTree, x: Float[Array, "n d"]) -> Float[Array, "n o"]:
        """Outputs of the network at inputs `x`."""
        check_network(self)
        x, _ = check_points(x)
        check_parameters(self, params, x.shape[1])
        return self.preactivations(params, x)[-1]

    def preactivations(self, params: PyTree, x: Float[Array, "n d"]) -> list[Float[Array, "n m"]]:
        """The preactivations of every layer, the output last."""
        w_scale, b_scale = self.scales(x.shape[1])
        a, out = x, []
        for layer, w_s in zip(params, w_scale):
            out.append(w_s * (a @ layer["w"]) + b_scale * layer["b"])
            a = self.phi.fn(out[-1])
        scale = self.output_scale
        return out if scale == 1 else [*out[:-1], scale * out[-1]]  # no step for a factor of 1

    def scales(self, d_in: int) -> tuple[list, Array | float]:
        r"""The factors of weights (by layer) and biases within a layer: $\sigma_w/\sqrt n$, $\sigma_b$, or 1.
        The output has `output_scale` besides."""
        if self.parameterization == "standard":
            return [1.0] * self.depth, 1.0
        return [jnp.sqrt(self.sigma_w2 / n) for n in self.fan_in(d_in)], jnp.sqrt(self.sigma_b2)


def check_network(net: object) -> None:
    """Raise `ValueError` unless `net` is an `MLP`, and one: its variances are numbers, or rows of them inside
    `vmap`."""
    if not isinstance(net, MLP):
        raise ValueError(f"net is {reprlib.repr(net)}; expected an MLP.")
    for name in VARIANCES:
        if np.shape(getattr(net, name)):
            raise ValueError(
                f"{name} has shape {np.shape(getattr(net, name))}; "
                "expected one number, or vmap over the network."
            )


def check_kernel_limit(net: object) -> None:
    """Raise `ValueError` unless `net` is one `MLP` whose kernels have a limit at infinite width."""
    check_network(net)
    if net.parameterization == "mup" and net.widths:
        raise ValueError(
            "net has parameterization 'mup', whose kernels have no limit at infinite width: they vanish as "
            "1/width, and at the learning rates that make up for it features are learned, so that they move. "
            "Expected 'ntk' or 'standard', or the kernels of finite networks, empirical_ntk and sample_ntk."
        )


def check_parameters(net: MLP, params: PyTree, d_in: int) -> None:
    """Raise `ValueError` unless `params` are parameters of `net` for inputs of `d_in` features."""
    shapes = jax.tree.map(lambda leaf: getattr(leaf, "shape", leaf), params)
    expected = [{"w": (m, n), "b": (n,)} for m, n in zip(net.fan_in(d_in), (*net.widths, net.d_out))]
    if (list(shapes) if isinstance(shapes, tuple) else shapes) != expected:
        raise ValueError(
            f"params hold {reprlib.repr(shapes)}; expected shapes {expected}, as init(key, {d_in}) gives."
        )


def as_apply(f: MLP | Callable[[PyTree, Array], Array]) -> Partial:
    """A network, or any function of parameters and inputs, as a pytree that `jit` takes; raises `ValueError`
    for what is neither."""
    if isinstance(f, MLP):
        return Partial(MLP.apply, f)
    if not callable(f):
        raise ValueError(f"f is {f!r}; expected an MLP, or a function of parameters and inputs.")
    if door := door_of(f):
        raise ValueError(
            f"f is a model, {type(f).__qualname__}; expected a function of parameters and inputs, as in "
            f"apply, params = ntk_helpers.adapters.{door}."
        )
    return f if isinstance(f, Partial) else Partial(f)


@partial(jax.jit, static_argnums=(2, 3))
def _init(net: MLP, key: Array, d_in: int, dtype: str) -> PyTree:
    fan_in = net.fan_in(d_in)
    # The biases are one more row of the weights.
    blocks = (_uniform_blocks if len(set(net.widths)) < 2 else _blocks)(
        net, key, [n + 1 for n in fan_in], dtype
    )
    params = [{"w": block[:-1], "b": block[-1]} for block in blocks]
    if net.parameterization != "standard":
        return params
    return [
        {"w": jnp.sqrt(net.sigma_w2 / n) * p["w"], "b": jnp.sqrt(net.sigma_b2) * p["b"]}
        for p, n in zip(params, fan_in)
    ]


def _uniform_blocks(net: MLP, key: Array, rows: list[int], dtype: str) -> list[Array]:
    """One draw for all hidden layers, which compiles faster than one each."""
    shapes = (sum(rows[:-1]), (net.widths or (1,))[0]), (rows[-1], net.d_out)
    body, head = (jax.random.normal(k, shape, dtype) for k, shape in zip(jax.random.split(key), shapes))
    return [*jnp.split(jax.lax.optimization_barrier(body), np.cumsum(rows[:-1]))[:-1], head]


def _blocks(net: MLP, key: Array, rows: list[int], dtype: str) -> list[Array]:
    shapes = zip(rows, (*net.widths, net.d_out))
    return [jax.random.normal(k, shape, dtype) for k, shape in zip(jax.random.split(key, net.depth), shapes)]
