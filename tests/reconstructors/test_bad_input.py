"""What every sparse method does with input that cannot be meant: the right answer, NaN for that item, or an error."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax import Noise
from emjax.operators import DCT, Dense, PixelSampling, SubsampledDCT, SubsampledFourier
from emjax.operators.scrambled import Scramble
from emjax.reconstructors import (
    AMP,
    HTP,
    IHT,
    OMP,
    VAMP,
    BasisPursuit,
    BernoulliGauss,
    CoSaMP,
    Lasso,
    PlugAndPlay,
    ReweightedL1,
    SoftThreshold,
    TotalGeneralisedVariation,
    TotalVariation,
    WaveletL1,
)
from emjax.reconstructors.message_passing import donoho_tanner
from emjax.solvers import Implicit, ParetoRoot

M, N, K = 12, 20, 2
RNG = np.random.default_rng(0)
MATRIX = (RNG.standard_normal((M, N)) / M**0.5).astype("f4")
X = np.zeros(N, "f4")
X[[3, 11]] = 1.5, -2
Y, A = MATRIX @ X, Dense(MATRIX)
TWICE = np.concatenate([MATRIX[:6], MATRIX[:6]])


def soft(v: jax.Array, sigma: jax.Array) -> jax.Array:
    return jnp.sign(v) * jnp.maximum(jnp.abs(v) - 1.5 * sigma, 0)


METHODS: dict[str, Any] = {
    "OMP": OMP(K),
    "CoSaMP": CoSaMP(K),
    "IHT": IHT(K),
    "HTP": HTP(K),
    "AMP": AMP(iterations=30),
    "D-AMP": AMP(soft),
    "VAMP": VAMP(SoftThreshold(1.5)),
    "Lasso": Lasso(1e-2, max_steps=500),
    "BasisPursuit": BasisPursuit(1e-2, max_steps=500),
    "root": BasisPursuit(1e-2, solver=ParetoRoot(), max_steps=500),
    "ReweightedL1": ReweightedL1(Lasso(1e-2, max_steps=300), rounds=1),
}
every = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
# Where too little is measured, message passing may find nothing, and greedy methods something else.
EXACT = ("Lasso", "BasisPursuit", "root", "ReweightedL1")


@every
def test_items_that_tell_nothing(method: Any) -> None:
    """One call: NaN, infinity, a matrix of zeros, one that is not finite, one without full rank, a good one."""
    name = next(k for k, m in METHODS.items() if m is method)
    broken = MATRIX.copy()
    broken[2, 5] = np.inf
    matrices = np.stack([MATRIX, MATRIX, 0 * MATRIX, broken, TWICE, MATRIX])
    infinite = np.where(np.arange(M) == 2, np.inf, Y).astype("f4")
    ys = np.stack([np.full(M, np.nan, "f4"), infinite, Y, Y, TWICE @ X, Y])
    found = np.asarray(method(ys, Dense(matrices)))
    assert np.isnan(found[[0, 1, 3]]).all()
    np.testing.assert_allclose(found[2], 0, atol=1e-6)  # of nothing, nothing
    assert np.isfinite(found[4]).all() and np.linalg.norm(found[4]) < 3 * np.linalg.norm(X)
    if name in EXACT:
        np.testing.assert_allclose(found[4], X, atol=0.05)
    np.testing.assert_allclose(found[5], X, atol=0.05)


@every
def test_batches_of_nothing_and_of_one(method: Any) -> None:
    assert method(np.zeros((2, 0, M), "f4"), A).shape == (2, 0, N)
    one = method(Y[None], A)
    assert one.shape == (1, N)
    np.testing.assert_allclose(one[0], X, atol=0.05)


QUICK = ("OMP", "AMP", "Lasso")


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, id=k, marks=() if k in QUICK else pytest.mark.slow) for k, m in METHODS.items()],
)
def test_numbers_of_any_kind_and_size(method: Any) -> None:
    """Integers, half and double precision; complex numbers of a real matrix, which acts on both parts; 1e30."""
    np.testing.assert_allclose(method(Y.astype("f2"), A), X, atol=0.05)
    assert method(Y.astype("f8"), A).dtype == method(np.arange(M), A).dtype == jnp.float32
    both = np.asarray(method((Y + 1j * Y).astype("c8"), A))
    assert both.dtype == np.complex64
    np.testing.assert_allclose(both, X + 1j * X, atol=0.06)
    if not isinstance(method, ReweightedL1 | Lasso) and method is not METHODS["VAMP"]:
        np.testing.assert_allclose(method(Y * np.float32(1e30), A) / 1e30, X, atol=0.05)
    else:  # nearly without a weight: the measurements are met
        huge = np.asarray(method(Y * np.float32(1e30), A), float) / 1e30
        np.testing.assert_allclose(MATRIX @ huge, Y, atol=1e-3)


@every
@pytest.mark.parametrize(
    ("y", "op", "error", "words"),
    [
        (Y[1:], A, ValueError, "measurements have shape"),
        (None, A, TypeError, "expected, got None"),
        ("scan.tif", A, TypeError, "expected, got 'scan.tif'"),
        (Y, MATRIX, TypeError, "takes an operator"),
    ],
)
def test_what_is_no_measurement(method: Any, y: Any, op: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        method(y, op)
    with pytest.raises(TypeError, match="noise is a Noise"):
        method(Y, A, 0.1)


@pytest.mark.parametrize("k", ["3", None, np.nan, np.inf, 2.5, np.array([2, 3]), True, 0, -1])
@pytest.mark.parametrize("kind", [OMP, CoSaMP, IHT, HTP])
def test_a_sparsity_is_a_whole_number(kind: Any, k: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="sparsity"):
        kind(k)


SETTINGS: dict[str, Any] = {
    "sparsity of a trace": (lambda: jax.jit(lambda k: OMP(k)(Y, A))(2), TypeError, "sparsity"),
    "sparsity above n": (lambda: OMP(N + 1)(Y, A), ValueError, "more than the 12 measurements"),
    "tolerance": (lambda: OMP(2, tolerance=-1.0), ValueError, "tolerance is 0 or more"),
    "transform": (lambda: OMP(2, transform=3), TypeError, "transform is a linear operator"),
    "transform of another shape": (lambda: OMP(2, transform=DCT((7,)))(Y, A), ValueError, "does not fit"),
    "steps": (lambda: IHT(2, max_steps=2.5), TypeError, "max_steps"),
    "steps below zero": (lambda: CoSaMP(2, max_steps=-1), ValueError, "max_steps"),
    "steps, Lasso": (lambda: Lasso(0.1, max_steps=None), TypeError, "max_steps"),
    "steps, tv": (lambda: TotalVariation(0.1, max_steps=1.5), TypeError, "max_steps"),
    "steps, wavelet": (lambda: WaveletL1(0.1, max_steps=-1), ValueError, "max_steps"),
    "steps, pnp": (lambda: PlugAndPlay(0.1, max_steps="1"), TypeError, "max_steps"),
    "gap": (lambda: Lasso(0.1, gap=np.nan), ValueError, "gap"),
    "gap, BasisPursuit": (lambda: BasisPursuit(gap=-1.0), ValueError, "gap"),
    "transform, Lasso": (lambda: Lasso(0.1, transform="db4"), TypeError, "transform is a linear operator"),
    "rounds": (lambda: ReweightedL1(rounds=1.5), TypeError, "rounds"),
    "offset": (lambda: ReweightedL1(offset=0.0), ValueError, "offset"),
    "iterations": (lambda: VAMP(iterations=2.5), TypeError, "iterations"),
    "damping, AMP": (lambda: AMP(damping=1.5), ValueError, "damping"),
    "damping, VAMP": (lambda: VAMP(damping=0.0), ValueError, "damping"),
    "noise": (lambda: VAMP(noise_sigma=-1.0), ValueError, "noise_sigma"),
    "alpha": (lambda: SoftThreshold(-1.0), ValueError, "alpha"),
    "rho": (lambda: BernoulliGauss(1.5), ValueError, "rho"),
    "variance": (lambda: BernoulliGauss(0.1, np.nan), ValueError, "variance"),
    "a denoiser's shape, AMP": (lambda: AMP(lambda v, s: v[:3])(Y, A), ValueError, "returned shape"),
    "a denoiser's shape, VAMP": (lambda: VAMP(lambda v, s: v[:3])(Y, A), ValueError, "returned shape"),
}


@pytest.mark.parametrize(("make", "error", "words"), SETTINGS.values(), ids=SETTINGS)
def test_settings_that_cannot_be_meant(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_values_at_their_limits() -> None:
    """A weight or tolerance of zero, infinity, and NaN: the exact answer, or NaN."""
    for method in (BasisPursuit, lambda t: BasisPursuit(t, solver=ParetoRoot())):
        exact, beyond, endless, unknown = np.asarray(method(np.array([0, 3, np.inf, np.nan], "f4"))(Y, A))
        np.testing.assert_allclose(exact, X, atol=1e-2)
        assert np.linalg.norm(Y) < 3 and (beyond == 0).all() and (endless == 0).all() and np.isnan(unknown).all()
    free, weak, strong, endless, unknown = np.asarray(Lasso(np.array([0, 1e-30, 1e30, np.inf, np.nan], "f4"))(Y, A))
    np.testing.assert_allclose(MATRIX @ free, Y, atol=1e-4)
    np.testing.assert_allclose(weak, free, atol=1e-4)
    assert (strong == 0).all() and (endless == 0).all() and np.isnan(unknown).all()
    stops = np.asarray(OMP(2, tolerance=np.array([np.inf, np.nan, 0], "f4"))(Y, A))
    assert (stops[0] == 0).all() and np.isnan(stops[1]).all()
    np.testing.assert_allclose(stops[2], X, atol=1e-5)
    levels = np.array([np.nan, np.inf], "f4")
    told = jax.jit(lambda levels: BasisPursuit(max_steps=50)(np.stack([Y, Y]), A, Noise(0.0, levels)))
    unknown, loud = np.asarray(told(levels))
    assert np.isnan(unknown).all() and (loud == 0).all()


def test_settings_of_a_trace_have_no_error_but_nan() -> None:
    run = jax.jit(lambda t, d: (AMP(SoftThreshold(t), damping=d)(Y, A), VAMP(SoftThreshold(t), damping=d)(Y, A)))
    for t, d in ((-1.0, 1.0), (np.nan, 1.0), (1.5, 2.0), (1.5, np.nan)):
        assert all(bool(jnp.isnan(x).all()) for x in run(t, d))
    assert all(bool(jnp.isfinite(x).all()) for x in run(1.5, 1.0))
    lasso = jax.jit(lambda w: Lasso(w, max_steps=100)(Y, A))
    assert bool(jnp.isnan(lasso(-0.1)).all()) and bool(jnp.isfinite(lasso(0.1)).all())


def test_weights_of_images_at_their_limits() -> None:
    mask = (RNG.random((8, 9)) < 0.6).astype("f4")
    y, scan = mask * RNG.random((8, 9)).astype("f4"), PixelSampling(mask)
    mean = y.sum() / mask.sum()
    for kind in (TotalVariation, lambda w: WaveletL1(w, name="haar"), TotalGeneralisedVariation):
        run = jax.jit(lambda w, kind=kind: kind(w)(y, scan))
        assert bool(jnp.isnan(run(-0.1)).all()) and bool(jnp.isnan(run(np.nan)).all())
        if kind is not TotalGeneralisedVariation:
            np.testing.assert_allclose(run(np.inf), mean, rtol=1e-5)
        np.testing.assert_allclose(run(0.0)[mask > 0], y[mask > 0], atol=1e-4)


def test_derivatives_of_a_batch_are_those_of_its_items() -> None:
    mask = (RNG.random((8, 8)) < 0.7).astype("f4")
    scan, ys = PixelSampling(mask), RNG.random((2, 8, 8)).astype("f4")

    @jax.jit
    def slope(weight: jax.Array, y: jax.Array) -> jax.Array:
        return jax.grad(lambda w: jnp.sum(WaveletL1(w, name="haar", gap=1e-5, gradient=Implicit())(y, scan) ** 2))(
            weight
        )

    np.testing.assert_allclose(slope(0.05, ys), slope(0.05, ys[0]) + slope(0.05, ys[1]), rtol=1e-3)


def test_vamp_returns_its_best_guess_where_it_diverges() -> None:
    for matrix in (TWICE, np.outer(MATRIX[:, 0], MATRIX[0]), MATRIX[:1]):
        x = np.asarray(VAMP(SoftThreshold(1.5))(matrix @ X, Dense(matrix)))
        assert np.linalg.norm(matrix @ (x - X)) <= np.linalg.norm(matrix @ X) * (1 + 1e-5)


def test_amp_counts_what_was_measured() -> None:
    """The noise level and the ratio of a mask are those of its pixels; of Fourier samples, opposite ones are one."""
    mask = (RNG.random((16, 16)) < 0.4).astype("f4")
    count, scan = int(mask.sum()), PixelSampling(mask)
    assert float(scan.count_measured()) == float((2.0 * scan).count_measured()) == count
    assert float((scan @ DCT((16, 16)).H).count_measured()) == count
    y = jnp.asarray(RNG.standard_normal((16, 16)), jnp.float32)
    level = float(AMP(iterations=1).trace(scan(y), scan)[1].sigma[0])
    assert level == pytest.approx(float(jnp.linalg.norm(scan(y))) / count**0.5, rel=1e-5)
    for delta in (0.1, 0.37, 1.0):
        found = SoftThreshold.minimax(jnp.float32(delta)).alpha
        assert float(found) == pytest.approx(donoho_tanner(delta)[1], abs=1e-4)
    half = np.zeros((16, 16), "f4")
    half[3, 2] = half[5, 7] = 1
    whole = half + np.roll(half[::-1, ::-1], 1, (0, 1))
    assert float(SubsampledFourier(half).count_measured()) == float(SubsampledFourier(whole).count_measured()) == 4
    assert float(SubsampledFourier(half, real=False).count_measured()) == 2
    assert float(SubsampledDCT(half).count_measured()) == 2


def test_amp_recovers_from_transform_samples() -> None:
    """Random samples of a scrambled transform are a matrix nearly as good as a Gaussian one, up to the same curve."""
    rng = np.random.default_rng(3)
    shape = (16, 32)
    x = np.zeros(512, "f4")
    x[rng.permutation(512)[:30]] = rng.choice([-1, 1], 30)
    scramble = Scramble(shape, rng.choice([-1.0, 1.0], shape), rng.permutation(512).reshape(shape))
    op = SubsampledDCT((rng.random(shape) < 0.4).astype("f4"), scramble)
    x = x.reshape(shape)
    found = np.asarray(AMP(iterations=100)(op(x), op))
    assert np.linalg.norm(found - x) < 2e-2 * np.linalg.norm(x)


def test_batches_that_do_not_go_together() -> None:
    y, mask = np.zeros((2, 8, 8), "f4"), np.ones((8, 8), "f4")
    said = r"the batch axes do not go together: \(2,\) of the measurements, and \(3,\) of the operator, the weights or"
    with pytest.raises(ValueError, match=said):
        TotalVariation(0.1)(y, PixelSampling(mask), Noise(0.0, np.full(3, 0.1, "f4")))
    with pytest.raises(ValueError, match=said):
        TotalVariation(np.ones(3, "f4"))(y, PixelSampling(mask))
