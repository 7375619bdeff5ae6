"""The scan network once more, in NumPy and SciPy, float64: on images where the network works on blocks of pixels."""

from typing import Any

import numpy as np
from numpy_networks import Matrix, Weights, layer, relu
from scipy.fft import dctn, idctn
from scipy.signal import correlate2d

from emjax.networks.field import CORNER, EXPONENT, FINEST, HALO, TILE
from emjax.networks.scan import CONFIDENT, FAINT, PRIOR, WIDTHS


def unshuffle(x: np.ndarray, p: int) -> np.ndarray:
    """`(h, w, c)` to `(h / p, w / p, p p c)`."""
    return np.concatenate([x[i::p, j::p] for i in range(p) for j in range(p)], -1)


def shuffle(x: np.ndarray, p: int) -> np.ndarray:
    c = x.shape[-1] // p**2
    out = np.zeros((x.shape[0] * p, x.shape[1] * p, c))
    for k in range(p**2):
        out[k // p :: p, k % p :: p] = x[..., k * c : (k + 1) * c]
    return out


def sums(x: np.ndarray, p: int) -> np.ndarray:
    """Over blocks of p x p pixels."""
    return unshuffle(x[..., None], p).sum(-1)


def blend(top: np.ndarray, bottom: np.ndarray, wider: Any) -> np.ndarray:
    return (top + PRIOR * wider) / (bottom + PRIOR)


def surroundings(cz: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Means around each pixel, of blocks of 16 x 16 and then of 4 x 4 pixels and their neighbours."""
    side = np.exp(-0.5 / 0.8**2)
    kernel = np.outer([side, 1, side], [side, 1, side])
    e: Any = 0.0
    for block in (16, 4):
        top, bottom = (correlate2d(sums(v, block), kernel, "same") for v in (cz, c))
        e = blend(top, bottom, e)
        e = np.kron(e, np.ones((4, 4)))
    return e


def normalised(cz: np.ndarray, c: np.ndarray) -> np.ndarray:
    e = surroundings(cz, c)
    d = np.arange(-4, 5)
    for s in reversed(WIDTHS):
        kernel = np.exp(-(d[:, None] ** 2 + d**2) / (2 * s**2))
        e = blend(correlate2d(cz, kernel, "same"), correlate2d(c, kernel, "same"), e)
    return e


def field(z: np.ndarray, precision: np.ndarray, first: np.ndarray, steps: int) -> np.ndarray:
    """Conjugate gradients in tiles, each with zeros beyond the image."""
    weight = precision / (1 + FINEST * precision)
    n = TILE + 2 * HALO
    f = np.arange(n) / (2 * n)
    power = (f[:, None] ** 2 + f**2 + CORNER**2) ** (-EXPONENT / 2)
    prior = power.mean() / power
    out = np.zeros_like(z)
    padded = [np.pad(v, HALO) for v in (z, weight, first)]
    for i in range(0, z.shape[0], TILE):
        for j in range(0, z.shape[1], TILE):
            v, w, e = (a[i : i + n, j : j + n] for a in padded)
            scale = 1 / (prior + max(w.mean(), 1e-6))

            def system(c: np.ndarray, w: np.ndarray = w) -> np.ndarray:
                return prior * c + dctn(w * idctn(c, norm="ortho"), norm="ortho")

            c = dctn(e, norm="ortho")
            residual = dctn(w * v, norm="ortho") - system(c)
            direction = scale * residual
            energy = np.sum(residual * direction)
            for _ in range(steps):
                image = system(direction)
                length = energy / np.sum(direction * image)
                c, residual = c + length * direction, residual - length * image
                moved = scale * residual
                direction = moved + np.sum(residual * moved) / energy * direction
                energy = np.sum(residual * moved)
            out[i : i + TILE, j : j + TILE] = idctn(c, norm="ortho")[HALO:-HALO, HALO:-HALO]
    return out


def unet(weights: Weights, settings: dict[str, Any], x: np.ndarray, bias: Any) -> np.ndarray:
    def blocks(name: str, count: int, x: np.ndarray) -> np.ndarray:
        for b in range(count):
            h = x
            for i in range(settings["depth"]):
                h = layer(weights, f"body/{name}/{b}/convs/{i}", relu(h))
            x = x + h
        return x

    x, skips, last = layer(weights, "body/head", x) + bias, [], len(settings["widths"]) - 1
    for level, count in enumerate(settings["encoder"]):
        x = blocks(f"down_blocks/{level}", count, x)
        if level < last:
            skips.append(x)
            x = layer(weights, f"body/downs/{level}", x, stride=2)
    for level in reversed(range(last)):
        x = skips[level] + shuffle(layer(weights, f"body/ups/{level}", x), 2)
        x = blocks(f"up_blocks/{level}", settings["decoder"][level], x)
    return layer(weights, "body/tail", relu(x))


def scan(weights: Weights, settings: dict[str, Any], y: np.ndarray, op: Matrix, noise: Any) -> np.ndarray:
    assert op.mask is not None
    gain, read = (0.0, 0.0) if noise is None else (float(noise.gain), float(noise.read_sigma))
    p, steps = settings["unshuffle"], settings["field_steps"]
    multiple = np.lcm.reduce([p * 2 ** (len(settings["widths"]) - 1), 16, TILE if steps else 1])
    pad = [(0, -n % multiple) for n in y.shape]
    y, w = (np.pad(v, pad) for v in (y, op.mask))
    w = np.where(w > FAINT, w, 0)
    seen = w > 0
    z = y[seen] / w[seen]

    def moments(trust: np.ndarray) -> tuple[float, float]:
        level = np.average(z, weights=trust)
        own = read**2 * np.average(1 / w[seen] ** 2, weights=trust) + gain * max(level, 0)
        spread = np.average((z - level) ** 2, weights=trust)
        return level, np.sqrt(max(spread - own, 0.01 * spread) + 1e-5 * (level**2 + 1e-8))

    squares = w[seen] ** 2
    trust = np.ones_like(z) if noise is None else squares / (squares + (read / moments(squares)[1]) ** 2)
    level, contrast = moments(trust)
    z, y = np.zeros_like(y), y / contrast
    z[seen] = y[seen] / w[seen] - level / contrast
    around = level + contrast * surroundings(z, seen.astype(float))
    variance = (read**2 + gain * w**2 * np.maximum(around, 0)) / contrast**2
    c = np.divide(CONFIDENT * w**2, CONFIDENT * w**2 + variance, out=np.zeros_like(w), where=seen)
    x = normalised(c * z, c)
    if steps:
        x = field(z, w**2 / np.maximum(variance, 1e-6), x, steps)
    for stage in range(settings["stages"]):
        features = np.concatenate([unshuffle(v[..., None], p) for v in (x, c * (z - x), c)], -1)
        bias = weights["stage_bias"][stage] if settings["stages"] > 1 else 0.0
        x = x + shuffle(unet(weights, settings, features, bias), p)[..., 0]
        error = np.exp(weights["log_error"][stage])
        gain_of_scan = np.divide(w**2 * error, w**2 * error + variance, out=np.zeros_like(w), where=seen)
        x = x + gain_of_scan * (z - x)
    return (level + contrast * x)[: op.in_shape[0], : op.in_shape[1]]
