"""Every network once more, in NumPy and SciPy, float64: from its docstring, with matrices for the operators.

    reference(weights, settings, y, op, noise) -> x

for one item; `weights` are the parameters by their paths ("layers/0/kernel"), `op` the operator as a matrix.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy.fft import idctn
from scipy.signal import correlate2d

Weights = dict[str, np.ndarray]


@dataclasses.dataclass
class Matrix:
    """An operator: its matrix for items read row-major, the bound of its norm, and what it is made of."""

    matrix: np.ndarray
    bound: float
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    block: np.ndarray | None = None  # of a block-wise operator, its matrix and the block's shape
    block_shape: tuple[int, ...] = ()
    mask: np.ndarray | None = None

    def forward(self, x: np.ndarray) -> np.ndarray:
        return (self.matrix @ x.ravel()).reshape(self.out_shape)

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """Of real images."""
        return np.real(self.matrix.conj().T @ y.ravel()).reshape(self.in_shape)


def convolve(x: np.ndarray, kernel: np.ndarray, bias: Any = 0.0, stride: int = 1) -> np.ndarray:
    """Images (h, w, in) by kernels (a, b, in, out): as large as they were, or every `stride`-th without padding."""
    mode = "same" if stride == 1 else "valid"
    planes = [
        sum(correlate2d(x[..., i], kernel[:, :, i, o], mode) for i in range(x.shape[-1]))
        for o in range(kernel.shape[-1])
    ]
    return np.stack(planes, -1)[::stride, ::stride] + bias


def layer(weights: Weights, name: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
    return convolve(x, weights[f"{name}/kernel"], weights.get(f"{name}/bias", 0.0), stride)


def relu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0)


def soft(x: np.ndarray, threshold: Any) -> np.ndarray:
    return np.sign(x) * np.maximum(np.abs(x) - np.abs(threshold), 0)


# Starts.


def backprojection(y: np.ndarray, op: Matrix) -> np.ndarray:
    x = op.adjoint(y)
    again = op.forward(x).ravel()
    return x * np.real(np.vdot(again, y.ravel())) / np.real(np.vdot(again, again))


def ragged(op: Matrix) -> Any:
    """Each block: its place in the grid, its pixels in the image, and 1 for each of its pixels that is one."""
    (a, b), (h, w) = op.block_shape, op.in_shape
    for k, m in np.ndindex(*op.out_shape[:2]):
        i, j = np.indices((a, b))
        inside = (k * a + i < h) & (m * b + j < w)
        yield (k, m), (slice(k * a, min(h, (k + 1) * a)), slice(m * b, min(w, (m + 1) * b))), inside.ravel()


def ridge(inside: np.ndarray) -> float:
    return 1e-6 if inside.all() else 1e-5


def gaussian(field: Any, y: np.ndarray, op: Matrix, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Block by block, `mean + R A.T (A R A.T + sigma^2 I)^-1 (y - A mean)`, and the deviation of its error.

    Pixels beyond the image are zero, and known.
    """
    assert op.block is not None
    mean, white, level, *variances = field
    i, j = (v.ravel() for v in np.indices(op.block_shape))
    r = np.hypot(i[:, None] - i, j[:, None] - j)
    covariance = level + white * (r == 0)
    for v, length in zip(variances, (2, 4, 8), strict=True):
        covariance = covariance + v * (1 + r / length) * np.exp(-r / length)
    x, deviation = np.zeros(op.in_shape), np.zeros(op.in_shape)
    for place, pixels, inside in ragged(op):
        phi, own = op.block[:, inside], covariance[np.ix_(inside, inside)]
        system = phi @ own @ phi.T
        system += (sigma**2 + ridge(inside) * system.diagonal().max()) * np.eye(len(phi))
        gain = np.linalg.solve(system, phi @ own).T
        x[pixels] = (mean + gain @ (y[place] - mean * phi.sum(1))).reshape(x[pixels].shape)
        deviation[pixels] = np.sqrt((own - gain @ phi @ own).diagonal()).reshape(x[pixels].shape)
    return x, deviation


def unseen(v: np.ndarray, deviation: np.ndarray, op: Matrix, sigma: float) -> np.ndarray:
    """Block by block, `v - A.T (A A.T + sigma^2 / s^2 I)^-1 A v`, s^2 the mean square of the deviation."""
    assert op.block is not None
    out = v.copy()
    for _, pixels, inside in ragged(op):
        phi = op.block[:, inside]
        system = phi @ phi.T
        system += (sigma**2 / np.mean(deviation[pixels] ** 2) + ridge(inside) * system.diagonal().max()) * np.eye(
            len(phi)
        )
        out[pixels] -= (phi.T @ np.linalg.solve(system, phi @ v[pixels].ravel())).reshape(v[pixels].shape)
    return out


def start(settings: dict[str, Any], y: np.ndarray, op: Matrix, noise: Any) -> np.ndarray:
    if settings["start"] == "backprojection":
        return backprojection(y, op)
    return gaussian(settings["field"], y, op, 0.0 if noise is None else float(noise.read_sigma))[0]


# Networks.


def deep_inverse(weights: Weights, settings: dict[str, Any], y: np.ndarray, op: Matrix, noise: Any) -> np.ndarray:
    proxy, scale = start(settings, y, op, noise), 1.0
    if settings["posterior"]:
        sigma = float(noise.read_sigma)
        proxy, scale = gaussian(settings["field"], y, op, sigma)
    v = (proxy - settings["field"][0])[..., None]
    v = relu(layer(weights, "layers/0", v))
    v = relu(layer(weights, "layers/1", v))
    x = scale * layer(weights, "layers/2", v)[..., 0]
    if settings["posterior"]:
        return proxy + unseen(x, scale, op, sigma)
    return proxy + x if settings["skip"] else x


def ista(
    weights: Weights, settings: dict[str, Any], y: np.ndarray, op: Matrix, noise: Any, plus: bool
) -> tuple[np.ndarray, float]:
    """The image and the symmetry loss."""
    x, mean, symmetry = start(settings, y, op, noise), settings["field"][0], 0.0
    for k in range(settings["phases"]):
        name = f"layers/{k}"

        def transform(side: str, v: np.ndarray, name: str = name) -> np.ndarray:
            v = relu(layer(weights, f"{name}/transform/{side}/0", v))
            return layer(weights, f"{name}/transform/{side}/1", v)

        r = x - weights[f"{name}/step"] / op.bound**2 * op.adjoint(op.forward(x) - y)
        v = (r - mean)[..., None]
        if plus:
            v = layer(weights, f"{name}/into", v)
        coefficients = transform("forward", v)
        symmetry += np.mean((transform("backward", coefficients) - v) ** 2) / settings["phases"]
        v = transform("backward", soft(coefficients, weights[f"{name}/transform/threshold"]))
        x = r + layer(weights, f"{name}/out", v)[..., 0] if plus else mean + v[..., 0]
    return x, symmetry


def ista_net(weights: Weights, settings: dict[str, Any], y: np.ndarray, op: Matrix, noise: Any) -> np.ndarray:
    return ista(weights, settings, y, op, noise, plus=False)[0]


def ista_net_plus(weights: Weights, settings: dict[str, Any], y: np.ndarray, op: Matrix, noise: Any) -> np.ndarray:
    return ista(weights, settings, y, op, noise, plus=True)[0]


def lista(weights: Weights, settings: dict[str, Any], y: np.ndarray, op: Matrix, noise: Any) -> np.ndarray:
    last = weights["encoders"].shape[0] - 1  # one for all, or one a layer
    x = soft(weights["encoders"][0] @ y, weights["thresholds"][0])
    for k in range(1, settings["layers"]):
        own = min(k, last)
        mix = weights["mixes"][min(k - 1, len(weights["mixes"]) - 1)]
        x = soft(weights["encoders"][own] @ y + mix @ x, weights["thresholds"][own])
    return x


def learned_primal_dual(
    weights: Weights, settings: dict[str, Any], y: np.ndarray, op: Matrix, noise: Any
) -> np.ndarray:
    memory, mean = settings["memory"], settings["field"][0]
    x = np.repeat((start(settings, y, op, noise) - mean)[..., None], memory, -1)
    u = np.zeros((*op.out_shape, memory))
    data = (y - op.forward(np.full(op.in_shape, mean))) / op.bound

    def update(name: str, v: np.ndarray) -> np.ndarray:
        for i, slope in enumerate(weights[f"{name}/slopes"]):
            v = layer(weights, f"{name}/layers/{i}", v)
            v = np.where(v > 0, v, slope * v)
        return layer(weights, f"{name}/layers/2", v)

    for k in range(settings["iterations"]):
        inputs = np.concatenate([u, op.forward(x[..., min(1, memory - 1)])[..., None] / op.bound, data[..., None]], -1)
        shape = (*op.out_shape, -1) if settings["dual"] == "image" else (y.size, 1, memory + 2)
        u = u + update(f"duals/{k}", inputs.reshape(shape)).reshape(u.shape)
        back = op.adjoint(u[..., 0]) / op.bound
        x = x + update(f"primals/{k}", np.concatenate([x, back[..., None]], -1))
    return mean + x[..., 0]


def dncnn(weights: Weights, settings: dict[str, Any], v: np.ndarray, op: Any, noise: Any) -> np.ndarray:
    """The noise level is 0.3."""
    return _dncnn(weights, "", settings["depth"], v, 0.3)


def _dncnn(weights: Weights, name: str, depth: int, v: np.ndarray, sigma: Any) -> np.ndarray:
    x = np.stack([v, np.full(v.shape, sigma)], -1)
    for i in range(depth):
        x = layer(weights, f"{name}layers/{i}", relu(x) if i else x)
    return v - x[..., 0]


def modl(weights: Weights, settings: dict[str, Any], y: np.ndarray, op: Matrix, noise: Any) -> np.ndarray:
    """With the minimum itself where the network takes conjugate gradients."""
    x, mean = start(settings, y, op, noise), settings["field"][0]
    weight = np.exp(weights["log_weight"]) * op.bound**2
    gram = np.real(op.matrix.conj().T @ op.matrix)
    u = np.zeros_like(x)
    for level in weights["levels"]:
        z = mean + _dncnn(weights, "denoiser/", settings["depth"], x + u - mean, level)
        if settings["admm"]:
            u = u + x - z
        right = op.adjoint(y) + weight * (z - u)
        x = np.linalg.solve(gram + weight * np.eye(x.size), right.ravel()).reshape(x.shape)
    return x


def vae(weights: Weights, settings: dict[str, Any], z: np.ndarray, op: Any, noise: Any) -> np.ndarray:
    """The decoder."""

    def dense(name: str, v: np.ndarray) -> np.ndarray:
        return v @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    h = z
    for name in ("hidden/0", "hidden/1"):
        v = dense(name, h)
        h = v / (1 + np.exp(-v))
    k = np.arange(settings["side"])
    table = (dense("linear", z) + dense("correction", h)).reshape(len(k), len(k))
    return idctn(4 * table / (1 + k[:, None] ** 2 + k**2) ** 0.75, norm="ortho") + 0.5
