"""Down-sampling against the published definition, pixel by pixel, and against plain means."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from operator_registry import enable_x64, quick_jit

from emjax import operators as ops


def cubic(t: float) -> float:
    """Keys' kernel with a = -1/2."""
    a, t = -0.5, abs(t)
    if t < 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def lanczos(t: float) -> float:
    if abs(t) >= 3:
        return 0.0
    return 1.0 if t == 0 else 3 * math.sin(math.pi * t) * math.sin(math.pi * t / 3) / (math.pi * t) ** 2


def line(x: list[float], scale: float, kernel: Callable[[float], float], width: int) -> list[float]:
    """One line as `imresize` does it: positions from 1, kernel `scale k(scale t)`, indices by the symmetric rule."""
    n, out = len(x), []
    aux = [*range(1, n + 1), *range(n, 0, -1)]
    for place in range(1, math.ceil(n * scale - 1e-9) + 1):
        u = place / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - width / scale / 2)
        total = weight = 0.0
        for index in range(left, left + math.ceil(width / scale) + 2):
            w = scale * kernel(scale * (u - index))
            total += w * x[aux[(index - 1) % (2 * n)] - 1]
            weight += w
        out.append(total / weight)
    return out


SIZES = [((12, 9), 2), ((7, 16), 3), ((10, 10), 1.5), ((5, 3), 4), ((1, 9), 2.5), ((8, 5), (4, 1)), ((4, 6, 5), 2)]


@pytest.mark.parametrize(("kernel", "width"), [("bicubic", 4), ("lanczos3", 6)])
@pytest.mark.parametrize(("shape", "factor"), SIZES)
def test_agrees_with_the_loop_over_pixels(
    shape: tuple[int, ...], factor: float | tuple, kernel: str, width: int
) -> None:
    want = x = np.random.default_rng(0).random(shape)
    factors = factor if isinstance(factor, tuple) else (factor,) * len(shape)
    for axis, f in enumerate(factors):
        weights = {"bicubic": cubic, "lanczos3": lanczos}[kernel]
        want = np.apply_along_axis(lambda v, f=f, k=weights: np.asarray(line(list(v), 1 / f, k, width)), axis, want)
    with enable_x64():
        got = quick_jit(ops.Downsampling(shape, factor, kernel))(x)
    np.testing.assert_allclose(got, want, atol=1e-12)
    np.testing.assert_allclose(ops.Downsampling(shape, factor, kernel)(x.astype(np.float32)), want, atol=1e-6)


def test_bicubic_weights() -> None:
    # Half size: the kernel at odd multiples of 1/4, halved; the outer taps are mirrored at the edge.
    taps = np.asarray([-0.0234375, -0.0703125, 0.2265625, 0.8671875])
    taps = np.concatenate([taps, taps[::-1]]) / 2
    (matrix,) = ops.Downsampling((16,), 2).matrices()
    np.testing.assert_allclose(matrix[3, 3:11], taps[[0, 1, 2, 3, 4, 5, 6, 7]], atol=1e-16)
    np.testing.assert_allclose(matrix[0, :5], [taps[3] + taps[2], taps[4] + taps[1], taps[5] + taps[0], *taps[6:]])
    assert np.count_nonzero(matrix[3]) == 8


def test_area_is_a_mean() -> None:
    x = np.random.default_rng(0).random((6, 12, 4))
    with enable_x64():
        got = ops.Downsampling(x.shape, (3, 4, 2), "area")(x)
        np.testing.assert_allclose(got, x.reshape(2, 3, 3, 4, 2, 2).mean((1, 3, 5)), atol=1e-14)
        # Pixels are shared out where they lie across: 3 to 2, by way of sixths.
        y = ops.Downsampling.to_shape((3, 5), (2, 2), "area")(x[:3, :5, 0])
        np.testing.assert_allclose(y, np.repeat(np.repeat(x[:3, :5, 0], 2, 0), 2, 1).reshape(2, 3, 2, 5).mean((1, 3)))


@pytest.mark.parametrize("kernel", ["bicubic", "lanczos3", "area"])
def test_output_sizes_and_constants(kernel: str) -> None:
    for shape, out in (((7, 9), (3, 4)), ((10, 3), (7, 3)), ((100, 51), (33, 50))):
        op = ops.Downsampling.to_shape(shape, out, kernel)
        assert op.out_shape == out
        np.testing.assert_allclose(op(np.ones(shape, np.float32)), 1, rtol=2e-6)
    same = np.random.default_rng(0).random((5, 4)).astype(np.float32)
    np.testing.assert_array_equal(ops.Downsampling((5, 4), 1, kernel)(same), same)
    assert ops.Downsampling((7, 9), 2, kernel).out_shape == (4, 5)
