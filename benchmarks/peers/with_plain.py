"""The compiled floor: the loops that one writes by hand in JAX, without certificates, per-item stops or batches.

Inpainting: PDHG, x' = prox(x - tau D.H p), p' = proj(p + sigma D (2 x' - x)), over-relaxed by 1.9, tau 0.3.
ROF: the accelerated PDHG of Chambolle and Pock 2011 (algorithm 2). l1: FISTA of Beck and Teboulle 2009.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from instances import Instance, features, paste
from worker import Prepared, serve

from emjax.operators import DCT, SubsampledDCT, SubsampledFourier, Wavelet


def gradient(x: jax.Array) -> jax.Array:
    return jnp.stack([jnp.pad(x[1:] - x[:-1], ((0, 1), (0, 0))), jnp.pad(x[:, 1:] - x[:, :-1], ((0, 0), (0, 1)))])


def adjoint(p: jax.Array) -> jax.Array:
    a, b = p[0, :-1], p[1, :, :-1]
    rows = jnp.pad(a, ((1, 0), (0, 0))) - jnp.pad(a, ((0, 1), (0, 0)))
    return rows + jnp.pad(b, ((0, 0), (1, 0))) - jnp.pad(b, ((0, 0), (0, 1)))


def project(p: jax.Array, lam: float, isotropic: bool) -> jax.Array:
    if not isotropic:
        return jnp.clip(p, -lam, lam)
    return p / jnp.maximum(1, jnp.sqrt(p[0] ** 2 + p[1] ** 2) / lam)


def inpainting(instance: Instance) -> Callable[[Any, Any], Any]:
    mask, lam, tau, rho = jnp.asarray(instance.mask, jnp.float32), instance.lam, 0.3, 1.9

    def solve(y: jax.Array, n: jax.Array) -> jax.Array:
        def step(_: Any, s: Any) -> Any:
            x, p = s
            new = (x - tau * adjoint(p) + tau * mask * y) / (1 + tau * mask)
            q = project(p + 0.99 / 8 / tau * gradient(2 * new - x), lam, True)
            return x + rho * (new - x), p + rho * (q - p)

        start = jnp.where(mask > 0, y, jnp.sum(mask * y) / jnp.sum(mask))
        return jax.lax.fori_loop(0, n, step, (start, jnp.zeros((2, *y.shape), y.dtype)))[0]

    return solve


def rof(instance: Instance) -> Callable[[Any, Any], Any]:
    lam, isotropic = instance.lam, bool(instance.isotropic)

    def solve(y: jax.Array, n: jax.Array) -> jax.Array:
        def step(_: Any, s: Any) -> Any:
            x, ahead, p, tau, sigma = s
            p = project(p + sigma * gradient(ahead), lam, isotropic)
            new = (x - tau * adjoint(p) + tau * y) / (1 + tau)
            theta = 1 / jnp.sqrt(1 + 2 * tau)
            return new, new + theta * (new - x), p, theta * tau, sigma / theta

        first = (y, y, jnp.zeros((2, *y.shape), y.dtype), jnp.float32(0.5), jnp.float32(0.25))
        return jax.lax.fori_loop(0, n, step, first)[0]

    return solve


def fista(instance: Instance) -> Callable[[Any, Any], Any]:
    """On coefficients."""
    shape, lam = (instance.side, instance.side), instance.lam
    if instance.kind == "wavelet":
        mask, W = instance.mask.astype("f4"), Wavelet((instance.side,) * 2, "db4", int(instance.levels))
        A = SubsampledFourier(mask) if instance.fourier else SubsampledDCT(mask)
        bound = 1.0

        def forward(c: jax.Array) -> jax.Array:
            return A.forward(W.adjoint(c))

        def back(r: jax.Array) -> jax.Array:
            return W.forward(A.adjoint(r))

        zeros = jnp.zeros(shape)
        image: Any = W.adjoint
    else:
        side = instance.block
        D, matrix = DCT((side, side)), jnp.asarray(features(instance.matrix))
        bound = float(np.linalg.norm(instance.matrix, 2)) ** 2 * 1.0001

        def image(c: jax.Array) -> jax.Array:
            return jax.vmap(D.adjoint)(c.reshape(-1, side, side))

        def forward(c: jax.Array) -> jax.Array:
            return jnp.matmul(c, matrix.T, precision="highest")

        def back(r: jax.Array) -> jax.Array:
            return jnp.matmul(r, matrix, precision="highest")

        zeros = jnp.zeros((len(instance.y[0]), side * side))

    def solve(y: jax.Array, n: jax.Array) -> jax.Array:
        def step(_: Any, s: Any) -> Any:
            c, z, t = s
            v = z - back(forward(z) - y) / bound
            new = jnp.sign(v) * jnp.maximum(jnp.abs(v) - lam / bound, 0)
            after = (1 + jnp.sqrt(1 + 4 * t * t)) / 2
            return new, new + (t - 1) / after * (new - c), after

        return image(jax.lax.fori_loop(0, n, step, (zeros, zeros, jnp.float32(1)))[0])

    return solve


def prepare(instance: Instance) -> Prepared:
    make = {"inpainting": inpainting, "rof": rof, "wavelet": fista, "blocks": fista}[instance.kind]
    one = jax.jit(make(instance))
    ys = [jnp.asarray(y, jnp.complex64 if instance.fourier else jnp.float32) for y in instance.y]

    def solve(n: int) -> np.ndarray:
        found = [np.asarray(one(y, n)) for y in ys]
        if instance.kind == "blocks":
            found = [paste(b, instance.side // instance.block) for b in found]
        return np.stack(found)

    return Prepared(solve)


if __name__ == "__main__":
    serve(prepare)
