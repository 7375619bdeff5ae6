"""deepinv: `PDCP`, the primal-dual method of Chambolle and Pock, with its own differences and the data term's prox in
closed form for total variation; `FISTA` on coefficients for l1. Batches run as tensors, as it is meant to."""

import os

import deepinv
import numpy as np
import torch
from deepinv.models import TVDenoiser
from deepinv.optim import FISTA, L2, PDCP, L1Prior, L12Prior
from instances import Instance, Wavelet, dct_matrix, features, paste
from worker import Prepared, serve

TAU = {"inpainting": 0.3, "rof": 0.3}
DEVICE = "cuda" if os.environ.get("PEERS_PLATFORM") == "gpu" else "cpu"


def tensor(a: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(a).to(DEVICE)


def total_variation(instance: Instance):
    y, tau = tensor(instance.y.astype(np.float32))[:, None], TAU[instance.kind]
    if instance.mask is None:
        physics, start = deepinv.physics.Denoising(device=DEVICE), y
    else:
        mask = tensor(instance.mask.astype(np.float32))
        physics = deepinv.physics.Inpainting(img_size=(1, *mask.shape), mask=mask[None], device=DEVICE)
        mean = y.sum((-1, -2), keepdim=True) / mask.sum()
        start = torch.where(mask > 0, y, mean)
    prior = L12Prior(l2_axis=-1) if instance.isotropic else L1Prior()
    dual = torch.zeros((*y.shape, 2), device=DEVICE)

    def solve(n: int) -> np.ndarray:
        model = PDCP(
            K=TVDenoiser.nabla,
            K_adjoint=TVDenoiser.nabla_adjoint,
            data_fidelity=L2(),
            prior=prior,
            lambda_reg=float(instance.lam),
            stepsize=tau,
            stepsize_dual=0.99 / 8 / tau,
            g_first=True,
            max_iter=n,
            early_stop=False,
            custom_init=lambda *_: {"est": (start, start, dual)},
        )
        with torch.no_grad():
            return model(y, physics)[:, 0].cpu().numpy()

    return solve


def sparse(instance: Instance):
    y = tensor(instance.y.astype(np.complex64 if instance.fourier else np.float32))
    if instance.kind == "wavelet":
        y = y[:, None]
        matrices = Wavelet(instance.scaling, instance.side, int(instance.levels), np.float32).matrices
        matrices = [tensor(m) for m in matrices]
        mask, D = tensor(instance.mask), tensor(dct_matrix(instance.side, np.float32))

        def image(c: torch.Tensor) -> torch.Tensor:
            c = c.clone()
            for m in reversed(matrices):
                n = len(m)
                c[..., :n, :n] = m.T @ c[..., :n, :n] @ m
            return c

        def coefficients(x: torch.Tensor) -> torch.Tensor:
            x = x.clone()
            for m in matrices:
                n = len(m)
                x[..., :n, :n] = m @ x[..., :n, :n] @ m.T
            return x

        def forward(c: torch.Tensor, **_) -> torch.Tensor:
            x = image(c)
            return mask * (torch.fft.fft2(x, norm="ortho") if instance.fourier else D @ x @ D.T)

        def adjoint(r: torch.Tensor, **_) -> torch.Tensor:
            r = mask * r
            return coefficients(torch.fft.ifft2(r, norm="ortho").real if instance.fourier else D.T @ r @ D)

        bound, shape = 1.0, y.shape
    else:
        side, y = instance.block, y[0]
        D, matrix = tensor(dct_matrix(side, np.float32)), tensor(features(instance.matrix))
        shape, bound = (len(y), 1, side, side), float(np.linalg.norm(instance.matrix, 2)) ** 2

        def image(c: torch.Tensor) -> torch.Tensor:
            return D.T @ c @ D

        def forward(c: torch.Tensor, **_) -> torch.Tensor:
            return c.reshape(len(c), -1) @ matrix.T

        def adjoint(r: torch.Tensor, **_) -> torch.Tensor:
            return (r @ matrix).reshape(shape)

    physics = deepinv.physics.LinearPhysics(A=forward, A_adjoint=adjoint, device=DEVICE)
    start = torch.zeros(shape, device=DEVICE)

    def solve(n: int) -> np.ndarray:
        model = FISTA(
            data_fidelity=L2(),
            prior=L1Prior(),
            lambda_reg=float(instance.lam),
            stepsize=1 / bound,
            max_iter=n,
            early_stop=False,
            custom_init=lambda *_: {"est": (start, start)},
        )
        with torch.no_grad():
            x = image(model(y, physics))[:, 0].cpu().numpy()
        return x if instance.kind == "wavelet" else paste(x, instance.side // instance.block)[None]

    return solve


def prepare(instance: Instance) -> Prepared:
    return Prepared(total_variation(instance) if instance.kind in ("inpainting", "rof") else sparse(instance))


if __name__ == "__main__":
    serve(prepare)
