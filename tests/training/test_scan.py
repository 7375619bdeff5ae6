"""The scan task: it learns, patterns come from the bank, and without truth nothing but what was measured is read."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from emjax.networks import Network, build
from emjax.training import parameters as par
from emjax.training.data import scanned
from emjax.training.recipe import Scanned
from emjax.training.tasks import Scan, scan

RNG = np.random.default_rng(0)
PERIODS = RNG.uniform(1, 4, (2, 8, 1, 1))
WAVES = np.sin(np.arange(16) / PERIODS[0]) * np.cos(np.arange(16)[:, None] / PERIODS[1])
IMAGES = (0.5 + 0.4 * WAVES).astype(np.float32)
SCANS = np.stack([scanned(np.rint(65535 * x).astype(np.uint16), Scanned(0.5, 0.02), i) for i, x in enumerate(IMAGES)])
SCANS = SCANS.astype(np.float32)


@pytest.fixture(scope="module")
def network() -> Network:
    return build("scan", {"widths": [4], "encoder": [0], "decoder": []})


@pytest.fixture(scope="module")
def learn(network: Network) -> Callable[[Scan, np.ndarray, int], list[float]]:
    """The losses of some steps of descent along signs on one batch, always with the same random numbers."""
    graph, parameters, rest = par.split(network)

    def losses(task: Scan, images: np.ndarray, steps: int) -> list[float]:
        arrays = task.arrays()

        @jax.jit
        def step(parameters: Any) -> tuple[Any, Array]:
            def loss(parameters: Any) -> Array:
                return task.loss(par.join(graph, parameters, rest), images, jax.random.key(0), 0.0, **arrays)[0]

            value, gradient = jax.value_and_grad(loss)(parameters)
            return jax.tree.map(lambda p, g: p - 3e-3 * jnp.sign(g), parameters, gradient), value

        state, found = parameters, []
        for _ in range(steps):
            state, value = step(state)
            found.append(float(value))
        return found

    return losses


def test_it_learns_with_and_without_truth(learn: Any) -> None:
    for task, images in (
        (Scan(patterns=("random",), pattern_weights=(1.0,)), IMAGES),
        (Scan(truth=False, sigma=0.02), SCANS),
    ):
        found = learn(task, images, 20)
        assert np.isfinite(found).all() and found[-1] < found[0] - 0.02 * abs(found[0])


def test_without_truth_nothing_is_read_but_what_was_measured(network: Network) -> None:
    task = Scan(truth=False)
    loss = jax.jit(lambda scans: task.loss(network, scans, jax.random.key(2), 0.0)[0])
    seen = np.isfinite(SCANS)
    value = float(loss(SCANS))
    for hidden in (np.inf, -np.inf):
        assert float(loss(np.where(seen, SCANS, hidden).astype(np.float32))) == value
    one = SCANS.copy()
    one[0, *np.argwhere(seen[0])[0]] += 0.5
    assert float(loss(one)) != value
    nothing = np.full_like(SCANS, np.nan)
    nothing[1:] = SCANS[1:]
    assert np.isfinite(loss(nothing))


def test_the_pixels_that_are_scored_are_not_seen() -> None:
    """A network that repeats its input is right where it looks; the score is that of the others, which it has as 0."""

    def echo(y: Array, A: Any, noise: Any) -> Array:
        np.testing.assert_array_equal(np.isfinite(SCANS) & (np.asarray(A.mask) > 0), np.asarray(A.mask) > 0)
        np.testing.assert_array_equal(noise.read_sigma, np.float32(0.05))
        return y

    flat = np.where(np.isfinite(SCANS), 0.5, np.nan).astype(np.float32)
    loss, more = Scan(truth=False, loss_name="mse").loss(echo, flat, jax.random.key(0), jnp.zeros(()))
    assert float(loss) == 0.25
    np.testing.assert_allclose(more["held_out"], 0.25 - 0.05**2, rtol=1e-5)


def test_a_network_is_taught_how_far_to_trust_what_it_sees() -> None:
    """Of all weights of the pixels seen, the one of least error scores best: signal over signal and noise."""
    truth = RNG.normal(0, 0.2, (4, 64, 64)).astype(np.float32)
    scans = np.where(RNG.random(truth.shape) < 0.5, truth + RNG.normal(0, 0.1, truth.shape), np.nan).astype(np.float32)
    task = Scan(truth=False, sigma=0.1, added=(0.1, 0.1), loss_name="mse")
    scores = [
        float(task.loss(lambda y, A, noise, g=g: g * y, scans, jax.random.key(0), jnp.zeros(()))[1]["held_out"])
        for g in (0.3, 0.667, 1.0)
    ]
    assert scores[1] < min(scores[0], scores[2])


@pytest.mark.slow
def test_the_bank_is_sorted_by_pattern_and_share(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BANK_SIDE", 24), ("BANK_RATIOS", 2), ("BANK_COPIES", 2)):
        monkeypatch.setattr(scan, name, value)
    bank = Scan(patterns=("jittered", "random", "line-hop"), pattern_weights=(1.0, 1.0, 1.0)).arrays()["bank"]
    assert bank.shape == (8, 24, 24) and bank.dtype == jnp.float16
    np.testing.assert_allclose(np.mean(bank, (1, 2), dtype=float), 2 * [0.05, 0.05, 0.6, 0.6], atol=0.06)


def test_patterns_come_from_the_bank_by_their_weights() -> None:
    task = Scan(ratio=(0.2, 0.2), patterns=("line-hop", "random"), pattern_weights=(3.0, 1.0))
    bank = jnp.asarray(RNG.random((4, 24, 24)) < 0.4, jnp.float16)
    masks = np.asarray(jax.jit(lambda key: task._masks(key, (400, 16, 16), bank))(jax.random.key(0)))
    assert set(np.unique(masks)) == {0, 1}
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(bank, np.float32), (16, 16), axis=(1, 2))
    every = {w.tobytes() for w in (v for u in windows.reshape(-1, 16, 16) for v in (u, u.T, u[::-1], u.T[::-1]))}
    from_bank = np.array([m.tobytes() in every for m in masks])
    assert abs(from_bank.mean() - 0.75) < 0.07
    assert abs(masks[~from_bank].mean() - 0.2) < 0.03
    with pytest.raises(ValueError, match=r"data.crop is at most 24 for other patterns than random, got 32"):
        jax.eval_shape(lambda key: task._masks(key, (2, 32, 32), bank), jax.random.key(0))


def test_what_is_measured_and_what_is_told() -> None:
    task = Scan(noise=(0.1, 0.1), clean=0.25, counting=0.5, misjudged=0.05)
    noise = jax.jit(task._noise, static_argnums=1)(jax.random.key(0), 2000)
    read, gain = np.asarray(noise.read_sigma), np.asarray(noise.gain)
    assert abs(np.mean(read + gain == 0) - 0.25) < 0.03 and abs(np.mean(gain[read + gain > 0] > 0) - 0.5) < 0.05
    np.testing.assert_allclose(np.sqrt(gain + read**2)[read + gain > 0], 0.1, atol=0.001)
    x, w = np.full((2000, 12, 12), 0.5, np.float32), np.full((2000, 12, 12), 0.5, np.float32)
    w[:, ::2] = 0
    y = np.asarray(jax.jit(scan._measure)(jax.random.key(1), x, w, noise))
    assert (y[:, ::2] == 0).all()
    expected = np.sqrt(gain * 0.5**2 * 0.5 + read**2)
    np.testing.assert_allclose(np.mean(np.square(y[:, 1::2] - 0.25), (1, 2)), expected**2, rtol=0.8, atol=1e-12)
    told, level, contrast = jax.jit(task._told)(jax.random.key(2), y, w, noise)
    some = read > 0
    assert abs(np.std(np.log(np.asarray(told.read_sigma)[some] / read[some])) - 0.05) < 0.005
    assert np.isfinite(level).all() and np.isfinite(contrast).all()


def test_the_validation_knows_the_images() -> None:
    task = Scan(test_ratios=(0.25, 0.5), test_noise=(0.0, 0.1))
    shares = []

    def perfect(y: Array, A: Any, noise: Any) -> Array:
        shares.append(float(np.mean(A.mask)))
        return jnp.asarray(IMAGES + 0.1)

    scores = task.evaluate(perfect, IMAGES, jax.random.key(0))
    assert set(scores) == {"psnr", "psnr_25_0", "psnr_25_0.1", "psnr_50_0", "psnr_50_0.1"}
    np.testing.assert_allclose([float(v) for v in scores.values()], 20, atol=0.01)
    np.testing.assert_allclose(shares, [0.25, 0.25, 0.5, 0.5], atol=0.05)
