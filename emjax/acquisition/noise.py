"""The noise of a scan: Poisson counting of electrons plus Gaussian read-out.

y = Poisson(dose x) / dose + read_sigma n,    var(y | x) = gain x + read_sigma^2,    gain = 1 / dose
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax._pytree import assign, leaf, pytree_dataclass
from emjax.operators import LinearOperator, PixelSampling
from emjax.operators.base import as_float

# Above this many expected electrons a Poisson count is drawn as a Gaussian of the same mean and variance: its skewness
# is below 0.003 there, while counts overflow int32 at 2e9 and JAX's float32 sampler is off long before (at 9e5 its
# variance is 4 % too small).
GAUSSIAN_LIMIT = 1e5

# Correlation lengths of the image in the variogram, pixels; the shortest is that of a sharp picture.
LENGTHS = (1.2, 2.2, 4.0, 10.0)


@pytree_dataclass
class Noise:
    """`gain` (grey value of one electron, 1 / dose) and `read_sigma` (standard deviation of the read-out).

    The dose is the expected number of electrons a pixel at grey value 1.
    Raises ValueError for a level below zero or not finite, TypeError for one that is no real number.
    """

    gain: Any = leaf("_scalar", default=0.0)
    read_sigma: Any = leaf("_scalar", default=0.0)

    def __post_init__(self) -> None:
        assign(self, gain=as_float(self.gain), read_sigma=as_float(self.read_sigma))
        check_levels(self)

    @property
    def _scalar(self) -> int:
        return 0

    @staticmethod
    def from_dose(dose: Any, read_sigma: Any = 0.0) -> "Noise":
        """The noise of `dose` expected electrons a pixel at grey value 1; infinite for no counting noise.

        Raises ValueError for a dose that is not above zero.
        """
        dose = jnp.asarray(dose, float)
        if not isinstance(dose, jax.core.Tracer) and not bool(np.all(np.asarray(dose) > 0)):
            raise ValueError(
                f"the dose is the expected number of electrons a pixel at grey value 1, above 0, got {dose}"
            )
        return Noise(1 / dose, read_sigma)

    def variance(self, mean: Array) -> Array:
        """`gain mean + read_sigma^2`, never below zero. Levels with batch axes go with the leading axes of `mean`."""
        mean = jnp.asarray(mean)
        gain, sigma = (v.reshape(*v.shape, *[1] * max(0, mean.ndim - v.ndim)) for v in (self.gain, self.read_sigma))
        return jnp.maximum(gain * mean, 0) + sigma**2


def check_levels(noise: Noise) -> None:
    """ValueError for levels below zero or not finite, TypeError for complex ones; traced ones are taken as they are."""
    for name in ("gain", "read_sigma"):
        value = getattr(noise, name)
        if jnp.iscomplexobj(value):
            raise TypeError(f"the {name} of a noise is a real number, got {value.dtype}")
        if not isinstance(value, jax.core.Tracer):
            wrong = np.extract(~(np.isfinite(value) & (np.asarray(value) >= 0)), value)
            if wrong.size:
                raise ValueError(f"the {name} of a noise is finite and 0 or above, in grey values, got {wrong[0]:g}")


def _estimated(gain: Any, read_sigma: Any) -> Noise:
    """A noise that may be NaN, for a scan that does not tell: without the checks of the constructor."""
    levels = (as_float(gain), as_float(read_sigma))
    found: Noise = jax.tree.unflatten(jax.tree.structure(Noise()), levels)
    return found


def measure(key: Array, x: Array, A: LinearOperator, noise: Noise | None = None) -> Array:
    """The noisy measurements of images `x`, shape `(*batch, *in_shape)`; zero where nothing is measured.

    Counting (Gaussian above `GAUSSIAN_LIMIT` electrons) comes first, then soft weights, which scale the recorded value,
    then the read-out. Complex measurements count nothing and take complex read-out noise, `E |n|^2 = read_sigma^2`.
    Levels may have batch axes. Pure in `key`.
    Raises ValueError for counting noise on complex measurements (under `jit`: they become NaN).
    """
    y = A(x)
    if noise is None:
        return y
    counting, reading = jax.random.split(key)
    core = [1] * len(A.out_shape)
    gain, sigma = (v.reshape(*v.shape, *core) for v in (noise.gain, noise.read_sigma))
    shape = jnp.broadcast_shapes(y.shape, gain.shape, sigma.shape)
    dtype = y.real.dtype
    read_out = sigma.astype(dtype) * jax.random.normal(reading, shape, y.dtype)
    if jnp.iscomplexobj(y):
        if not isinstance(gain, jax.core.Tracer) and bool(jnp.any(gain > 0)):
            raise ValueError("electrons are counted as real numbers; complex measurements take read_sigma only")
        return A.measured(jnp.where(gain > 0, jnp.nan, y) + read_out)
    # One electron of a pixel that is recorded with the weight w counts for w * gain.
    one = gain.astype(dtype) * (jnp.abs(A.mask) if isinstance(A, PixelSampling) else 1)
    one = jnp.broadcast_to(one, shape)
    rate = jnp.maximum(y, 0) / jnp.where(one > 0, one, 1)
    few = jax.random.poisson(counting, jnp.minimum(rate, GAUSSIAN_LIMIT), dtype=jnp.int32).astype(dtype)
    spread = jnp.sqrt(jnp.maximum(rate, GAUSSIAN_LIMIT))
    many = rate + spread * jax.random.normal(jax.random.fold_in(counting, 1), shape, dtype)
    counted = jnp.where(rate > GAUSSIAN_LIMIT, many, few)
    return A.measured(jnp.where(one > 0, counted * one, y) + read_out)


def estimate_noise(y: Array, mask: Array, *, lags: int = 6) -> Noise:
    """The noise of one sparse or full scan `(h, w)` from its variogram, as read-out noise of the same mean variance.

    Half the mean squared difference of measured pixels at distance h, extrapolated to distance zero, is the noise
    ("nugget", Cressie 1993). The image's own share starts like h^2, as every picture is blurred by its beam, and
    flattens: it is fitted by a sum of `c_k (1 - exp(-h^2 / 2 s_k^2))`, `c_k >= 0`, over a few correlation lengths.
    A single power of h in place of the sum misses half of the noise on pictures with sharp edges.

    Works from a few thousand samples; needs pairs closer than `lags` pixels. What the image holds below about a pixel
    counts as noise. Pure; NaN is returned where there are no two measured pixels that close. Raises ValueError for
    arrays that are not one image.
    """
    if jnp.ndim(y) != 2 or jnp.shape(y) != jnp.shape(mask):
        raise ValueError(
            f"the noise is estimated from one scan (h, w) and its mask, got shapes {jnp.shape(y)} and "
            f"{jnp.shape(mask)}; for a batch use jax.vmap"
        )
    y = as_float(y)
    seen = jnp.asarray(mask) != 0
    m = seen.astype(y.dtype)
    # Off the mask anything may stand, NaN included. The centre keeps the differences of large grey values exact.
    centre = jnp.sum(jnp.where(seen, y, 0)) / jnp.maximum(jnp.sum(m), 1)
    v = jnp.where(seen, y - centre, 0)
    nugget, _, pairs = _nugget(v, m, m, lags)
    sigma = jnp.where(nugget > 0, jnp.sqrt(jnp.where(nugget > 0, nugget, 1)), 0)  # the root has no derivative at zero
    return _estimated(0.0, jnp.where(pairs > 0, sigma, jnp.nan))


def estimate_poisson_gaussian(y: Array, mask: Array, *, levels: int = 8, lags: int = 6) -> Noise:
    """Gain and read-out noise of one sparse or full scan `(h, w)`, from its noise at different grey levels.

    Measured pixels are sorted by the mean of their neighbours (themselves left out, or high draws would be taken for
    bright pixels) into `levels` classes of equal size; each class has its own noise, the nugget of the variogram of
    pairs that begin in it (see `estimate_noise`), and its own mean grey value g. Then

        argmin_{gain, s >= 0} sum_k w_k (gain g_k + s - var_k)^2,    read_sigma = sqrt(s),

    with the number of pairs over the square of the variogram at short distances for weights (its own variance; large
    where edges are), and less for classes far off the line (Huber), as texture finer than the beam makes them. Source:
    Foi et al. 2008 ("Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data"), with
    variograms in place of wavelets so that sparse scans will do.

    Grey values must start at the true black: an offset is taken for read-out noise, or hidden in it. Works from some
    ten thousand samples; on a picture of few grey levels the two are hard to tell apart, while the variance at the
    mean stays sound. Pure; NaN is returned where there are no two measured pixels closer than `lags`. Raises
    ValueError for arrays that are not one image.
    """
    if jnp.ndim(y) != 2 or jnp.shape(y) != jnp.shape(mask):
        raise ValueError(
            f"the noise is estimated from one scan (h, w) and its mask, got shapes {jnp.shape(y)} and "
            f"{jnp.shape(mask)}; for a batch use jax.vmap"
        )
    y = as_float(y)
    seen = jnp.asarray(mask) != 0
    m = seen.astype(y.dtype)
    count = jnp.sum(m)
    centre = jnp.sum(jnp.where(seen, y, 0)) / jnp.maximum(count, 1)
    v = jnp.where(seen, y - centre, 0)
    # Classes by rank, so that each has its share of pixels; unmeasured ones come last and belong to none.
    order = jnp.argsort(jnp.where(seen, _neighbours(v, m), jnp.inf).ravel())
    rank = jnp.zeros(m.size, jnp.int32).at[order].set(jnp.arange(m.size, dtype=jnp.int32)).reshape(m.shape)
    level = jnp.where(seen, (rank * levels / jnp.maximum(count, 1)).astype(jnp.int32), -1)

    def one(k: Array) -> tuple[Array, ...]:
        own = (level == k).astype(y.dtype)
        return jnp.sum(own * v) / jnp.maximum(jnp.sum(own), 1), *_nugget(v, m, own, lags)

    grey, variance, nearest, pairs = lax.map(one, jnp.arange(levels))
    scale = jnp.sum(pairs * variance) / jnp.maximum(jnp.sum(pairs), 1)
    scale = jnp.where(scale > 0, scale, 1)
    top = jnp.max(jnp.abs(grey + centre))
    top = jnp.where(top > 0, top, 1)
    columns = jnp.stack([(grey + centre) / top, jnp.ones_like(grey)], 1)
    values = variance / scale
    # A nugget is as sure as the variogram next to it is low: a class of edges says little.
    sure = pairs / jnp.square(jnp.maximum(nearest / scale, 1e-4))

    def refit(_: int, c: Array) -> Array:
        fitted = jnp.maximum(jnp.matmul(columns, c, precision="highest"), 0.05)
        off = jnp.abs(values / fitted - 1)
        typical = jnp.maximum(1.5 * jnp.median(off), 0.02)
        weights = sure * jnp.minimum(1, typical / jnp.maximum(off, 1e-6))
        return _non_negative(columns, values, weights / jnp.maximum(jnp.sum(weights), 1e-30))

    gain, square = lax.fori_loop(0, 10, refit, jnp.asarray([0.0, 1.0], y.dtype)) * scale
    enough = jnp.sum(pairs) > 0
    return _estimated(jnp.where(enough, gain / top, jnp.nan), jnp.where(enough, jnp.sqrt(square), jnp.nan))


def _neighbours(v: Array, m: Array) -> Array:
    """The mean of the measured pixels around each, itself left out: a Gaussian as wide as their spacing."""
    width = jnp.maximum(1.0, jnp.sqrt(m.size / jnp.maximum(jnp.sum(m), 1)))
    rows, columns = (jnp.exp(-0.5 * jnp.square((jnp.arange(n)[:, None] - jnp.arange(n)) / width)) for n in m.shape)

    def around(x: Array) -> Array:
        return jnp.matmul(jnp.matmul(rows.astype(x.dtype), x), columns.astype(x.dtype)) - x

    return around(v) / jnp.maximum(around(m), 1e-6)


def _nugget(v: Array, m: Array, first: Array, lags: int) -> tuple[Array, Array, Array]:
    """The variogram at distance zero, next to it, and its number of pairs: of pixels `m` from those in `first` on."""
    offsets = [(i, j) for i in range(lags + 1) for j in range(-lags, lags + 1) if (i, j) > (0, 0)]
    offsets = [(i, j) for i, j in offsets if i * i + j * j <= lags * lags]
    around = ((0, lags), (lags, lags))
    far_m, far_v = jnp.pad(m, around), jnp.pad(v, around)

    # A loop, not one fused program for all offsets: that takes seconds to compile.
    def pairs(offset: Array) -> tuple[Array, Array]:
        place = (offset[0], lags + offset[1])
        weight = first * lax.dynamic_slice(far_m, place, m.shape)
        return jnp.sum(weight), 0.5 * jnp.sum(weight * (v - lax.dynamic_slice(far_v, place, v.shape)) ** 2)

    n, squares = lax.map(pairs, jnp.asarray(offsets, jnp.int32))
    gamma = squares / jnp.maximum(n, 1)
    scale = jnp.sum(n * gamma) / jnp.maximum(jnp.sum(n), 1)
    gamma = gamma / jnp.where(scale > 0, scale, 1)
    h = np.hypot(*np.asarray(offsets, float).T)[:, None]
    columns = np.concatenate([np.ones_like(h), 1 - np.exp(-0.5 * (h / np.asarray(LENGTHS)) ** 2)], 1)
    # The variance of a mean of squares is about its own square over the number of pairs.
    weights = n / jnp.maximum(gamma, 1e-4) ** 2
    nugget = _non_negative(jnp.asarray(columns, v.dtype), gamma, weights / jnp.maximum(jnp.sum(weights), 1))[0]
    near = n * jnp.asarray(np.exp(-0.5 * h[:, 0] ** 2), v.dtype)
    return nugget * scale, scale * jnp.sum(near * gamma) / jnp.maximum(jnp.sum(near), 1e-6), jnp.sum(n)


def _non_negative(columns: Array, values: Array, weights: Array) -> Array:
    """`argmin_{c >= 0} sum_i w_i (columns c - values)_i^2` for few columns: the best of all sets of positive ones."""
    k = columns.shape[1]
    gram = jnp.matmul((columns * weights[:, None]).T, columns, precision="highest")
    right = jnp.matmul((columns * weights[:, None]).T, values, precision="highest")
    chosen = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=k)), columns.dtype)
    # Neighbouring lengths look alike at short distances: a trace of ridge keeps float32 from dividing by rounding.
    ridge = 1e-5 * jnp.max(jnp.diagonal(gram)) + jnp.finfo(columns.dtype).tiny

    def fit(s: Array) -> tuple[Array, Array]:
        system = s[:, None] * gram * s + jnp.diag(jnp.where(s > 0, ridge, 1))
        c = _solve(system, s * right)
        error = jnp.sum(weights * (jnp.matmul(columns, c, precision="highest") - values) ** 2)
        return c, jnp.where(jnp.all(c >= 0), error, jnp.inf)

    fits, errors = jax.vmap(fit)(chosen)
    return fits[jnp.argmin(errors)]


def _solve(matrix: Array, right: Array) -> Array:
    """The solution of a small positive definite system by elimination; LAPACK takes longer to load than this to run."""
    k = len(right)
    rows = jnp.concatenate([matrix, right[:, None]], 1)
    for j in range(k):
        pivot = rows[j] / rows[j, j]
        rows = (rows - rows[:, j : j + 1] * pivot).at[j].set(pivot)
    return rows[:, k]
