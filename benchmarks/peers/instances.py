"""The instances that all packages solve, as arrays in a file, and the one evaluator of what they return (float64).

    inpainting   1/2 |mask (x - y)|^2 + lam TV(x)             forward differences, Neumann boundaries
    rof          1/2 |x - y|^2 + lam TV(x)                    isotropic, or anisotropic
    wavelet      1/2 |mask T x - y|^2 + lam |W x|_1           T orthonormal DCT or DFT, W periodic wavelets, all bands
    blocks       sum over blocks 1/2 |Phi b - y_b|^2 + lam |DCT b|_1

NumPy and SciPy only: every package's environment has them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.fft

Images = np.ndarray


@dataclass(frozen=True)
class Instance:
    """One problem for a batch of images. `y` and `truth` have the batch's axis in front; `blocks` has one item."""

    kind: str
    lam: float
    y: np.ndarray
    truth: Images
    mask: np.ndarray | None = None
    matrix: np.ndarray | None = None  # Phi, of one block
    scaling: np.ndarray | None = None  # the scaling filter of the wavelet
    levels: int = 0
    isotropic: bool = True
    fourier: bool = False
    optimum: np.ndarray | None = None  # of each item, once it is known
    optimal_psnr: np.ndarray | None = None
    solution: np.ndarray | None = None  # the optimum itself, float32

    @property
    def side(self) -> int:
        return int(self.truth.shape[-1])

    @property
    def block(self) -> int:
        """The side of a block."""
        assert self.matrix is not None
        return round(self.matrix.shape[1] ** 0.5)

    def objective(self, x: Images) -> np.ndarray:
        """The objective of each item, in float64."""
        x = np.asarray(x, np.float64)
        return np.array([self._one(image, y) for image, y in zip(x, self.y, strict=True)])

    def _one(self, x: np.ndarray, y: np.ndarray) -> float:
        if self.kind in ("inpainting", "rof"):
            residual = x - y if self.mask is None else self.mask * (x - y)
            value = self.lam * total_variation(x, self.isotropic)
        elif self.kind == "wavelet":
            residual = self.mask * transform(x, self.fourier) - y
            value = self.lam * np.abs(Wavelet(self.scaling, self.side, self.levels).forward(x)).sum()
        else:
            b = cut(x, self.block)
            residual = b.reshape(len(b), -1) @ np.asarray(self.matrix, np.float64).T - y
            value = self.lam * np.abs(scipy.fft.dctn(b, axes=(1, 2), norm="ortho")).sum()
        return float(0.5 * np.sum(np.abs(residual) ** 2) + value)

    def gaps(self, x: Images) -> np.ndarray:
        """`(P(x) - P*) / P*` of each item."""
        assert self.optimum is not None
        return self.objective(x) / self.optimum - 1

    def psnr(self, x: Images) -> np.ndarray:
        """Peak signal-to-noise ratio of each item, range 1, clipped, dB."""
        error = np.clip(np.asarray(x, np.float64), 0, 1) - self.truth
        return -10 * np.log10(np.mean(error**2, axis=(1, 2)))

    def item(self, i: int) -> "Instance":
        """The instance of one item alone."""
        fields = {**vars(self), "y": self.y[i : i + 1], "truth": self.truth[i : i + 1]}
        for name in ("optimum", "optimal_psnr", "solution"):
            fields[name] = None if fields[name] is None else fields[name][i : i + 1]
        return Instance(**fields)


def save(instance: Instance, path: Path) -> None:
    """Write through a temporary name."""
    part = path.with_name(path.stem + ".part.npz")
    np.savez(part, **{name: value for name, value in vars(instance).items() if value is not None})
    part.replace(path)


def load(path: Path) -> Instance:
    with np.load(path) as file:
        return Instance(**{name: v[()] if v.ndim == 0 else v for name, v in file.items()})


def total_variation(x: np.ndarray, isotropic: bool) -> float:
    rows, columns = np.diff(x, axis=0), np.diff(x, axis=1)
    if not isotropic:
        return float(np.abs(rows).sum() + np.abs(columns).sum())
    return float(np.sqrt(np.pad(rows, ((0, 1), (0, 0))) ** 2 + np.pad(columns, ((0, 0), (0, 1))) ** 2).sum())


def gradient(x: np.ndarray) -> np.ndarray:
    """Forward differences along rows and columns, zero at the far edges; `(2, h, w)`."""
    d = np.zeros((2, *x.shape), x.dtype)
    np.subtract(x[1:], x[:-1], out=d[0, :-1])
    np.subtract(x[:, 1:], x[:, :-1], out=d[1, :, :-1])
    return d


def gradient_adjoint(p: np.ndarray) -> np.ndarray:
    """The adjoint of `gradient`: minus the divergence."""
    x = np.zeros(p.shape[1:], p.dtype)
    x[:-1] -= p[0, :-1]
    x[1:] += p[0, :-1]
    x[:, :-1] -= p[1, :, :-1]
    x[:, 1:] += p[1, :, :-1]
    return x


def transform(x: np.ndarray, fourier: bool) -> np.ndarray:
    """Of the last two axes."""
    if fourier:
        return scipy.fft.fftn(x, axes=(-2, -1), norm="ortho")
    return scipy.fft.dctn(x, axes=(-2, -1), norm="ortho")


def inverse_transform(y: np.ndarray, fourier: bool) -> np.ndarray:
    if fourier:
        return scipy.fft.ifftn(y, axes=(-2, -1), norm="ortho").real
    return scipy.fft.idctn(y, axes=(-2, -1), norm="ortho")


def cut(x: np.ndarray, side: int) -> np.ndarray:
    """The blocks of an image, `(blocks, side, side)`, row-major."""
    n = x.shape[0] // side
    return x.reshape(n, side, n, side).swapaxes(1, 2).reshape(n * n, side, side)


def paste(blocks: np.ndarray, count: int) -> np.ndarray:
    """The image of `count` blocks a side."""
    side = blocks.shape[-1]
    return blocks.reshape(count, count, side, side).swapaxes(1, 2).reshape(count * side, count * side)


def dct_matrix(n: int, dtype: object = np.float64) -> np.ndarray:
    return np.ascontiguousarray(scipy.fft.dct(np.eye(n), axis=0, norm="ortho"), dtype)


def features(matrix: np.ndarray, dtype: object = np.float32) -> np.ndarray:
    """`Phi D.T`, the matrix of a block's DCT coefficients: what is multiplied out once costs no transform later."""
    side = round(matrix.shape[1] ** 0.5)
    D = dct_matrix(side)
    product = D @ np.asarray(matrix, np.float64).reshape(-1, side, side) @ D.T
    return np.ascontiguousarray(product.reshape(matrix.shape), dtype)


class Wavelet:
    """The periodic orthogonal wavelet transform of square images, Mallat layout, a level a matrix product.

    Line by line, level by level: `lo[k] = sum_j h[j] x[2k + j - o]`, `o = len(h) / 2 - 1`, the mode "periodization" of
    PyWavelets. As products of matrices it is as fast as any of the packages' own transforms on these sizes.
    """

    def __init__(self, scaling: np.ndarray, side: int, levels: int, dtype: object = np.float64) -> None:
        h = np.asarray(scaling, np.float64)
        g = h[::-1] * (-1.0) ** np.arange(len(h))
        self.matrices = []
        for n in (side >> level for level in range(levels)):
            rows, taps = np.arange(n // 2)[:, None], np.arange(len(h))[None]
            columns = (2 * rows + taps - (len(h) // 2 - 1)) % n
            matrix = np.zeros((n, n))
            np.add.at(matrix, (rows, columns), h)
            np.add.at(matrix, (rows + n // 2, columns), g)
            self.matrices.append(matrix.astype(dtype))

    def forward(self, x: np.ndarray) -> np.ndarray:
        out = x.copy()
        for m in self.matrices:
            n = len(m)
            out[:n, :n] = m @ out[:n, :n] @ m.T
        return out

    def adjoint(self, c: np.ndarray) -> np.ndarray:
        out = c.copy()
        for m in reversed(self.matrices):
            n = len(m)
            out[:n, :n] = m.T @ out[:n, :n] @ m
        return out


def shrink(v: np.ndarray, threshold: float) -> np.ndarray:
    return np.sign(v) * np.maximum(np.abs(v) - threshold, 0)
