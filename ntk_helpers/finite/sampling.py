r"""The exact law of the tangent kernel of a finite network at initialization, without its weight matrices.

A layer's Gaussian matrix enters the kernel on $n$ inputs only through its products with the $n$ inputs of
the layer and with the $n$ deltas that come back to it. Both products have known laws, so a draw takes $n$
times the width in normal numbers for each layer, and not width times width.
"""

from functools import partial
from itertools import accumulate, groupby
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ntk_helpers._lib.angles import safe_sqrt
from ntk_helpers._lib.inputs import check_key, check_points, check_size
from ntk_helpers._lib.progress import progress, tick
from ntk_helpers.networks.mlp import MLP, check_network

__all__ = ["NTKSamples", "sample_ntk"]

BATCH_BYTES = 2**26


class NTKSamples(NamedTuple):
    """What `sample_ntk` returns with `parts=True`: kernels, their parts by layer, and the networks' outputs.

    The weights' and the biases' parts of all layers sum to the kernel. Row i of every array is of the same
    network.
    """

    kernel: Float[Array, "draws n n"]
    weights: Float[Array, "draws depth n n"]
    biases: Float[Array, "draws depth n n"]
    outputs: Float[Array, "draws n"]


def sample_ntk(
    net: MLP, key: Array, x: Float[Array, "n d"], draws: int, parts: bool = False
) -> Float[Array, "draws n n"] | NTKSamples:
    r"""Draws of the tangent kernel $\Theta$ on the inputs `x`, each of another network at initialization.

    The network has one output. The law is that of `empirical_ntk(net, net.init(key, d), x, output="trace")`
    at any width, with no approximation but rounding, of relative size n·eps. With $A$ (n, m) the inputs of a
    layer, $D$ (n, p) the derivatives of the outputs in its preactivations $H$, and $s^2 = \sigma_w^2/m$,

    $$\begin{aligned}
    \Theta &= \sum_l (w_l^2 A_l A_l^\top + b^2) \circ D_l D_l^\top, \\
    H &= s A W + \sigma_b \mathbf 1 \beta^\top, \quad D_{l-1} = s\,(D W^\top) \circ \phi'(H_{l-1})
    \end{aligned}$$

    with $w_l$, $b$ from `net.scales`, $D_L$ = `net.output_scale`, and $\circ$ by entries. $W$ (m, p) is
    standard normal and enters by two products:

    - Forward. $A^\top = Q R$ by Householder reflections: $Q$ (m, n) has orthonormal columns, whatever the
      rank of $A$. The normal law is invariant to rotations, so $W = Q Z + (I - Q Q^\top) \tilde W$ with $Z$
      (n, p), $\tilde W$ (m, p) standard normal, independent of each other and of the layers below. Hence
      $A W = R^\top Z$.
    - Backward. $D$ depends on $W$ through $Z$ alone, so $\tilde W$ is independent of it too, and
      $D W^\top = (D Z^\top) Q^\top + T Z' (I - Q Q^\top)$ with $T T^\top = D D^\top$ and $Z'$ (n, m) standard
      normal.

    It is the Gaussian conditioning of the Tensor Programs proofs (Yang 2020), free of the inverse of
    $A A^\top$. A layer where $m p \le n (m + p)$ draws $W$ itself. Layer values of inputs that are
    equal or opposite stay so to the last bit, kernel entries to rounding.

    With `parts=True` the result is an `NTKSamples`. Draw i depends on the key and on i alone, so more draws
    continue fewer. Numbers have the type of `x`, float32 at least. Calls of several batches show a progress
    bar after two seconds.

    Raises:

    - `ValueError` for what is no network, and for a network with more than one output;
    - `ValueError` for less than one draw, and for what is no key;
    - `ValueError` for inputs that are not a finite (n, d) array.

    >>> kernels = sample_ntk(MLP(3, 50), jax.random.key(0), jnp.eye(2), draws=100)
    >>> kernels.shape
    (100, 2, 2)
    """
    check_network(net)
    check_key(key)
    x, _ = check_points(x)
    draws = check_size("draws", draws)
    if net.d_out != 1:
        raise ValueError(f"net has d_out {net.d_out}; expected 1.")
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    twins = _twins(x)
    if not isinstance(twins, jax.core.Tracer) and (twins == jnp.arange(len(x))).all():
        twins = None
    kept_bytes = 5 * x.itemsize * len(x) * (1 + sum(net.widths))
    batches = -(-draws // max(1, BATCH_BYTES // kept_bytes))
    with progress(batches, "sample_ntk", "batch", (net, key, x)) as ticks:
        return _sample(net, key, x, twins, draws, batches, bool(parts), ticks)


@partial(jax.jit, static_argnames=("draws", "batches", "parts", "ticks"))
def _sample(
    net: MLP, key: Array, x: Array, twins: Array | None, draws: int, batches: int, parts: bool, ticks: bool
):
    def draw(index):
        samples = _draw(net, jax.random.fold_in(key, index), x, twins)
        return samples if parts else samples.kernel

    def batch(indices):
        if ticks:
            tick()
        return jax.vmap(draw)(indices)

    indices = jnp.arange(batches * -(-draws // batches)).reshape(batches, -1)
    with jax.default_matmul_precision("highest"):
        out = jax.lax.map(batch, indices)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:draws], out)


def _draw(net: MLP, key: Array, x: Array, twins: Array | None) -> NTKSamples:
    """One network: its kernel (n, n), parts (depth, n, n) and outputs (n,). Without `twins` nothing is
    tied."""
    tie = (lambda rows, images, even=False: images) if twins is None else partial(_tie, twins)
    w_scales, b_scale = net.scales(x.shape[1])
    first, *runs = _runs(net, key, x)
    x = tie(x, _rotated(x))
    outputs, input_grams, kept = _forward(net, tie, x, first, runs)
    scale = jnp.asarray(net.output_scale, x.dtype)
    delta_grams = _backward(tie, jnp.broadcast_to(scale, outputs.shape), kept)
    weights = jnp.asarray(w_scales, x.dtype)[:, None, None] ** 2 * input_grams * delta_grams
    biases = jnp.asarray(b_scale, x.dtype) ** 2 * delta_grams
    return NTKSamples((weights + biases).sum(0), weights, biases, scale * outputs[:, 0])


class _Run(NamedTuple):
    """Layers of one shape, `size` units each, on the first axis: a loop goes through them."""

    size: int
    scales: Float[Array, " layers"]
    normals: Float[Array, "layers c"]


def _runs(net: MLP, key: Array, x: Float[Array, "n d"]) -> list[_Run]:
    """The layers in order; the first, whose input is `x`, is a run of its own."""
    n, d_in = x.shape
    scales = jnp.sqrt(net.sigma_w2 / jnp.asarray(net.fan_in(d_in), x.dtype)).astype(x.dtype)
    shapes = list(zip((min(n, d_in), *net.widths), (*net.widths, 1)))
    runs = [shapes[:1], *(list(run) for _, run in groupby(shapes[1:]))]
    numbers = [len(run) * (run[0][1] + _count(n, *run[0])) for run in runs]
    normals = jnp.split(jax.random.normal(key, (sum(numbers),), x.dtype), list(accumulate(numbers))[:-1])
    scales = jnp.split(scales, list(accumulate(map(len, runs)))[:-1])
    return [_Run(run[0][1], s, z.reshape(len(run), -1)) for run, s, z in zip(runs, scales, normals)]


def _forward(net: MLP, tie, x: Array, first: _Run, runs: list[_Run]):
    """The outputs, the Gram matrices of all layers' inputs, and what the way back needs of each run."""
    sigma_b = jnp.sqrt(net.sigma_b2).astype(x.dtype)

    def affine(a, size, scale, normals):
        product, gram, weights = _product(normals[size:], a, size)
        return scale * tie(a, product) + sigma_b * normals[:size], gram, weights

    def layer(size, h, drawn):
        a = net.phi.fn(h)
        slope = tie(jnp.concatenate([h, a], 1), net.phi.derivative(h), even=True)
        out, gram, weights = affine(a, size, *drawn)
        return out, (gram, (drawn[0], weights, slope))

    h, gram, _ = affine(x, first.size, first.scales[0], first.normals[0])
    grams, kept = [gram[None]], []
    for run in runs:
        h, (gram, saved) = _scan(partial(layer, run.size), h, (run.scales, run.normals))
        grams.append(gram)
        kept.append(saved)
    return h, jnp.concatenate(grams), kept


def _backward(tie, delta: Float[Array, "n 1"], kept: list) -> Float[Array, "depth n n"]:
    """The Gram matrices of the outputs' derivatives in all layers' preactivations."""

    def layer(delta, kept):
        scale, weights, slope = kept
        gram = delta @ delta.T
        return scale * tie(delta, weights.transposed(delta, gram)) * slope, gram

    grams = []
    for saved in reversed(kept):
        delta, gram = _scan(layer, delta, saved, reverse=True)
        grams.insert(0, gram)
    return jnp.concatenate([(delta @ delta.T)[None], *grams])


def _scan(step, carry, layers, reverse=False):
    """`lax.scan`; a single step may change the carry's shape."""
    if len(layers[0]) > 1:
        return jax.lax.scan(step, carry, layers, reverse=reverse)
    carry, out = step(carry, jax.tree.map(lambda a: a[0], layers))
    return carry, jax.tree.map(lambda a: a[None], out)


# --- a layer's standard normal matrix, as far as its two products show it


class _Dense(NamedTuple):
    w: Float[Array, "m p"]

    def transposed(self, d: Float[Array, "n p"], gram: Float[Array, "n n"]) -> Float[Array, "n m"]:
        return d @ self.w.T


class _Conditioned(NamedTuple):
    """The part Q Z that the forward product has shown, and the normals for the rest."""

    q: Float[Array, "m n"]
    z: Float[Array, "n p"]
    rest: Float[Array, "n m"]

    def transposed(self, d: Float[Array, "n p"], gram: Float[Array, "n n"]) -> Float[Array, "n m"]:
        rest = _root(gram) @ self.rest
        return rest + (d @ self.z.T - rest @ self.q) @ self.q.T


def _count(n: int, m: int, size: int) -> int:
    """How many normal numbers W (m, size) takes: all of it, or n for each row and column."""
    return min(m * size, n * (m + size))


def _product(
    normals: Float[Array, " c"], a: Float[Array, "n m"], size: int
) -> tuple[Float[Array, "n p"], Float[Array, "n n"], _Dense | _Conditioned]:
    """a W with the W (m, size) that `_count` normals make, a aᵀ, and what to keep of W."""
    n, m = a.shape
    if len(normals) == m * size:
        w = normals.reshape(m, size)
        return a @ w, a @ a.T, _Dense(w)
    # Two of its routines at a time can wait for each other on a CPU with two cores: the next layer's comes
    # after all of this one.
    q, r = jax.lax.optimization_barrier(jnp.linalg.qr(a.T))
    z, rest = normals[: n * size].reshape(n, size), normals[n * size :].reshape(n, m)
    return r.T @ z, r.T @ r, _Conditioned(q, z, rest)


def _root(gram: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """T with T Tᵀ = gram to rounding, relative in every row, at any rank: Cholesky of the correlations, and a
    few ulps."""
    scale = safe_sqrt(jnp.diagonal(gram))
    inverse = jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1.0), 0.0)
    ulps = 4 * len(gram) * jnp.finfo(gram.dtype).eps
    correlation = jnp.where(jnp.eye(len(gram), dtype=bool), 1 + ulps, inverse[:, None] * gram * inverse)
    return scale[:, None] * jnp.linalg.cholesky(correlation, symmetrize_input=False)


def _rotated(x: Float[Array, "n d"]) -> Float[Array, "n k"]:
    """The inputs in at most n dimensions, with the same Gram matrix: the law sees no more of them."""
    return jnp.linalg.qr(x.T, mode="r").T if x.shape[0] < x.shape[1] else x


# --- inputs that are equal or opposite


@jax.jit
def _twins(x: Float[Array, "n d"]) -> Int[Array, " n"]:
    """For each input the first that equals it or its negative."""
    return jax.lax.map(lambda row: ((x == row).all(1) | (x == -row).all(1)).argmax(), x)


def _tie(
    twins: Int[Array, " n"], rows: Float[Array, "n m"], images: Float[Array, "n p"], even=False
) -> Float[Array, "n p"]:
    """Images of rows, mended so that equal rows have equal images, and opposite rows opposite ones (or equal,
    if `even`).

    To rounding they have; a chaotic network would blow up the last bit from layer to layer.
    """
    first = rows[twins]
    sign = jnp.where((rows == first).all(1), 1, -(rows == -first).all(1).astype(int))[:, None]
    return jnp.where(sign == 0, images, (jnp.abs(sign) if even else sign) * images[twins])
