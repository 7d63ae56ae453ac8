"""What `make bench` and `make gpu` measure beside the package: networks of one's own, and other ways to their
kernels."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from ntk_helpers import MLP

__all__ = [
    "ARCHITECTURES",
    "NT_METHODS",
    "cnn",
    "draw",
    "jacobian_products",
    "nt_empirical",
    "nt_infinite",
    "torch_empirical",
]

NT_METHODS = {
    "Jacobian contraction": "JACOBIAN_CONTRACTION",
    "NTK-vector products": "NTK_VECTOR_PRODUCTS",
    "structured derivatives": "STRUCTURED_DERIVATIVES",
}
"""neural-tangents' methods by the names that we print."""


# --- networks that are not an MLP


def cnn(params, x):
    for w, b in params["convolutions"]:
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + b
        )
    return x.mean((1, 2)) @ params["head"]


def transformer(params, tokens):
    """Attention without a mask, and one embedding for tokens and logits."""
    h = params["embed"][tokens]
    for p in params["blocks"]:
        q, k, v = (jnp.einsum("nld,dhk->nhlk", h, p[name]) for name in "qkv")
        weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5)
        h = h + jnp.einsum("nhlk,hkd->nld", weights @ v, p["out"])
        z = h - h.mean(-1, keepdims=True)
        z = z / jnp.sqrt((z**2).mean(-1, keepdims=True) + 1e-5) * p["scale"]
        h = h + jax.nn.gelu(z @ p["up"]) @ p["down"]
    return h[:, -1] @ params["embed"].T


BLOCK = {
    "q": (64, 4, 16),
    "k": (64, 4, 16),
    "v": (64, 4, 16),
    "out": (4, 16, 64),
    "scale": (64,),
    "up": (64, 256),
    "down": (256, 64),
}
CONVOLUTIONS = [[(3, 3, n, m), (m,)] for n, m in ((3, 32), (32, 64), (64, 64))]
ARCHITECTURES = {
    "CNN, 3 layers, 16 images 32 × 32": (
        cnn,
        {"convolutions": CONVOLUTIONS, "head": (64, 10)},
        (16, 32, 32, 3),
    ),
    "transformer, 2 blocks, 8 × 16 tokens of 100": (
        transformer,
        {"embed": (100, 64), "blocks": [BLOCK, BLOCK]},
        (8, 16),
    ),
}
"""By name: the function, the shapes of its parameters, and the shape of a batch."""


def draw(key, shapes):
    """Weights of the given shapes, with variance one over the fan-in; vectors are ones."""
    leaves, structure = jax.tree.flatten(
        shapes, is_leaf=lambda s: isinstance(s, tuple) and isinstance(s[0], int)
    )
    keys = jax.random.split(key, len(leaves))
    drawn = [
        jax.random.normal(k, s) / (s[0] if len(s) < 4 else s[0] * s[1] * s[2]) ** 0.5
        if len(s) > 1
        else jnp.ones(s)
        for k, s in zip(keys, leaves)
    ]
    return jax.tree.unflatten(structure, drawn)


# --- other ways


def nt_empirical(f: Callable, output: str, method: str) -> Callable:
    """The empirical kernel of `f(params, x)` by a method of neural-tangents, as a function of parameters and
    two batches."""
    from ntk_helpers.neural_tangents_compat import nt

    traced = {"full": (), "trace": (-1,)}[output]
    implementation = nt.NtkImplementation[NT_METHODS[method]]
    kernel = nt.empirical_ntk_fn(f, trace_axes=traced, vmap_axes=0, implementation=implementation)
    return lambda params, x1, x2=None: kernel(x1, x2, params)


def nt_infinite(depth: int) -> Callable:
    """The infinite ReLU kernel with biases, by `stax`."""
    from ntk_helpers.neural_tangents_compat import stax

    layers = [stax.Dense(1, W_std=2**0.5, b_std=0.1**0.5)]
    for _ in range(depth - 1):
        layers += [stax.Relu(), stax.Dense(1, W_std=2**0.5, b_std=0.1**0.5)]
    kernel = stax.serial(*layers)[2]
    return lambda x: kernel(x, None, "ntk")


def jacobian_products(net: MLP, x) -> Callable:
    """A draw as in the script of Seleznova & Kutyniok 2022: a network, its Jacobian at each input, a product
    for each pair."""
    init = jax.jit(partial(net.init, d_in=x.shape[1]))
    gradient = jax.grad(lambda params, xi: net.apply(params, xi[None])[0, 0])

    def pair(params, x1, x2):
        products = jax.tree.map(lambda a, b: (a * b).sum(), gradient(params, x1), gradient(params, x2))
        return sum(jax.tree.leaves(products))

    pairs = jax.jit(jax.vmap(jax.vmap(pair, (None, None, 0)), (None, 0, None)))
    return lambda key: jax.block_until_ready(pairs(init(key), x, x))


def torch_empirical(net: MLP, output: str, device: str) -> tuple[Callable, Callable]:
    """The empirical kernel of a ReLU network by PyTorch: both Jacobians by `torch.func`, contracted; and what
    puts NumPy arrays where it takes them."""
    import torch

    there = partial(torch.tensor, device=device)

    def kernel(params, x1, x2):
        w_scales, b_scale = net.scales(x1.shape[1])

        def f(params, x):
            for i, (layer, scale) in enumerate(zip(params, map(float, w_scales))):
                x = (x.relu() if i else x) @ layer["w"] * scale + layer["b"] * float(b_scale)
            return x

        jacobian = torch.func.vmap(torch.func.jacrev(f), (None, 0))
        j1, j2 = ([j.flatten(2) for p in jacobian(params, x) for j in p.values()] for x in (x1, x2))
        if output == "trace":
            return sum(a.flatten(1) @ b.flatten(1).T for a, b in zip(j1, j2)) / net.d_out
        return sum(torch.einsum("iap,jbp->ijab", a, b) for a, b in zip(j1, j2))

    return kernel, lambda tree: jax.tree.map(there, tree)
