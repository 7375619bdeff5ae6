"""What does the gradient of an unrolled network cost beside the same network written by hand?

The peer is one plain function of the same weights: `lax.conv_general_dilated`, matrix products and elementwise
operations on an operator written out, no compiled loops, no modules, no operator classes. Losses and gradients are
compared first. The networks that are not here (for scans, denoising, and the auto-encoder) have no compiled loop inside
either, which the tests of emjax.networks say of each. Gradients by all weights, float32, published sizes, a batch of
images of 66^2 pixels (block sensing at 10 %, or half of the pixels) or of sparse vectors; medians of runs in turns.

    python benchmarks/network_gradients.py -o benchmarks/results/network_gradients.json [--quick]

Exits with 1 if a gradient costs more than twice that of its peer, or differs from it. For an idle machine.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from emjax.networks import build
from emjax.operators import BlockSampling, Dense, LinearOperator, PixelSampling

SIDE, BLOCK, ROWS, MEAN = 66, 33, 109, 0.46
BAR, CLOSE = 2.0, 2e-3
Weights = dict[str, jax.Array]
Map = Callable[[jax.Array], jax.Array]


def conv(w: Weights, name: str, x: jax.Array) -> jax.Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    x = lax.conv_general_dilated(x, w[f"{name}/kernel"], (1, 1), "SAME", dimension_numbers=dimensions)
    return x + w[f"{name}/bias"] if f"{name}/bias" in w else x


def soft(x: jax.Array, threshold: jax.Array) -> jax.Array:
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - jnp.abs(threshold), 0)


def blocks(phi: jax.Array) -> tuple[Map, Map]:
    """`A` and `A.T` of block sensing, batches of images `(n, SIDE, SIDE)`."""
    k = SIDE // BLOCK

    def forward(x: jax.Array) -> jax.Array:
        parts = x.reshape(-1, k, BLOCK, k, BLOCK).transpose(0, 1, 3, 2, 4).reshape(-1, k, k, BLOCK**2)
        return jnp.matmul(parts, phi.T, precision="highest")

    def adjoint(y: jax.Array) -> jax.Array:
        parts = jnp.matmul(y, phi, precision="highest").reshape(-1, k, k, BLOCK, BLOCK)
        return parts.transpose(0, 1, 3, 2, 4).reshape(-1, SIDE, SIDE)

    return forward, adjoint


def backprojection(y: jax.Array, A: Map, At: Map) -> jax.Array:
    x = At(y)
    again = A(x)
    axes = tuple(range(1, y.ndim))
    return x * (jnp.sum(again * y, axes) / jnp.sum(again * again, axes))[:, None, None]


def deep_inverse(w: Weights, y: jax.Array, A: Map, At: Map) -> jax.Array:
    proxy = backprojection(y, A, At)
    v = jax.nn.relu(conv(w, "layers/0", (proxy - MEAN)[..., None]))
    return proxy + conv(w, "layers/2", jax.nn.relu(conv(w, "layers/1", v)))[..., 0]


def ista(w: Weights, y: jax.Array, A: Map, At: Map, plus: bool) -> tuple[jax.Array, jax.Array]:
    x, symmetry = backprojection(y, A, At), jnp.zeros(())
    for k in range(9):
        name = f"layers/{k}"
        r = x - w[f"{name}/step"] * At(A(x) - y)
        v = (r - MEAN)[..., None]
        v = conv(w, f"{name}/into", v) if plus else v

        def two(side: str, v: jax.Array, name: str = name) -> jax.Array:
            v = jax.nn.relu(conv(w, f"{name}/transform/{side}/0", v))
            return conv(w, f"{name}/transform/{side}/1", v)

        coefficients = two("forward", v)
        symmetry += jnp.mean((two("backward", coefficients) - v) ** 2) / 9
        v = two("backward", soft(coefficients, w[f"{name}/transform/threshold"]))
        x = r + conv(w, f"{name}/out", v)[..., 0] if plus else MEAN + v[..., 0]
    return x, symmetry


def primal_dual(w: Weights, y: jax.Array, A: Map, At: Map) -> jax.Array:
    x = jnp.repeat((backprojection(y, A, At) - MEAN)[..., None], 5, -1)
    u = jnp.zeros_like(x)
    data = (y - A(jnp.full_like(y, MEAN)))[..., None]

    def update(name: str, v: jax.Array) -> jax.Array:
        for i in range(2):
            v = conv(w, f"{name}/layers/{i}", v)
            v = jnp.where(v > 0, v, w[f"{name}/slopes"][i] * v)
        return conv(w, f"{name}/layers/2", v)

    for k in range(10):
        u = u + update(f"duals/{k}", jnp.concatenate([u, A(x[..., 1])[..., None], data], -1))
        x = x + update(f"primals/{k}", jnp.concatenate([x, At(u[..., 0])[..., None]], -1))
    return MEAN + x[..., 0]


def modl(w: Weights, y: jax.Array, A: Map, At: Map, norm: float, closed: bool) -> jax.Array:
    x, weight = backprojection(y, A, At), jnp.exp(w["log_weight"]) * norm**2
    back = At(y)
    for k in range(10):
        v = jnp.stack([x - MEAN, jnp.full_like(x, 1) * w["levels"][k]], -1)
        for i in range(5):
            v = conv(w, f"denoiser/layers/{i}", jax.nn.relu(v) if i else v)
        z = x - v[..., 0]
        if closed:
            x = (back + weight * z) / (A(jnp.ones_like(x)) + weight)
            continue
        x, r = z, back - At(A(z))
        p, power = r, jnp.sum(r * r, (1, 2), keepdims=True)
        for _ in range(10):
            q = At(A(p)) + weight * p
            step = power / jnp.maximum(jnp.sum(p * q, (1, 2), keepdims=True), 1e-12)
            x, r = x + step * p, r - step * q
            new = jnp.sum(r * r, (1, 2), keepdims=True)
            p, power = r + new / jnp.maximum(power, 1e-12) * p, new
    return x


def lista(w: Weights, y: jax.Array, layers: int) -> jax.Array:
    last = len(w["encoders"]) - 1
    x = soft(y @ w["encoders"][0].T, w["thresholds"][0])
    for k in range(1, layers):
        mix = w["mixes"][min(k - 1, len(w["mixes"]) - 1)]
        x = soft(y @ w["encoders"][min(k, last)].T + x @ mix.T, w["thresholds"][min(k, last)])
    return x


def cases() -> dict[str, tuple[Any, LinearOperator, Callable[..., Any]]]:
    """Network, operator, and the peer as `peer(weights, y) -> x` or `(x, symmetry)`."""
    rng = np.random.default_rng(0)
    rows = np.linalg.qr(rng.standard_normal((BLOCK**2, ROWS)))[0].T.astype("f4")
    mask = jnp.asarray(rng.random((SIDE, SIDE)) < 0.5, jnp.float32)
    orthonormal = BlockSampling(rows, (SIDE, SIDE), BLOCK, orthonormal=True)
    loose = BlockSampling(rows, (SIDE, SIDE), BLOCK)
    A, At = blocks(jnp.asarray(rows))
    norm = float(loose.norm_bound())
    phi = rng.standard_normal((128, 512)).astype("f4") / np.sqrt(128)

    def seen(x: jax.Array) -> jax.Array:
        return mask * x

    pixels, vector = PixelSampling(mask), Dense(phi)
    tied, untied = ({"m": 128, "n": 512, "layers": 16, "tied": t} for t in (True, False))
    return {
        "DeepInverse": (build("deep-inverse"), orthonormal, lambda w, y: deep_inverse(w, y, A, At)),
        "ISTA-Net": (build("ista-net"), orthonormal, lambda w, y: ista(w, y, A, At, False)),
        "ISTA-Net+": (build("ista-net-plus"), orthonormal, lambda w, y: ista(w, y, A, At, True)),
        "LISTA, tied": (build("lista", tied), vector, lambda w, y: lista(w, y, 16)),
        "LISTA, untied": (build("lista", untied), vector, lambda w, y: lista(w, y, 16)),
        "learned primal-dual": (build("learned-primal-dual"), pixels, lambda w, y: primal_dual(w, y, seen, seen)),
        "MoDL, closed form": (build("modl"), pixels, lambda w, y: modl(w, y, seen, seen, 1.0, True)),
        "MoDL, conjugate gradients": (build("modl"), loose, lambda w, y: modl(w, y, A, At, norm, False)),
    }


def flat(state: Any) -> Weights:
    return {"/".join(map(str, path)): v.get_value() for path, v in nnx.to_flat_state(state)}


def measure(network: Any, A: LinearOperator, peer: Callable[..., Any], batch: int, repeats: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    images = len(A.in_shape) == 2
    x = rng.random((batch, *A.in_shape)) if images else rng.standard_normal((batch, 512)) * (rng.random(512) < 0.05)
    truth = jnp.asarray(x, jnp.float32)
    y = A(truth)
    graph, state = nnx.split(network, nnx.Param)
    # Layers that begin at zero would leave nothing of the gradient of those before.
    state = jax.tree.map(lambda p: p + jnp.asarray(0.01 * rng.standard_normal(p.shape), p.dtype), state)

    def error(found: Any, truth: jax.Array) -> jax.Array:
        x, symmetry = found if isinstance(found, tuple) else (found, 0.0)
        return jnp.mean((x - truth) ** 2) + 0.01 * symmetry

    def ours(state: Any, y: jax.Array, truth: jax.Array, A: LinearOperator) -> jax.Array:
        net: Any = nnx.merge(graph, state)
        return error(net.with_symmetry(y, A) if hasattr(net, "with_symmetry") else net(y, A), truth)

    def theirs(weights: Weights, y: jax.Array, truth: jax.Array) -> jax.Array:
        return error(peer(weights, y), truth)

    weights = flat(state)
    runs = [jax.jit(jax.value_and_grad(f)) for f in (ours, theirs)]
    inputs: list[Any] = [(state, y, truth, A), (weights, y, truth)]
    compiled = []
    for run, given in zip(runs, inputs, strict=True):
        begin = time.perf_counter()
        jax.block_until_ready(run(*given))
        compiled.append(time.perf_counter() - begin)
    (value, gradient), (peer_value, peer_gradient) = (run(*given) for run, given in zip(runs, inputs, strict=True))
    found = flat(gradient)
    scale = max(float(jnp.abs(v).max()) for v in found.values())
    difference = max(float(jnp.abs(found[k] - peer_gradient[k]).max()) for k in found) / scale
    difference = max(difference, abs(float(value / peer_value) - 1))
    pairs = []
    for _ in range(repeats):
        pair = []
        for run, given in zip(runs, inputs, strict=True):
            begin = time.perf_counter()
            jax.block_until_ready(run(*given))
            pair.append(time.perf_counter() - begin)
        pairs.append(pair)
    ours_s, theirs_s = np.median(np.array(pairs), 0)
    ratios = sorted(a / b for a, b in pairs)
    return {
        "parameters": network.parameter_count(),
        "seconds": float(ours_s),
        "peer_seconds": float(theirs_s),
        "ratio": float(ours_s / theirs_s),
        "ratios": [ratios[0], ratios[-1]],
        "compile_seconds": compiled,
        "difference": difference,
        "passed": bool(ours_s <= BAR * theirs_s and difference <= CLOSE),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--quick", action="store_true", help="one image, three runs")
    arguments = parser.parse_args()
    batch, repeats = (1, 3) if arguments.quick else (4, 9)
    table = {}
    for name, (network, A, peer) in cases().items():
        table[name] = measure(network, A, peer, batch, repeats)
        row = table[name]
        print(
            f"{'ok  ' if row['passed'] else 'MISS'} {name}: {row['seconds']:.3f} s, by hand {row['peer_seconds']:.3f}, "
            f"ratio {row['ratio']:.2f} ({row['ratios'][0]:.2f} to {row['ratios'][1]:.2f}); gradients differ by "
            f"{row['difference']:.1e}",
            flush=True,
        )
    report = {
        "bar": BAR,
        "batch": batch,
        "repeats": repeats,
        "environment": {"jax": jax.__version__, "platform": jax.default_backend(), "cpus": os.cpu_count()},
        "passed": all(row["passed"] for row in table.values()),
        "networks": table,
        "readme": {
            "columns": ["network", "gradient (s)", "by hand (s)", "ratio"],
            "rows": [[name, row["seconds"], row["peer_seconds"], row["ratio"]] for name, row in table.items()],
        },
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
