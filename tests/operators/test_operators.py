"""Every operator of the registry: exact adjoint, true norm bound, true claims, export, one trace, batch as loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
from operator_registry import (
    ADJOINT_BAR,
    EXAMPLES,
    Example,
    Numbers,
    as_real,
    enable_x64,
    items,
    measure,
    quick_jit,
    unit_items,
)

from emjax import operators as ops
from emjax._pytree import batch_axes

cached = functools.cache(measure)
every = pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.name)
both = pytest.mark.parametrize("dtype", ["float32", "float64"])
ROUNDING = {"float32": 1e-5, "float64": 1e-13}


def shapes(example: Example, dtype: str) -> tuple:
    """All six in float64, two of them in float32: `test_float32_at_every_shape` is slow and has the others."""
    return example.shapes if dtype == "float64" else example.shapes[1::4]


def check_adjoint(example: Example, shape: tuple, dtype: str) -> None:
    m = cached(example, shape, dtype)
    assert m.adjoint_errors.max() <= ADJOINT_BAR[dtype], shape
    atol = ROUNDING[dtype] * max(1, cached(example, shape, "float64").norm)
    np.testing.assert_allclose(m.adjoint_matrix, m.matrix.T, atol=atol, rtol=0)
    assert m.dtypes == (m.in_dtype, m.out_dtype), shape
    assert jnp.finfo(m.in_dtype).dtype == dtype


def check_norm_bound(example: Example, shape: tuple, dtype: str) -> None:
    norm, bound = cached(example, shape, "float64").norm, cached(example, shape, dtype).norm_bound
    assert bound >= norm * (1 - 1e-14), shape
    assert example.tight is None or bound <= example.tight * norm + 1e-14, shape


@every
@both
def test_adjoint(example: Example, dtype: str) -> None:
    for shape in shapes(example, dtype):
        check_adjoint(example, shape, dtype)


@every
@both
def test_norm_bound(example: Example, dtype: str) -> None:
    for shape in shapes(example, dtype):
        check_norm_bound(example, shape, dtype)


@pytest.mark.slow
@every
def test_float32_at_every_shape(example: Example) -> None:
    for shape in example.shapes:
        check_adjoint(example, shape, "float32")
        check_norm_bound(example, shape, "float32")


@every
def test_closed_forms_are_true(example: Example) -> None:
    for shape in example.shapes:
        m = cached(example, shape, "float64")
        gram, rows = m.matrix.T @ m.matrix, m.matrix @ m.matrix.T
        close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-12 * max(1.0, m.norm**2))
        if "gram_diagonal" in m.claims:
            diagonal = np.broadcast_to(m.claims["gram_diagonal"], m.op.in_shape).ravel()
            close(gram, np.diag(np.tile(diagonal, len(gram) // diagonal.size)))
        if "gram_scale" in m.claims:
            close(gram, m.claims["gram_scale"] * np.eye(len(gram)))
        if "row_scale" in m.claims:
            close(rows, m.claims["row_scale"] * np.eye(len(rows)))
        if "resolvent" in m.claims:
            close(m.claims["resolvent"], np.linalg.inv(np.eye(len(gram)) + 0.7 * gram))
        for basis in {"dct", "fft"} & set(m.claims):
            spectrum = np.broadcast_to(m.claims[basis], m.op.in_shape)
            close(gram, diagonal_in(basis, spectrum, m.in_dtype))
        if "row_sums" in m.claims:
            complex_rows, complex_columns = (jnp.issubdtype(d, jnp.complexfloating) for d in (m.out_dtype, m.in_dtype))
            size = np.hypot(*np.split(m.matrix, 2)) if complex_rows else np.abs(m.matrix)
            size = size[:, : size.shape[1] // 2] if complex_columns else size
            for name, shape, axis in (("row_sums", m.op.out_shape, 1), ("column_sums", m.op.in_shape, 0)):
                claimed = np.broadcast_to(m.claims[name], shape).ravel()
                # Blocks that reach beyond the item count what they would see there.
                close(np.minimum(claimed, size.sum(axis)) if "blocks" in example.name else claimed, size.sum(axis))


def diagonal_in(basis: str, spectrum: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The real matrix of `U.H s U` for the orthonormal DCT or DFT `U`."""
    units = unit_items(dtype, spectrum.shape)
    axes = tuple(range(1, units.ndim))
    if basis == "dct":

        def apply(v: np.ndarray) -> np.ndarray:
            return scipy.fft.idctn(spectrum * scipy.fft.dctn(v, axes=axes, norm="ortho"), axes=axes, norm="ortho")

        mapped = apply(units.real) + (1j * apply(units.imag) if np.iscomplexobj(units) else 0)
    else:
        mapped = np.fft.ifftn(spectrum * np.fft.fftn(units, axes=axes), axes=axes)
    return as_real(mapped, dtype, len(units)).T


def test_no_closed_form_is_missed() -> None:
    every = {e.name: set(cached(e, e.shapes[0], "float64").claims) for e in EXAMPLES}
    spectra = {"dct", "fft", "row_sums", "column_sums"}
    names = {name: claims - spectra for name, claims in every.items()}
    sums = {name: claims & spectra for name, claims in every.items()}
    scales = {"gram_diagonal", "gram_scale", "resolvent"}
    assert names["DCT"] == names["wavelet, db4"] == names["Fourier, complex"] == scales | {"row_scale"}
    assert sums["differences"] == {"dct", "row_sums", "column_sums"} and sums["blur, reflect, promised"] == {"dct"}
    assert sums["subsampled Fourier, soft"] == sums["blur, periodic"] == {"fft"}
    assert sums["dense"] == sums["blocks, padded"] == {"row_sums", "column_sums"} and not sums["blur, zero"]
    assert names["Fourier, real"] == scales
    assert names["subsampled Fourier, soft"] == names["blur, periodic"] == {"resolvent"}
    assert names["scrambled Hadamard, 0/1"] == names["scrambled DCT, soft"] == {"resolvent"}
    assert names["dense, orthonormal"] == scales | {"row_scale"}  # a square matrix
    assert names["blocks, orthonormal"] == {"row_scale", "resolvent"} and not names["blocks, padded"]
    assert names["blocks of masks"] == {"gram_diagonal", "resolvent"}
    assert names["blocks, 3-D"] == scales | {"row_scale"}
    assert names["undecimated wavelet"] == names["frame"] == scales
    assert names["down-sampling, area"] == {"row_scale", "resolvent"} and not names["down-sampling, bicubic"]
    assert names["compose, gram diagonal"] == {"gram_diagonal", "resolvent"}


@every
def test_exports_for_every_platform(example: Example) -> None:
    op = example.build(Numbers(0), example.shapes[1])
    x, y = (jax.ShapeDtypeStruct((3, *s), d) for s, d in ((op.in_shape, op.in_dtype), (op.out_shape, op.out_dtype)))
    f = jax.jit(lambda op, x, y: (op(x), op.H(y), op.norm_bound()))
    exported = jax.export.export(f, platforms=["cpu", "cuda", "tpu"])(op, x, y)
    assert [v.shape for v in exported.out_avals] == [(3, *op.out_shape), (3, *op.in_shape), ()]


LEAVES = [e for e in EXAMPLES if jax.tree.leaves(e.build(Numbers(0), e.shapes[0]))]


@pytest.mark.parametrize("example", LEAVES, ids=lambda e: e.name)
def test_one_trace_for_other_numbers(example: Example) -> None:
    traces = []

    @quick_jit
    def f(op: ops.LinearOperator, x: jax.Array) -> jax.Array:
        traces.append(1)
        return op.adjoint(op.forward(x))

    for seed in range(3):
        numbers = Numbers(seed)
        op = example.build(numbers, example.shapes[0])
        f(op, items(numbers, op.in_dtype, *op.in_shape))
    assert len(traces) == 1


def batch_of(example: Example, shape: tuple, count: int) -> tuple[ops.LinearOperator, list[ops.LinearOperator]]:
    """An operator whose arrays carry a batch axis where they may, and its items; those that may not are shared."""
    singles = [example.build(Numbers(seed), shape) for seed in range(count)]
    stacked = jax.tree.map(lambda *v: jnp.stack(v), *singles)
    batched = [axes > 0 for axes in jax.tree.leaves(batch_axes(stacked))]
    columns = list(zip(*map(jax.tree.leaves, singles), strict=True))
    treedef, several = jax.tree.structure(stacked), jax.tree.leaves(stacked)
    batch = [many if b else one[0] for many, one, b in zip(several, columns, batched, strict=True)]
    items = [[c[i if b else 0] for c, b in zip(columns, batched, strict=True)] for i in range(count)]
    return jax.tree.unflatten(treedef, batch), [jax.tree.unflatten(treedef, leaves) for leaves in items]


@pytest.mark.parametrize("example", LEAVES, ids=lambda e: e.name)
def test_a_batch_of_operators_is_a_loop(example: Example) -> None:
    op, singles = batch_of(example, example.shapes[1], 3)
    x, y = items(Numbers(2), op.in_dtype, 3, *op.in_shape), items(Numbers(3), op.out_dtype, 3, *op.out_shape)
    batch, back, shared, bound = quick_jit(lambda op, x, y: (op(x), op.H(y), op(x[0]), op.norm_bound()))(op, x, y)
    f = quick_jit(lambda op, x, y, z: (op(x), op.H(y), op(z), op.norm_bound()))
    for i, single in enumerate(singles):
        *loop, norm = f(single, x[i], y[i], x[0])
        for got, want in zip((batch, back, shared), loop, strict=True):
            got = got[i] if got.ndim > want.ndim else got
            np.testing.assert_allclose(got, want, atol=1e-5)
        assert bound >= norm * (1 - 1e-6)


def test_batches_of_several_axes_and_operators_shared_by_all() -> None:
    numbers = Numbers(1)
    op = ops.PixelSampling(numbers.weights(2, 3, 4, 5)) @ ops.Blur(numbers.normal(3, 3), (4, 5))
    x = items(numbers, op.in_dtype, 2, 3, 4, 5)
    batch = op(x)
    for i, j in np.ndindex(2, 3):
        single = ops.PixelSampling(op.outer.mask[i, j]) @ op.inner
        np.testing.assert_allclose(batch[i, j], single(x[i, j]), atol=2e-6)


GRADIENTS = {
    "pixel sampling": ops.PixelSampling,
    "subsampled Fourier": ops.SubsampledFourier,
    "blur, periodic": lambda k: ops.Blur(k, (5, 4)),
    "blur, reflect": lambda k: ops.Blur(k, (5, 4), "reflect"),
    "blur, zero": lambda k: ops.Blur(k, (5, 4), "zero"),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_of_leaves(name: str) -> None:
    with enable_x64():
        numbers = Numbers(0)
        leaf, x, d = numbers.weights(5, 4), numbers.normal(5, 4), numbers.normal(5, 4)

        def loss(leaf: jax.Array) -> jax.Array:
            op = GRADIENTS[name](leaf)
            value = jnp.sum(jnp.sin(op.adjoint(op.forward(x)))) + op.norm_bound()
            return value + (jnp.sum(jnp.cos(op.resolvent(x, 0.3))) if op.has_resolvent else 0.0)

        value_and_grad, step = quick_jit(jax.value_and_grad(loss)), 1e-6
        slope = np.vdot(value_and_grad(leaf)[1], d)
        difference = (value_and_grad(leaf + step * d)[0] - value_and_grad(leaf - step * d)[0]) / (2 * step)
        assert abs(slope - difference) <= 1e-6 * max(1, abs(difference))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_dtype_follows_the_input(dtype: str) -> None:
    with enable_x64():
        made = (
            ops.DCT((5, 6)),
            ops.Wavelet((5, 6)),
            ops.FiniteDifference((5, 6)),
            ops.DCT((70,)),
            ops.Hadamard((4, 8)),
            ops.Downsampling((5, 6), 2),
            ops.UndecimatedWavelet((5, 6)),
        )
        for op in made:
            x = jax.ShapeDtypeStruct(op.in_shape, dtype)
            y = jax.eval_shape(op, x)
            assert y.dtype == jax.eval_shape(op.H, y).dtype == dtype
            z = jax.ShapeDtypeStruct(op.in_shape, jnp.promote_types(dtype, jnp.complex64))
            assert jax.eval_shape(op, z).dtype == z.dtype


BAD = [
    (lambda: ops.Wavelet((8, 8), "db99"), "unknown wavelet"),
    (lambda: ops.Wavelet((8, 8), "haar", 4), "0 to 3 wavelet levels"),
    (lambda: ops.Wavelet((8, 0)), "length 1 or more"),
    (lambda: ops.DCT(()), "one or more axes"),
    (lambda: ops.Hadamard((8, 6)), "powers of two"),
    (lambda: ops.Hadamard((8, 8), "dyadic"), "order is one of"),
    (lambda: ops.Scramble((2, 2), signs=jnp.ones((2, 3))), "have that shape"),
    (lambda: ops.Scramble((2, 2), signs=jnp.full((2, 2), 0.5)), r"\+1 or -1"),
    (lambda: ops.Scramble((2, 2), permutation=jnp.zeros((2, 2), int)), "every index"),
    (lambda: ops.Scramble((2, 2), permutation=jnp.ones((2, 2))), "integers"),
    (lambda: ops.Dense(jnp.ones(3)), "two axes"),
    (lambda: ops.Dense(jnp.ones((3, 4)), (2, 3)), "items of 4 elements"),
    (lambda: ops.Dense(jnp.ones((3, 4)), orthonormal=True), "not orthonormal"),
    (lambda: ops.gaussian(jax.random.key(0), (4, 4)), "either by ratio= or by rows="),
    (lambda: ops.gaussian(jax.random.key(0), (4, 4), rows=17, orthonormal=True), "1 to 16 orthonormal rows"),
    (lambda: ops.BlockSampling(jnp.ones((3, 8)), (4, 4), 2), "items of 8 elements"),
    (lambda: ops.Blockwise(ops.DCT((4,)), (4, 4)), "as many axes"),
    (lambda: ops.Downsampling((8, 8), 0.5), "at least 1"),
    (lambda: ops.Downsampling((8, 8), (2, 2, 2)), "one for each of the axes"),
    (lambda: ops.Downsampling((8, 8), 2, "box"), "kernel is one of"),
    (lambda: ops.Downsampling.to_shape((8, 8), (4,)), "as many axes"),
    (lambda: ops.UndecimatedWavelet((8, 8), "db99"), "unknown wavelet"),
    (lambda: ops.parseval_frame(ops.DCT((4, 4)), ops.PixelSampling(jnp.ones((4, 4)))), "not known to be one"),
    (lambda: ops.Blur(jnp.ones(3), (8, 8)), "has 2 axes"),
    (lambda: ops.Blur(jnp.ones((3, 3)), (8, 8), "wrap"), "boundary is one of"),
    (lambda: ops.Blur(1j * jnp.ones((3, 3)), (8, 8)), "real"),
    (lambda: ops.SubsampledFourier(jnp.ones(5)), "at least 2 axes"),
    (lambda: ops.SubsampledFourier(1j * jnp.ones((5, 5))), "real"),
    (lambda: ops.gaussian_kernel(-1.0), "not negative"),
    (lambda: ops.gaussian_kernel((1.0,), 2), "one for each of 2 axes"),
    (lambda: ops.DCT((8, 8))(jnp.ones((8, 7))), "trailing axes are"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_errors_say_what_is_wrong(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_real_fourier_refuses_complex_items() -> None:
    with pytest.raises(TypeError, match="real=False"):
        ops.Fourier((4, 4))(1j * jnp.ones((4, 4)))
