"""Runs that outlast their chapters, made once and stored beside the notebooks.

    python tools/stored_runs.py 06_kernels    moments of the kernel at initialization, on the papers' grids
    python tools/stored_runs.py 06_training   kernel and loss in training, as in Seleznova & Kutyniok 2021
    python tools/stored_runs.py 06_rates      the same at the networks' own learning rates
    python tools/stored_runs.py 06_centred    the same of each network less its output at the start
    python tools/stored_runs.py 07_accuracy   what networks of all phases learn, as in Xiao et al. 2020
    python tools/stored_runs.py 07_centred    the same networks, with the output at the start subtracted
    python tools/stored_runs.py 12_tables     eight classifiers on small tables, as in Arora et al. 2020
                                              (it needs the package palmerpenguins)
    python tools/stored_runs.py 12_many       kernel regression on up to 20,000 points, dense and by landmarks
                                              (on Linux, with 5 GB of memory)

`--worker 0/2` does every second case, so that two processes share a run. A run that was stopped goes on when
it is started again: finished cases lie in .stored/ or are stored already, and a training in progress has a
checkpoint. Each call ends by writing what is finished to notebooks/stored/, with the command, the date, the
versions and a hash of the numbers.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.linalg import cho_factor, cho_solve
from sklearn import datasets
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from ntk_helpers import (
    MLP,
    empirical_ntk,
    kernel_dynamics,
    kernel_regression,
    kernels,
    max_learning_rate,
    ntk,
    sample_ntk,
    tiled,
)
from ntk_helpers.book import digest
from ntk_helpers.learning import kernel_solve
from ntk_helpers.learning.training import Run, train
from ntk_helpers.theory import critical_sigma_w2

ROOT = Path(__file__).resolve().parent.parent
STEPS = [0, 10, 100, 1000, 10_000, 100_000]
RATE_STEPS = [0, 10, 30, 100, 300, 600]
ETA = 1e-5
STOPS = [10, 20, 40, 80, 160]  # of the networks on tables
SOLVED = 1e-4  # mean squared error at which a training ends


def training_cases() -> Iterator[dict]:
    """Seleznova & Kutyniok 2021, Figs 3, 4, 8, 9 (width 256), 10, 11 (widths 128, 512, at depth 10), and some
    for 10^5 steps."""
    grid = {"tanh": (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5), "relu": (0.5, 1.0, 1.5, 2.0, 2.5)}
    between = {"relu": (0.75, 1.25, 1.75, 2.25)}
    case = lambda *values: dict(
        zip(("activation", "sigma_w2", "sigma_b2", "depth", "width", "steps"), values)
    )
    whole = lambda depth, sigma_b2, width=256, grid=grid: (
        case(name, w2, sigma_b2, depth, width, 10_000) for name, row in grid.items() for w2 in row
    )
    for sigma_b2 in (0.25, 0.0):
        for depth in (3, 10, 20):
            yield from whole(depth, sigma_b2)
    yield from whole(3, 1.0)
    yield from whole(10, 1.0)
    telling = (("tanh", 1.0), ("tanh", 3.0), ("relu", 2.0), ("relu", 1.0))
    yield from (case(name, w2, 0.25, 3, 256, 100_000) for name, w2 in telling)
    yield from whole(20, 1.0)
    yield from (
        case(name, w2, 0.25, 10, 256, 100_000) for name, w2 in (("tanh", 1.0), ("relu", 1.0), ("tanh", 3.0))
    )
    for width in (128, 512):
        yield from whole(10, 0.25, width)
    for depth in (3, 10, 20):
        yield from whole(depth, 0.5)
    for sigma_b2 in (1.0, 0.0):
        for width in (128, 512):
            yield from whole(10, sigma_b2, width)
    for depth in (3, 10, 20):
        for sigma_b2 in (0.0, 0.25, 0.5, 1.0):
            yield from whole(depth, sigma_b2, grid=between)


def rate_cases() -> Iterator[dict]:
    """Ten networks each of ordered, critical and chaotic settings of depth 10; 2.4 is the edge of tanh."""
    grid = {"tanh": (1.0, 2.0, 2.4, 3.0), "relu": (1.5, 2.0, 2.5)}
    for activation, row in grid.items():
        for sigma_w2, seed in product(row, range(10)):
            setting = {"activation": activation, "sigma_w2": sigma_w2, "sigma_b2": 0.25}
            yield setting | {"depth": 10, "width": 256, "steps": 600, "seed": seed}


def centred_cases() -> Iterator[dict]:
    """Those of `rate_cases`, at their rates, which come from the mean of the ten outputs' kernels, and at
    rates that come from the whole kernel."""
    for case in rate_cases():
        yield from (case | {"kernel": kernel} for kernel in ("mean", "whole"))


def digits() -> tuple[np.ndarray, np.ndarray]:
    """128 images of 64 pixels in [0, 1], and their labels as unit vectors."""
    data = load_digits()
    return (data.data[:128] / 16).astype(np.float32), np.eye(10, dtype=np.float32)[data.target[:128]]


def descent_loss(outputs, y):
    """Half of the mean over images, not over outputs, of the squared error."""
    return ((outputs - y) ** 2).sum() / (2 * len(y))


def solved(i, losses):
    return losses[i] < SOLVED * 10 / 2  # ten outputs, and a half


def run_training(case: dict, checkpoint: Path) -> dict:
    """One network: mean squared error and relative change of the kernel at STEPS, and where it ended."""
    start = time.process_time()
    run, limit = descend(case, ETA, STEPS, stop=solved, checkpoint=checkpoint)
    return {
        "loss": short(run.loss / 5),
        "least_loss": short(np.nanmin(run.batch_losses) / 5),
        "change": short(run.change("ntk")),
        "stopped": int(run.stopped),
        "diverged": int(run.diverged),
        "eta_over_max": short(ETA / limit),
        "seconds": round(time.process_time() - start, 1),
    }


def run_rates(case: dict, checkpoint: Path) -> dict:
    """One network at half of its largest rate: mean squared error and change of the kernel at RATE_STEPS."""
    start = time.process_time()
    run, limit = descend(case, None, RATE_STEPS, checkpoint=checkpoint)
    return {
        "loss": short(run.loss / 5),
        "change": short(run.change("ntk")),
        "eta": short(limit / 2),
        "seconds": round(time.process_time() - start, 1),
    }


def run_centred(case: dict, checkpoint: Path) -> dict:
    """The network f less its output f₀ at the start, at half of the largest rate that a kernel allows: the
    same at RATE_STEPS, and how far it is from the linear prediction, relative to how far that has moved."""
    start = time.process_time()
    net, params = network(case)
    x, y = digits()
    theta, f0 = empirical_ntk(net, params, x), np.asarray(net.apply(params, x))
    limits = {
        "mean": max_learning_rate(empirical_ntk(net, params, x, output="trace"), "sum_half") * len(x),
        "whole": max_learning_rate(theta, "sum_half") * len(x),
    }
    eta = limits[case["kernel"]] / 2
    see = {"outputs": partial(net.apply, x=x)}
    # f - f₀ learns y as f learns y + f₀
    run, _ = descend(case, eta, RATE_STEPS, targets=y + f0, see=see, checkpoint=checkpoint)
    found = {
        "loss": short(run.loss / 5),
        "change": short(run.change("ntk")),
        "eta": short(eta),
        "eta_over_max": short(eta / limits["whole"]),
    }
    if case["kernel"] == "whole":  # at the other rates the prediction may diverge
        linear = kernel_dynamics(theta, y, loss="sum_half", learning_rate=eta / len(x))
        predicted = linear.train(RATE_STEPS[1:], np.zeros_like(y))
        missed = np.asarray(run.observed["outputs"], float)[1:] - f0 - predicted
        norm = lambda values: np.sqrt((values**2).sum((1, 2)))
        found["off"] = short(norm(missed) / norm(predicted))
    return found | {"seconds": round(time.process_time() - start, 1)}


def network(case: dict):
    """The network of a case, and its parameters at the start."""
    shape = (case["depth"], case["width"], 10)
    net = MLP(*shape, case["activation"], case["sigma_w2"], case["sigma_b2"], "standard")
    return net, net.init(jax.random.key(case.get("seed", 0)), 64, jnp.float32)


def descend(
    case: dict, eta: float | None, at: list[int], targets=None, see: dict | None = None, **settings
) -> tuple[Run, float]:
    """A network trained on the digits, and its largest stable rate, of which half is taken without `eta`."""
    net, params = network(case)
    x, y = digits()
    kernel = partial(empirical_ntk, net, x1=x, output="trace")
    limit = max_learning_rate(kernel(params), "sum_half") * len(x)
    rule, steps = optax.sgd(limit / 2 if eta is None else eta), case["steps"]
    settings |= {"loss": descent_loss, "at": [s for s in at if s <= steps]}
    settings["observe"] = {"ntk": kernel} | (see or {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of runs that diverge, which the result says
        return train(net, params, x, y if targets is None else targets, rule, steps, **settings), limit


def accuracy_cases() -> Iterator[dict]:
    """Five depths and eight weight variances from order to chaos; Xiao et al. 2020, Fig. 1, on digits."""
    variances = (0.7, 0.9, 1.1, critical_sigma_w2("erf", 0.05), 1.7, 2.2, 3.0, 4.0)
    for depth, sigma_w2 in product((3, 6, 12, 20, 32), variances):
        yield {"depth": depth, "sigma_w2": short(sigma_w2), "networks": 10, "steps": 100}


def centred_digits() -> tuple[np.ndarray, np.ndarray]:
    """320 digits less the mean image, scaled to norm 8, in a random order, and their labels."""
    data = load_digits()
    x = data.data - data.data.mean(0)
    order = np.random.default_rng(0).permutation(len(x))[:320]
    return (x / np.linalg.norm(x, axis=1, keepdims=True) * 8)[order], data.target[order]


def run_accuracy(case: dict, checkpoint: Path) -> dict:
    """Each network at the rate 1/λ_max of its own kernel: accuracy on 64 training and 256 test images, and
    the relative change of its kernel on 16."""
    start = time.process_time()
    found = [learned(case, seed, 0.0, change=True) for seed in range(case["networks"])]
    return by_name(found) | {"seconds": round(time.process_time() - start, 1)}


def run_accuracy_centred(case: dict, checkpoint: Path) -> dict:
    """The same networks and rates, but f - f₀ is trained and tested, with f₀ the output at the start."""
    start = time.process_time()
    found = [learned(case, seed, 1.0, change=False) for seed in range(case["networks"])]
    return by_name(found) | {"seconds": round(time.process_time() - start, 1)}


def learned(case: dict, seed: int, share: float, change: bool) -> dict:
    """A network whose output less a share of that at the start is trained: accuracies, change of the
    kernel."""
    net = MLP(case["depth"], 256, 10, "erf", case["sigma_w2"], 0.05)
    images, labels = centred_digits()
    x, y = images.astype(np.float32), np.eye(10, dtype=np.float32)[labels] - np.float32(0.1)
    params = net.init(jax.random.key(seed), 64, jnp.float32)
    less = np.float32(share) * np.asarray(net.apply(params, x))
    theta = empirical_ntk(net, params, x[:64], output="trace")
    rule = optax.sgd(max_learning_rate(theta, "sum_half") / 2)
    seen = {"right": lambda p: (net.apply(p, x) - less).argmax(1) == labels}
    if change:
        seen["ntk"] = partial(empirical_ntk, net, x1=x[:16], output="trace")
    run = train(net, params, x[:64], y[:64] + less[:64], rule, case["steps"], loss="sum_half", observe=seen)
    right = run.observed["right"][-1]
    found = {"trained": right[:64].mean(), "tested": right[64:].mean()}
    return found | ({"change": run.change("ntk")[-1]} if change else {})


def by_name(rows: list[dict]) -> dict:
    """The values of several runs in lists."""
    return {name: short([row[name] for row in rows]) for name in rows[0]}


def kernel_cases() -> Iterator[dict]:
    """Seleznova & Kutyniok 2021, Figs 1 and 7 (200 draws) and 2; 2022 (500 draws, 16 variances, up to 49
    hidden layers)."""
    fine = [round(0.2 * k, 1) for k in range(1, 26)]
    case = lambda *values: dict(zip(("figure", "activation", "width", "depth", "draws", "points"), values))
    for width in (100, 50, 200, 500):
        points = [[w2, b2] for b2 in ((1.0, 0.1, 0.5) if width == 100 else (1.0,)) for w2 in fine]
        yield from (
            case("1", name, width, depth, 200, points)
            for name in ("tanh", "relu")
            for depth in range(3, 99, 5)
        )
    for width in (64, 128, 256, 512, 1024):
        depths = sorted({round(k * min(100, width / 2) / 10) for k in range(1, 11)} - {1})
        yield from (
            case("2", "relu", width, depth, 200, [[1.0, 1.0], [1.5, 1.0], [2.0, 0.0], [3.0, 1.0]])
            for depth in depths
        )
    sixteen = [
        [w2, 0.0] for w2 in (0.5, 0.8, 1.0, 1.2, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 2.1, 2.2, 2.5, 3.0, 3.5)
    ]
    yield from (case("2022", "relu", 100, depth, 500, sixteen) for depth in range(2, 51))


def run_kernels(case: dict, checkpoint: Path) -> dict:
    r"""$E[\Theta^2]/E[\Theta]^2$ at every point, with its standard error; for the 2022 paper also of two
    inputs at 60 and 90 degrees."""
    width, depth = case["width"], case["depth"]
    overflows = case["activation"] == "relu" and depth > 70  # (5/2)^98 would, in float32
    x = np.zeros((3 if case["figure"] == "2022" else 1, width), np.float64 if overflows else np.float32)
    for row, cosine in zip(x, (1.0, 0.5, 0.0)):
        row[:2] = cosine, np.sqrt(1 - cosine**2)
    w2, b2 = np.array(case["points"]).T
    nets = replace(MLP(depth, width, 1, case["activation"], 2.0, 0.0, "standard"), sigma_w2=w2, sigma_b2=b2)
    start = time.process_time()
    k = np.asarray(draw_rows(nets, jax.random.key(0), jnp.asarray(x), case["draws"]), float)
    mean = k.mean(1)
    ratio = (k**2).mean(1) / mean**2
    spread = ((k / mean[:, None]) ** 2 - 2 * ratio[:, None] * k / mean[:, None]).std(1) / np.sqrt(
        case["draws"]
    )
    found = {"ratio": ratio, "error": spread} | ({"mean": mean} if len(x) > 1 else {})
    return {name: short(values.squeeze(-1) if len(x) == 1 else values) for name, values in found.items()} | {
        "seconds": round(time.process_time() - start, 1)
    }


@partial(jax.jit, static_argnames="draws")
def draw_rows(nets: MLP, key, x, draws: int):
    """The first row of each drawn kernel, (points, draws, inputs)."""
    return jax.lax.map(lambda net: sample_ntk(net, key, x, draws)[:, 0], nets)


TABLES = ("iris", "wine", "breast_cancer", "digits", "diabetes", "penguins species", "penguins sex")
METHODS = ("NTK SVM", "NTK ridge", "NNGP ridge", "RBF SVM", "RBF ridge", "forest", "logistic", "network")


def table_cases() -> Iterator[dict]:
    """Arora et al. 2020, sec. 4, on tables that come inside packages, with nested cross-validation."""
    for methods in (METHODS[:-1], METHODS[-1:]):  # the slowest last
        for shuffle, table, method in product(range(5), TABLES, methods):
            yield {"table": table, "method": method, "shuffle": shuffle}


def table_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels 0, 1, ... in a random order, at most 500 rows."""
    kind, _, column = name.partition(" ")
    if column:
        from palmerpenguins import load_penguins  # in no lock: no page and no test needs it

        data = load_penguins().dropna()
        x, labels = data.filter(regex="_mm$|_g$").to_numpy(float), data[column]
    else:
        options = {"scaled": False} if kind == "diabetes" else {}
        x, labels = getattr(datasets, f"load_{kind}")(return_X_y=True, **options)
    labels = labels > np.median(labels) if kind == "diabetes" else labels
    order = np.random.default_rng(0).permutation(len(x))[:500]
    return x[order], np.unique(labels, return_inverse=True)[1][order]


def run_table(case: dict, checkpoint: Path) -> dict:
    """Accuracy on each of four folds with the candidate that three folds inside the others chose, and the
    mean accuracy of the candidate that is best on the four themselves, which nobody could have known."""
    start = time.process_time()
    x, labels = table_of(case["table"])
    folds = lambda count: StratifiedKFold(count, shuffle=True, random_state=case["shuffle"])
    right, chosen = [], []
    for train_rows, test in folds(4).split(x, labels):
        inside = [
            (predictions(case, x, labels, train_rows[a]) == labels)[:, train_rows[b]]
            for a, b in folds(3).split(train_rows, labels[train_rows])
        ]
        chosen.append(np.concatenate(inside, axis=1).mean(1).argmax())
        right.append((predictions(case, x, labels, train_rows) == labels)[:, test].mean(1))
    return {
        "accuracy": short([row[i] for row, i in zip(right, chosen)]),
        "best_on_test": short(np.mean(right, axis=0).max()),
        "chosen": [int(i) for i in chosen],
        "seconds": round(time.process_time() - start, 1),
    }


def predictions(case: dict, x, labels, rows) -> np.ndarray:
    """Labels of all points by fits on some rows, which also set the scale: (candidates, points)."""
    spread = x[rows].std(0)
    x = (x - x[rows].mean(0)) / np.where(spread > 0, spread, 1.0)
    kind, _, machine = case["method"].partition(" ")
    if not machine:
        models = {"forest": forests, "logistic": logistics, "network": networks}[kind]
        return np.array(list(models(x, labels, rows, case["shuffle"])))
    solve = {"SVM": machines, "ridge": ridges}[machine]
    return np.concatenate([solve(k / k[rows, rows].mean(), labels, rows) for k in grams(kind, x)])


def grams(kind: str, x) -> Iterator[np.ndarray]:
    """Eight kernels of all points."""
    if kind == "RBF":
        yield from (rbf_kernel(x, gamma=2.0**k / x.shape[1]) for k in range(-5, 3))
    else:
        for depth, sigma_b2 in product((2, 3, 4, 5), (0.0, 0.1)):
            yield np.asarray(getattr(kernels(MLP(depth, 1, sigma_b2=sigma_b2), x), kind.lower()))


def ridges(k, labels, rows) -> np.ndarray:
    """By ridge regression on unit vectors less their mean; the kernel has a mean diagonal of 1."""
    y = np.eye(labels.max() + 1)[labels[rows]]
    fit = kernel_regression(k[np.ix_(rows, rows)], y - y.mean(0))
    return (fit.predict(k[:, rows], ridge=np.logspace(-5, 1, 7)) + y.mean(0)).argmax(-1)


def machines(k, labels, rows) -> np.ndarray:
    fit = lambda c: SVC(kernel="precomputed", C=c).fit(k[np.ix_(rows, rows)], labels[rows])
    return np.array([fit(c).predict(k[:, rows]) for c in np.logspace(-1, 3, 5)])


def forests(x, labels, rows, seed: int) -> Iterator[np.ndarray]:
    for share in ("sqrt", 0.5):
        model = RandomForestClassifier(100, max_features=share, random_state=seed)
        yield model.fit(x[rows], labels[rows]).predict(x)


def logistics(x, labels, rows, seed: int) -> Iterator[np.ndarray]:
    for c in np.logspace(-3, 3, 7):
        yield LogisticRegression(C=c, max_iter=2000).fit(x[rows], labels[rows]).predict(x)


def networks(x, labels, rows, seed: int) -> Iterator[np.ndarray]:
    """Three layers of width 256 by Adam on all rows at once: with weight decay or without,
    stopped at five times."""
    x, classes = x.astype(np.float32), labels.max() + 1
    used = np.isin(np.arange(len(x)), rows)  # in the loss, so that all folds share what is compiled
    net = MLP(3, 256, int(classes), parameterization="standard")
    params = net.init(jax.random.key(seed), x.shape[1], jnp.float32)
    y = np.c_[np.eye(classes)[labels], used].astype(np.float32)
    see = {"labels": lambda p: net.apply(p, x).argmax(1)}
    for decay in (0.0, 0.3):
        rule = optax.adamw(0.01, weight_decay=decay)
        run = train(net, params, x, y, rule, STOPS[-1], loss=used_entropy, at=STOPS, observe=see)
        yield from run.observed["labels"]


def used_entropy(outputs, y):
    """The mean cross entropy of the rows that are used."""
    return (optax.softmax_cross_entropy(outputs, y[:, :-1]) * y[:, -1]).sum() / y[:, -1].sum()


def many_cases() -> Iterator[dict]:
    for points in (2_500, 5_000, 10_000, 20_000):
        for method in ("dense float64", "dense float32", "landmarks"):
            yield {"points": points, "method": method}


def run_many(case: dict, checkpoint: Path) -> dict:
    """In a process of its own, whose memory is that of this case."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(solve_many, **case, folder=checkpoint.parent).result()


@threadpool_limits.wrap(
    limits=1
)  # OpenBLAS 0.3.30 crashes with two threads in a Cholesky factor of 20,000 rows
def solve_many(points: int, method: str, folder: Path) -> dict:
    """Kernel regression of ten digits on their noisy copies, ridge 1: seconds, gigabytes, and how far outputs
    at 1000 fresh points are from those of dense float64."""
    jax.config.update("jax_enable_x64", True)
    net, file = MLP(3, 1, sigma_b2=0.1), folder / "kernel.npy"
    x, y, x_test, labels = noisy_digits(points, np.float64 if method == "dense float64" else np.float32)
    most = Most()
    begin, cpu = time.perf_counter(), time.process_time()
    if method == "landmarks":
        for old in folder.glob("kernel.npy*"):
            old.unlink()
        theta = tiled(partial(ntk, net), x, path=file, memory_budget=2**30)
        landmarks = np.random.default_rng(0).choice(points, min(2000, points // 4), replace=False)
        alpha = kernel_solve(theta, y, 1.0, landmarks)
    else:
        theta = tiled(partial(ntk, net), x)
        theta[np.diag_indices(points)] += 1
        alpha = cho_solve(cho_factor(theta.T, lower=True, overwrite_a=True, check_finite=False), y)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu
    f = np.asarray(ntk(net, x_test, x), np.float64) @ alpha
    exact = folder / f"outputs_{points}.npy"
    if method == "dense float64":
        np.save(exact, f)
    return {
        "seconds": short(seconds),
        "cpu_seconds": short(cpu_seconds),
        "gigabytes": short(most.end() / 1e9),
        "off": short(np.linalg.norm(f - np.load(exact)) / np.linalg.norm(np.load(exact))),
        "wrong": short((f.argmax(1) != labels).mean()),
    }


def noisy_digits(points: int, dtype) -> tuple[np.ndarray, ...]:
    """Copies of 1000 images with noise, of half their length, and of other images for the test."""
    rng, digits = np.random.default_rng(0), load_digits()
    images = digits.data - digits.data.mean(0)
    images *= 8 / np.linalg.norm(images, axis=1, keepdims=True)
    order = rng.permutation(len(images))
    rows = np.r_[rng.choice(order[:1000], points), rng.choice(order[1000:], 1000)]
    x = (images[rows] + 0.5 * rng.normal(size=(len(rows), 64))).astype(dtype)
    labels = digits.target[rows]
    return x[:points], np.eye(10, dtype=dtype)[labels[:points]] - dtype(0.1), x[points:], labels[points:]


class Most:
    """The most memory that this process has of its own, from now on: pages of a mapped file are not."""

    def __init__(self):
        self._most, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self):
        while not self._ended.wait(0.02):
            status = Path("/proc/self/status").read_text()
            self._most = max(self._most, 1024 * int(status.split("RssAnon:")[1].split()[0]))

    def end(self) -> int:
        self._ended.set()
        self._thread.join()
        return self._most


def short(values):
    """Four digits of each number; None where it is not finite."""
    return (
        [short(v) for v in values]
        if np.ndim(values)
        else float(f"{values:.4g}")
        if np.isfinite(values)
        else None
    )


RUNS = {
    "06_kernels": (kernel_cases, run_kernels),
    "06_training": (training_cases, run_training),
    "06_rates": (rate_cases, run_rates),
    "06_centred": (centred_cases, run_centred),
    "07_accuracy": (accuracy_cases, run_accuracy),
    "07_centred": (accuracy_cases, run_accuracy_centred),
    "12_tables": (table_cases, run_table),
    "12_many": (many_cases, run_many),
}


def compute(name: str, worker: int, workers: int) -> None:
    cases, run = RUNS[name]
    folder = ROOT / ".stored" / name
    folder.mkdir(parents=True, exist_ok=True)
    for case in list(cases())[worker::workers]:
        if label_of(case) in finished(name):
            continue
        checkpoint = folder / f"{label_of(case)}.checkpoint"
        result = run(case, checkpoint)
        print(label_of(case), result, flush=True)
        new = checkpoint.with_suffix(".new")
        new.write_text(json.dumps(case | result))
        os.replace(new, checkpoint.with_suffix(".json"))
        checkpoint.unlink(missing_ok=True)
    collect(name)


def finished(name: str) -> dict[str, dict]:
    """The rows of the cases that are done, by label."""
    path = stored_path(name)
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    rows += [json.loads(file.read_text()) for file in (ROOT / ".stored" / name).glob("*.json")]
    asked = next(iter(RUNS[name][0]()))
    return {label_of({key: row[key] for key in asked}): row for row in rows}


def stored_path(name: str) -> Path:
    return ROOT / "notebooks" / "stored" / f"{name}.json"


def label_of(case: dict) -> str:
    return "_".join(str(value) for value in case.values() if not isinstance(value, list))


def collect(name: str) -> None:
    """Write the finished cases, in the order of the list, one a line."""
    done, cases = finished(name), list(RUNS[name][0]())
    rows = [done[label] for label in map(label_of, cases) if label in done]
    about = {
        "command": f"python tools/stored_runs.py {name}",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {
            package: importlib.metadata.version(package) for package in ("jax", "numpy", "ntk-helpers")
        },
        "sha256": digest(rows),
    }
    path, lines = stored_path(name), ",\n".join(json.dumps(row) for row in rows)
    if path.exists() and json.loads(path.read_text())["about"]["sha256"] == about["sha256"]:
        return  # with the date and the versions of the run
    path.write_text(f'{{"about": {json.dumps(about)},\n"rows": [\n{lines}\n]}}\n')
    print(f"{len(rows)} of {len(cases)} cases in {path.relative_to(ROOT)}")


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", choices=list(RUNS))
    parser.add_argument("--worker", default="0/1", help="which of how many processes this is, from 0")
    arguments = parser.parse_args()
    compute(arguments.run, *map(int, arguments.worker.split("/")))


if __name__ == "__main__":
    main()
