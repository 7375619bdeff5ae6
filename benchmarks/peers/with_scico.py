"""SCICO: `PDHG` on its own finite differences for total variation, `AcceleratedPGM` for l1, operators compiled.

Its losses and functionals have the closed-form maps that are needed. A solver object is made anew for every solve, as
its state stays inside; what it compiles is kept by JAX, and every count is run once before it is timed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scico.numpy as snp
from instances import Instance, Wavelet, dct_matrix, features, paste
from scico import functional, linop, loss
from scico.optimize import PDHG, AcceleratedPGM
from worker import Prepared, serve

TAU = {"inpainting": 0.3, "rof": 0.3}


def total_variation(instance: Instance):
    lam, shape = float(instance.lam), (instance.side, instance.side)
    C = linop.FiniteDifference(input_shape=shape, input_dtype=np.float32, append=0)
    tau = TAU[instance.kind]
    norm = functional.L21Norm(l2_axis=0) if instance.isotropic else functional.L1Norm()
    A = None if instance.mask is None else linop.Diagonal(jnp.asarray(instance.mask, jnp.float32))
    sigma = 0.99 / 8 / tau

    def solve(y: jax.Array, n: int) -> jax.Array:
        f = loss.SquaredL2Loss(y=y, A=A)
        start = y if A is None else jnp.where(A.diagonal > 0, y, jnp.sum(y) / jnp.sum(A.diagonal))
        solver = PDHG(f, lam * norm, C, tau, sigma, x0=start, maxiter=n, itstat_options={"display": False})
        return solver.solve()

    return solve


def wavelet(instance: Instance):
    side, fourier = instance.side, bool(instance.fourier)
    matrices = [jnp.asarray(m) for m in Wavelet(instance.scaling, side, int(instance.levels), np.float32).matrices]
    mask, D = jnp.asarray(instance.mask, jnp.float32), jnp.asarray(dct_matrix(side, np.float32))

    def image(c: jax.Array) -> jax.Array:
        for m in reversed(matrices):
            n = len(m)
            c = c.at[:n, :n].set(m.T @ c[:n, :n] @ m)
        return c

    def forward(c: jax.Array) -> jax.Array:
        x = image(c)
        return mask * (jnp.fft.fftn(x, norm="ortho") if fourier else D @ x @ D.T)

    return solver(instance, forward, (side, side), jax.jit(image), 1.0)


def blocks(instance: Instance):
    side, count = instance.block, instance.side // instance.block
    D, matrix = jnp.asarray(dct_matrix(side, np.float32)), jnp.asarray(features(instance.matrix))
    bound = float(np.linalg.norm(instance.matrix, 2)) ** 2

    def forward(c: jax.Array) -> jax.Array:
        return c.reshape(count**2, -1) @ matrix.T

    return solver(instance, forward, (count**2, side, side), jax.jit(lambda c: D.T @ c @ D), bound)


def solver(instance: Instance, forward, shape: tuple[int, ...], image, bound: float):
    dtype = np.complex64 if instance.fourier else np.float32
    # jit=True compiles the operator and its adjoint
    A = linop.LinearOperator(
        input_shape=shape,
        output_shape=instance.y.shape[1:],
        eval_fn=forward,
        input_dtype=np.float32,
        output_dtype=dtype,
        jit=True,
    )
    g = float(instance.lam) * functional.L1Norm()
    start = snp.zeros(shape, dtype=np.float32)

    def solve(y: jax.Array, n: int) -> jax.Array:
        # SquaredL2Loss has the factor 1/2 itself: the gradient's constant is that of A.
        f = loss.SquaredL2Loss(y=y, A=A)
        pgm = AcceleratedPGM(f, g, L0=bound, x0=start, maxiter=n, itstat_options={"display": False})
        return image(pgm.solve())

    return solve


def prepare(instance: Instance) -> Prepared:
    make = {"inpainting": total_variation, "rof": total_variation, "wavelet": wavelet, "blocks": blocks}
    one = make[instance.kind](instance)
    ys = [jnp.asarray(y, jnp.complex64 if instance.fourier else jnp.float32) for y in instance.y]

    def solve(n: int) -> np.ndarray:
        found = [np.asarray(one(y, n)) for y in ys]
        if instance.kind == "blocks":
            found = [paste(b, instance.side // instance.block) for b in found]
        return np.stack(found)

    return Prepared(solve, compiles=True)


if __name__ == "__main__":
    serve(prepare)
