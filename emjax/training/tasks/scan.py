"""Recovery of sparse, noisy scans: every patch is scanned anew, by another pattern, share of pixels and noise.

    y = w x + n,    var n = sigma^2 + gain w^2 x,    x the patch, w a pattern of the beam

The shares are uniform in their logarithm: half as many pixels are as large a step at 50 % as at 10 %. A share of the
patches has no noise, a share counts electrons. The network is told noise level, mean and contrast as well as a user
would know them: off by a few percent.

Without truth (`truth = false`) the patches are scans themselves, NaN where nothing was measured: the network sees a
random part of the measured pixels and is scored on the others (Yaman et al., MRM 84, 2020).
"""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from emjax.acquisition import PATTERNS, Noise, pattern
from emjax.networks.scan import divided, statistics
from emjax.operators import PixelSampling
from emjax.training.losses import split_mask
from emjax.training.tasks.base import Task, arguments

BANK_SIDE, BANK_RATIOS, BANK_COPIES = 256, 10, 6
FLOOR = 1e-6  # mean squared error below which patches are not told apart (60 dB)


@dataclasses.dataclass(frozen=True)
class Scan(Task):
    """A scan network and the scans that it is trained on.

    ratio, noise: from, to; noise is the standard deviation of the read-out and, for a share `counting` of the noisy
    patches, of the electrons' counting at full grey value; the share of the way is u^`noise_power`, u uniform: with 2,
    the levels up to a quarter of the way are together as frequent as the rest. clean: the share of patches without
    noise. patterns: names of scan patterns, drawn with `pattern_weights`. misjudged: standard deviation of the relative
    error of the noise level and of the contrast that the network is told. loss: "psnr" (the mean of the logarithms of
    the patches' mean squared errors, which is what a mean PSNR measures), "mse" or "l1". test_ratios, test_noise: of
    the validation. truth, seen: without truth, the shares of the measured pixels that the network sees, and `sigma`
    their noise; added: more noise, drawn from this range, for what it sees; without any, nothing teaches it how far to
    trust a pixel.
    """

    ratio: tuple[float, float] = (0.05, 0.6)
    noise: tuple[float, float] = (0.0, 0.1)
    noise_power: float = 1.0
    clean: float = 0.3
    counting: float = 0.25
    patterns: tuple[str, ...] = ("random", "jittered", "line-hop", "spiral")
    pattern_weights: tuple[float, ...] = (0.55, 0.1, 0.2, 0.15)
    misjudged: float = 0.05
    loss_name: str = "psnr"
    test_ratios: tuple[float, ...] = (0.1, 0.25, 0.5)
    test_noise: tuple[float, ...] = (0.0, 0.05)
    truth: bool = True
    seen: tuple[float, float] = (0.5, 0.95)
    sigma: float = 0.05
    added: tuple[float, float] = (0.0, 0.0)

    @property
    def scans(self) -> bool:
        return not self.truth

    def check(self) -> None:
        if not 0 < self.ratio[0] <= self.ratio[1] <= 1:
            raise ValueError(f"task.ratio is two shares of pixels, in (0, 1] and rising, got {self.ratio}")
        for name in ("noise", "added"):
            low, high = getattr(self, name)
            if not 0 <= low <= high < float("inf"):
                raise ValueError(f"task.{name} is two noise levels, finite, 0 or above and rising, got {(low, high)}")
        if not 0 < self.noise_power < float("inf"):
            raise ValueError(f"task.noise_power is a number above 0, got {self.noise_power}")
        if not 0 < self.seen[0] <= self.seen[1] < 1:
            raise ValueError(f"task.seen is two shares of the measured pixels, in (0, 1) and rising, got {self.seen}")
        for name, values in (
            ("sigma", (self.sigma,)),
            ("misjudged", (self.misjudged,)),
            ("test_noise", self.test_noise),
        ):
            if not all(0 <= v < float("inf") for v in values):
                raise ValueError(f"task.{name} is finite and 0 or above, got {getattr(self, name)}")
        if not self.test_ratios or not all(0 < r <= 1 for r in self.test_ratios) or not self.test_noise:
            raise ValueError(
                f"task.test_ratios are shares of pixels, in (0, 1], at least one, and one or more task.test_noise; got "
                f"{self.test_ratios} and {self.test_noise}"
            )
        for name in ("clean", "counting"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"task.{name} is a share of the patches, in [0, 1], got {getattr(self, name)}")
        if unknown := [name for name in self.patterns if name not in PATTERNS]:
            raise ValueError(f"task.patterns: unknown scan pattern {unknown[0]!r}; there are {', '.join(PATTERNS)}")
        sound = all(0 <= v < float("inf") for v in self.pattern_weights) and sum(self.pattern_weights) > 0
        if len(self.pattern_weights) != len(self.patterns) or not sound:
            raise ValueError(
                "task.pattern_weights has one weight, 0 or above and not all 0, for each of task.patterns, got "
                f"{self.pattern_weights} for {self.patterns}"
            )
        if self.loss_name not in ("psnr", "mse", "l1"):
            raise ValueError(f'task.loss_name is "psnr", "mse" or "l1", got {self.loss_name!r}')

    def refuses(self, network: Any) -> str | None:
        return None if {"A", "level", "contrast"} <= arguments(network) else 'scan networks, kind = "scan"'

    def arrays(self) -> dict[str, Array]:
        """The bank of patterns; none for scans, which have theirs."""
        if self.scans:
            return {}
        return {"bank": _bank(tuple(p for p in self.patterns if p != "random"))}

    def loss(
        self, network: Any, images: Float[Array, "batch h w"], key: PRNGKeyArray, progress: Array, **arrays: Array
    ) -> tuple[Array, dict[str, Array]]:
        pattern_key, noise_key, level_key, grey_key = jax.random.split(key, 4)
        if not self.truth:
            return self._split_loss(network, images, key)
        w = self._masks(pattern_key, images.shape, arrays["bank"])
        noise = self._noise(level_key, len(images))
        y = _measure(noise_key, images, w, noise)
        told, level, contrast = self._told(grey_key, y, w, noise)
        x = network(y, PixelSampling(w), told, level=level, contrast=contrast)
        error = jnp.mean(jnp.square(x - images), (1, 2))
        log_error = jnp.mean(jnp.log10(error + FLOOR))
        losses = {"mse": jnp.mean(error), "l1": jnp.mean(jnp.abs(x - images)), "psnr": log_error}
        return losses[self.loss_name], {"psnr": -10 * log_error}

    def _split_loss(
        self, network: Any, scans: Float[Array, "batch h w"], key: PRNGKeyArray
    ) -> tuple[Array, dict[str, Array]]:
        share_key, split_key, level_key, noise_key = jax.random.split(key, 4)
        mask = jnp.isfinite(scans)
        y = jnp.where(mask, scans, 0)
        share = jax.random.uniform(share_key, (len(scans), 1, 1), minval=self.seen[0], maxval=self.seen[1])
        seen, rest = split_mask(split_key, mask, share)
        w = seen.astype(y.dtype)
        # At the pixels that it sees, the network is scored on a second scan made of the first: y + t n and
        # y - (sigma^2 / t) n have independent noise (Pang et al., CVPR 2021, "Recorrupted-to-recorrupted"). It also
        # meets other shares of noise in the contrast than those of the scans.
        more = jax.random.uniform(level_key, (len(y), 1, 1), minval=self.added[0], maxval=self.added[1])
        n = jax.random.normal(noise_key, y.shape)
        told = Noise(0.0, jnp.sqrt(self.sigma**2 + more[:, 0, 0] ** 2))
        x = network((y + more * n) * w, PixelSampling(w), told)
        second = y - self.sigma**2 / jnp.where(more > 0, more, 1) * n
        trust = more**2 / (more**2 + self.sigma**2)  # of the second scan: sigma^2 over the variance of its noise
        square = jnp.where(rest, jnp.square(x - y), 0) + jnp.where(seen, trust * jnp.square(x - second), 0)
        # The noise of the targets is taken off: sigma^2 of each, as `trust` weighs the louder ones.
        weight = jnp.maximum(jnp.sum(rest + trust * seen, (1, 2)), 1)
        error = jnp.sum(square, (1, 2)) / weight
        own = self.sigma**2 * jnp.sum(rest + jnp.where(more > 0, seen, False), (1, 2)) / weight
        # The mean of the logarithms of what is left, and its gradient: smooth patches, whose errors are small, count as
        # much as others.
        left = jax.lax.stop_gradient(jnp.maximum(error - own, 0.1 * self.sigma**2 + FLOOR))
        weighed = jnp.log10(left) + (error - jax.lax.stop_gradient(error)) / left / np.log(10)
        loss = jnp.mean(weighed) if self.loss_name == "psnr" else jnp.mean(error)
        return loss, {"held_out": jnp.mean(error - own)}

    def evaluate(
        self, network: Any, images: Float[Array, "batch h w"], key: PRNGKeyArray, **arrays: Array
    ) -> dict[str, Array]:
        found = {}
        for i, ratio in enumerate(self.test_ratios):
            mask_key, noise_key = jax.random.split(jax.random.fold_in(key, i))
            w = (jax.random.uniform(mask_key, images.shape) < ratio).astype(images.dtype)
            for sigma in self.test_noise:
                noise = Noise(0.0, jnp.full(len(images), sigma))
                x = network(_measure(noise_key, images, w, noise), PixelSampling(w), noise)
                error = jnp.mean(jnp.square(jnp.clip(x, 0, 1) - images), (1, 2))
                found[f"psnr_{100 * ratio:.0f}_{sigma:g}"] = -10 * jnp.mean(jnp.log10(error + 1e-10))
        return {"psnr": jnp.mean(jnp.stack(list(found.values()))), **found}

    def _masks(self, key: PRNGKeyArray, shape: tuple[int, ...], bank: Array) -> Array:
        """A pattern for every patch, `shape`."""
        batch, h, w = shape
        keys = jax.random.split(key, 4)
        low, high = (float(np.log(r)) for r in self.ratio)
        ratio = jnp.exp(jax.random.uniform(keys[0], (batch, 1, 1), minval=low, maxval=high))
        mask = (jax.random.uniform(keys[1], shape) < ratio).astype(jnp.float32)
        weights = dict(zip(self.patterns, self.pattern_weights, strict=True))
        total = sum(weights.values())
        others = [p for p in self.patterns if p != "random"]
        if not others:
            return mask
        if max(h, w) > bank.shape[-1]:
            raise ValueError(f"data.crop is at most {bank.shape[-1]} for other patterns than random, got {max(h, w)}")
        # The bank is sorted by pattern; its copies of a pattern are equally likely.
        share = jnp.repeat(jnp.asarray([weights[p] for p in others]), len(bank) // len(others))
        which = jax.random.choice(keys[2], len(bank), (batch,), p=share / jnp.sum(share))
        from_bank = jax.vmap(lambda k, i: _part(k, bank[i], (h, w)))(jax.random.split(keys[3], batch), which)
        plain = jax.random.uniform(jax.random.fold_in(key, 4), (batch, 1, 1)) < weights.get("random", 0) / total
        return jnp.where(plain, mask, from_bank)

    def _noise(self, key: PRNGKeyArray, batch: int) -> Noise:
        keys = jax.random.split(key, 3)
        share = jax.random.uniform(keys[0], (batch,)) ** self.noise_power
        sigma = self.noise[0] + share * (self.noise[1] - self.noise[0])
        sigma = jnp.where(jax.random.uniform(keys[1], (batch,)) < self.clean, 0, sigma)
        counts = jax.random.uniform(keys[2], (batch,)) < self.counting
        return Noise(jnp.where(counts, sigma**2, 0), jnp.where(counts, 0.1 * sigma, sigma))

    def _told(self, key: PRNGKeyArray, y: Array, w: Array, noise: Noise) -> tuple[Noise, Array, Array]:
        """Noise, level and contrast as a user knows them."""
        a, b, c = jax.random.normal(key, (3, len(y)))
        factor = jnp.exp(self.misjudged * a)
        told = Noise(noise.gain * factor**2, noise.read_sigma * factor)
        level, contrast = statistics(*divided(y, w), told)
        off = 4 * self.misjudged  # a part of an image has another mean and contrast than the whole
        return told, level + off * contrast * b, contrast * jnp.exp(off * c)


def _measure(key: PRNGKeyArray, x: Array, w: Array, noise: Noise) -> Array:
    """`y`, its counting noise drawn as a Gaussian of the same variance: doses are some hundred electrons."""
    gain, read = (v.reshape(*v.shape, 1, 1) for v in (noise.gain, noise.read_sigma))
    deviation = jnp.sqrt(gain * w**2 * jnp.maximum(x, 0) + read**2)
    return jnp.where(w > 0, w * x + deviation * jax.random.normal(key, x.shape), 0)


def _part(key: PRNGKeyArray, mask: Array, shape: tuple[int, int]) -> Array:
    """A patch of a pattern, at a random place and in one of four orientations; `shape` square."""
    keys = jax.random.split(key, 3)
    corner = jax.random.randint(keys[0], (2,), 0, jnp.asarray([m - s + 1 for m, s in zip(mask.shape, shape)]))
    part = jax.lax.dynamic_slice(mask, corner, shape).astype(jnp.float32)
    part = jnp.where(jax.random.bernoulli(keys[1]), part.T, part)
    return jnp.where(jax.random.bernoulli(keys[2]), part[::-1], part)


def _bank(names: tuple[str, ...]) -> Array:
    """`(patterns x ratios x copies, side, side)` of float16 weights, sorted by pattern; shares from 5 to 60 %."""
    ratios = np.geomspace(0.05, 0.6, BANK_RATIOS)
    shape = (BANK_COPIES, BANK_SIDE, BANK_SIDE)

    def make(job: tuple[int, str, float]) -> np.ndarray:
        seed, name, ratio = job
        return np.asarray(pattern(name, jax.random.key(seed), shape, float(ratio)), np.float16)

    jobs = [(i, name, ratio) for i, (name, ratio) in enumerate((n, r) for n in names for r in ratios)]
    if not jobs:
        return jnp.zeros((1, 1, 1), jnp.float16)
    with ThreadPoolExecutor(16) as pool:  # compiling takes most of the time, and leaves Python free
        return jnp.asarray(np.concatenate(list(pool.map(make, jobs))))
