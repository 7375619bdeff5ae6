"""Does every solver find what independent implementations find?

Twenty random problems each, in float64. Convex problems: the objective against scikit-learn (LASSO), SPGL1 (basis
pursuit denoising and the l1 ball), NumPy (quadratic ones), or CVXPY with Clarabel (all else), relative to it; it may be
lower, since those stop at tolerances of their own, but not by more than the bar. Greedy methods: the support, and the
values, against scikit-learn (OMP) or the published algorithm in a few lines of NumPy. Plug-and-play, counts, AMP and
D-AMP step by step have theirs, twenty problems each, in the tests. Undamped VAMP circles on some problems: it takes
the first twenty on which it comes to rest, and the report tells how many it passed over.

    python benchmarks/references.py -o benchmarks/results/references.json [--quick] [--only TGV]

`--only` runs the comparisons whose names hold these words, and keeps the others of the JSON. Needs the extra `bench`.
Exits with 1 where a difference exceeds 1e-5 or a support differs.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cvxpy as cp
import jax
import numpy as np
import spgl1
from sklearn.linear_model import Lasso as SklearnLasso
from sklearn.linear_model import OrthogonalMatchingPursuit

from emjax import L1, TGV, TV, Box, L1Ball, L2Ball, LeastSquares, Problem, Quadratic, Term, solve
from emjax.operators import DCT, Dense, PixelSampling
from emjax.reconstructors import AMP, HTP, IHT, OMP, VAMP, BasisPursuit, CoSaMP, Lasso, ReweightedL1, SoftThreshold
from emjax.solvers import ADMM, FISTA, PCG, PDHG, CondatVu, DouglasRachford, ParetoRoot

BAR = 1e-5
TGV_WEIGHT, TGV_RATIO = 0.05, 0.7
CURVATURE = np.geomspace(0.01, 10, 64).reshape(8, 8)
M, N, K = 40, 80, 6


class Draw:
    """A matrix, a sparse signal, noise, and an image with a mask."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = np.random.default_rng([7, seed])
        self.matrix = rng.standard_normal((M, N)) / M**0.5
        self.x = np.zeros(N)
        self.x[rng.permutation(N)[:K]] = rng.choice([-1, 1], K) * (1 + rng.random(K))
        self.noise = 0.02 * rng.standard_normal(M)
        self.y = self.matrix @ self.x + self.noise
        self.eps = float(np.linalg.norm(self.noise))
        self.weight = 0.1 * float(np.abs(self.matrix.T @ self.y).max())
        self.tau = 0.7 * float(np.abs(self.x).sum())
        self.mask = (rng.random((8, 8)) < 0.6).astype(float)
        self.image = np.kron(rng.random((2, 2)), np.ones((4, 4))) + 0.05 * rng.standard_normal((8, 8))


def stacked(draws: list[Draw], field: str) -> np.ndarray:
    return np.stack([np.asarray(getattr(d, field)) for d in draws])


def second_order(mask: np.ndarray, y: np.ndarray) -> Problem:
    return Problem(LeastSquares(PixelSampling(mask), y), TGV(TGV_WEIGHT, TGV_RATIO), Box(0, 1))


# The references: NumPy, scikit-learn, SPGL1, CVXPY.


def clarabel(objective: Any, constraints: tuple[Any, ...] = ()) -> float:
    problem = cp.Problem(cp.Minimize(objective), list(constraints))
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return float(problem.value)


def penalised(d: Draw, x: Any, weight: Any = None) -> float:
    w = d.weight if weight is None else weight
    return float(0.5 * np.sum((d.matrix @ x - d.y) ** 2) + np.sum(w * np.abs(x)))


def sklearn_lasso(matrix: np.ndarray, y: np.ndarray, weight: Any) -> np.ndarray:
    """With a weight an entry: the columns over their weights."""
    w = np.broadcast_to(weight, matrix.shape[1])
    model = SklearnLasso(alpha=1 / len(y), fit_intercept=False, tol=1e-14, max_iter=200_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its tolerance is below what rounding lets it see
        return np.asarray(model.fit(matrix / w, y).coef_) / w


def spgl1_denoising(d: Draw) -> float:
    x = spgl1.spg_bpdn(d.matrix, d.y, d.eps, opt_tol=1e-9, bp_tol=1e-9, iter_lim=20_000, verbosity=0)[0]
    return float(np.abs(x).sum())


def spgl1_ball(d: Draw) -> float:
    x = spgl1.spg_lasso(d.matrix, d.y, d.tau, opt_tol=1e-9, iter_lim=20_000, verbosity=0)[0]
    return float(0.5 * np.sum((d.matrix @ x - d.y) ** 2))


def cvx_denoising(d: Draw) -> float:
    x = cp.Variable(N)
    return clarabel(cp.norm1(x), (cp.norm(d.matrix @ x - d.y) <= d.eps,))


def cvx_pursuit(d: Draw) -> float:
    x = cp.Variable(N)
    return clarabel(cp.norm1(x), (d.matrix @ x == d.y,))


def cvx_ball(d: Draw) -> float:
    x = cp.Variable(N)
    return clarabel(0.5 * cp.sum_squares(d.matrix @ x - d.y), (cp.norm1(x) <= d.tau,))


def cvx_image(d: Draw) -> float:
    """Pixels, isotropic total variation, l1 of the DCT, a box."""
    x = cp.Variable((8, 8))
    down = cp.vstack([x[1:] - x[:-1], np.zeros((1, 8))])
    right = cp.hstack([x[:, 1:] - x[:, :-1], np.zeros((8, 1))])
    pairs = cp.vstack([cp.vec(down, order="C"), cp.vec(right, order="C")])
    C = np.asarray(DCT((8,))(np.eye(8))).T
    terms = 0.05 * cp.sum(cp.norm(pairs, 2, axis=0)) + 0.02 * cp.sum(cp.abs(C @ x @ C.T))
    data = 0.5 * cp.sum_squares(cp.multiply(d.mask, x - d.image))
    return clarabel(data + terms, (x >= 0, x <= 1))


def cvx_second_order(d: Draw) -> float:
    """Pixels, total generalised variation, a box: an image and a field, the norms over explicit matrices."""
    terms = second_order(d.mask, d.mask * d.image).terms
    image = np.eye(3 * 64).reshape(-1, 3, 8, 8)
    z, parts = cp.Variable(3 * 64), []
    for term, weight in zip(terms, (TGV_WEIGHT, TGV_WEIGHT * TGV_RATIO), strict=True):
        K = np.asarray(jax.vmap(term.K.forward)(image)).reshape(3 * 64, -1).T
        parts.append(weight * cp.sum(cp.norm(cp.reshape(K @ z, (K.shape[0] // 64, 64), order="C"), 2, axis=0)))
    x = z[:64]
    data = 0.5 * cp.sum_squares(cp.multiply(d.mask.ravel(), x - d.image.ravel()))
    return clarabel(data + parts[0] + parts[1], (x >= 0, x <= 1))


def numpy_field(d: Draw) -> float:
    """Pixels and a quadratic prior of the DCT, by the normal equations."""
    C = np.asarray(DCT((8, 8))(np.eye(64).reshape(-1, 8, 8))).reshape(64, 64).T
    prior, y = C.T * CURVATURE.ravel() @ C, (d.mask * d.image).ravel()
    x = np.linalg.solve(np.diag(d.mask.ravel()) + prior, y)
    return float(0.5 * np.sum(d.mask.ravel() * (x - d.image.ravel()) ** 2) + 0.5 * x @ prior @ x)


def reweighted(d: Draw, inner: Callable[[np.ndarray], np.ndarray], rounds: int, offset: float) -> np.ndarray:
    factors, scale, x = np.ones(N), None, np.zeros(N)
    for _ in range(rounds + 1):
        x = inner(factors)
        scale = offset * np.abs(x).max() if scale is None else scale
        factors = scale / (np.abs(x) + scale)
    return x


def cvx_weighted(d: Draw, factors: np.ndarray) -> np.ndarray:
    x = cp.Variable(N)
    clarabel(factors @ cp.abs(x), (cp.norm(d.matrix @ x - d.y) <= d.eps,))
    return np.asarray(x.value)


def best(c: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-np.abs(c), kind="stable")[:k]


def fitted(d: Draw, support: np.ndarray) -> np.ndarray:
    c = np.zeros(N)
    c[support] = np.linalg.lstsq(d.matrix[:, support], d.y, rcond=None)[0]
    return c


def cosamp(d: Draw) -> np.ndarray:
    """Needell, Tropp 2009, algorithm 1; until the residual no longer falls, the last better guess refitted."""
    c, error = np.zeros(N), np.inf
    while True:
        proxy = d.matrix.T @ (d.y - d.matrix @ c)
        merged = np.union1d(best(proxy, 2 * K), np.flatnonzero(c))
        b = fitted(d, merged)
        new = np.where(np.isin(np.arange(N), best(b, K)), b, 0)
        if np.linalg.norm(d.y - d.matrix @ new) >= error * (1 - 1e-12):
            return fitted(d, np.flatnonzero(c))
        c, error = new, np.linalg.norm(d.y - d.matrix @ new)


def first_support(d: Draw, c: np.ndarray, g: np.ndarray) -> np.ndarray:
    return np.flatnonzero(c) if np.any(c) else best(g, K)


def step_length(d: Draw, g: np.ndarray, support: np.ndarray) -> float:
    return float(np.sum(g[support] ** 2) / np.sum((d.matrix[:, support] @ g[support]) ** 2))


def htp(d: Draw) -> np.ndarray:
    """Foucart 2011 for columns of norm 1 on average, until the support stays; the best guess counts."""
    c = found = np.zeros(N)
    norm = np.sqrt(np.mean(np.sum(d.matrix**2, 0)))
    for _ in range(100):
        support = best(norm * c + d.matrix.T @ (d.y - d.matrix @ c) / norm, K)
        stays = set(support) == set(np.flatnonzero(c))
        c = fitted(d, support)
        if np.linalg.norm(d.y - d.matrix @ c) < np.linalg.norm(d.y - d.matrix @ found):
            found = c
        if stays:
            break
    return found


def niht(d: Draw) -> np.ndarray:
    """Blumensath, Davies 2010, algorithm 1, then least squares on the support."""
    c = np.zeros(N)
    for _ in range(3000):
        g = d.matrix.T @ (d.y - d.matrix @ c)
        support = first_support(d, c, g)
        mu = step_length(d, g, support)
        while True:
            v = c + mu * g
            new = np.where(np.isin(np.arange(N), best(v, K)), v, 0)
            move = new - c
            if set(np.flatnonzero(new)) == set(support):
                break
            if mu <= 0.99 * np.sum(move**2) / np.sum((d.matrix @ move) ** 2):
                break
            mu *= 0.6
        if np.linalg.norm(move) <= 1e-15 * np.linalg.norm(new):
            break
        c = new
    return fitted(d, np.flatnonzero(c))


def matching_pursuit(d: Draw) -> np.ndarray:
    model = OrthogonalMatchingPursuit(n_nonzero_coefs=K, fit_intercept=False)
    norms = np.linalg.norm(d.matrix, axis=0)  # it takes columns as of one norm
    return np.asarray(model.fit(d.matrix / norms, d.y).coef_) / norms


# The comparisons.

Objectives = tuple[np.ndarray, Callable[[Draw], float]] | tuple[np.ndarray, Callable[[Draw], float], list[Draw]]


def convex(draws: list[Draw]) -> dict[str, Callable[[], Objectives]]:
    """What a solver reaches on every draw, and the reference; and the draws, where they are others."""
    A, y = Dense(stacked(draws, "matrix")), stacked(draws, "y")
    weight = stacked(draws, "weight")

    def optimum(problem: Problem, solver: Any, gap: float = 1e-9) -> np.ndarray:
        return np.asarray(solve(problem, solver, gap=gap, max_steps=200_000).objective)

    def lasso(solver: Any) -> Callable[[], Objectives]:
        problem = Problem(LeastSquares(A, y), L1(weight[:, None]))
        return lambda: (
            optimum(problem, solver),
            lambda d: penalised(d, sklearn_lasso(d.matrix, d.y, d.weight)),
        )

    def denoising(solver: Any, reference: Any) -> Callable[[], Objectives]:
        problem = Problem(L2Ball(A, y, stacked(draws, "eps")), L1(1.0))
        return lambda: (optimum(problem, solver, 1e-8), reference)

    def pursuit(solver: Any, gap: float) -> Callable[[], Objectives]:
        return lambda: (optimum(Problem(L2Ball(A, y, 0.0), L1(1.0)), solver, gap), cvx_pursuit)

    def ball(solver: Any, reference: Any) -> Callable[[], Objectives]:
        problem = Problem(LeastSquares(A, y), L1Ball(stacked(draws, "tau")))
        return lambda: (optimum(problem, solver), reference)

    def image(solver: Any) -> Callable[[], Objectives]:
        pixels = PixelSampling(stacked(draws, "mask"))
        data = LeastSquares(pixels, stacked(draws, "mask") * stacked(draws, "image"))
        problem = Problem(data, TV(0.05), Term(L1(0.02), DCT((8, 8))), Box(0, 1))
        return lambda: (optimum(problem, solver, 1e-8), cvx_image)

    def smooth() -> Objectives:
        problem = second_order(stacked(draws, "mask"), stacked(draws, "mask") * stacked(draws, "image"))
        return optimum(problem, PDHG(), 1e-6), cvx_second_order

    def field() -> Objectives:
        data = LeastSquares(PixelSampling(stacked(draws, "mask")), stacked(draws, "mask") * stacked(draws, "image"))
        return optimum(Problem(data, Quadratic(DCT((8, 8)), CURVATURE)), PCG(), 1e-12), numpy_field

    def answers(found: Any, objective: Callable[[Draw, np.ndarray], float], reference: Any) -> Callable[[], Objectives]:
        def run() -> Objectives:
            x = np.asarray(found())
            return np.array([objective(d, v) for d, v in zip(draws, x, strict=True)]), reference

        return run

    def fixed_point(
        method: Any, weights: Callable[[Any, Draw], Any], choose: Callable[..., list[Draw]] | None = None
    ) -> Callable[[], Objectives]:
        """Of message passing: the weights of its LASSO follow from where it ends."""

        def run() -> Objectives:
            own = draws if choose is None else choose(method, len(draws))
            ends = [weights(method, d) for d in own]
            values = np.array([penalised(d, x, w) for d, (x, w) in zip(own, ends, strict=True)])
            by_draw = {id(d): w for d, (_, w) in zip(own, ends, strict=True)}
            return values, lambda d: penalised(d, sklearn_lasso(d.matrix, d.y, by_draw[id(d)]), by_draw[id(d)]), own

        return run

    def l1(d: Draw, x: np.ndarray) -> float:
        return float(np.abs(x).sum())

    rounds, offset = 3, 0.1
    again = ReweightedL1(Lasso(weight, gap=1e-10, max_steps=50_000), rounds=rounds, offset=offset)
    constrained = BasisPursuit(stacked(draws, "eps"), solver=ParetoRoot(), gap=1e-9, max_steps=50_000)
    constrained_again = ReweightedL1(constrained, rounds=rounds, offset=offset)
    return {
        "LASSO, FISTA, scikit-learn": lasso(FISTA()),
        "LASSO, DouglasRachford, scikit-learn": lasso(DouglasRachford()),
        "LASSO, Lasso(), scikit-learn": answers(
            lambda: Lasso(weight, gap=1e-10, max_steps=50_000)(y, A),
            penalised,
            lambda d: penalised(d, sklearn_lasso(d.matrix, d.y, d.weight)),
        ),
        "l1 ball, FISTA, SPGL1": ball(FISTA(), spgl1_ball),
        "l1 ball, FISTA, CVXPY": ball(FISTA(), cvx_ball),
        "denoising, ParetoRoot, SPGL1": denoising(ParetoRoot(), spgl1_denoising),
        "denoising, ParetoRoot, CVXPY": denoising(ParetoRoot(), cvx_denoising),
        "denoising, PDHG, CVXPY": denoising(PDHG(), cvx_denoising),
        "denoising, PDHG(restarts=True), CVXPY": denoising(PDHG(restarts=True), cvx_denoising),
        "denoising, PDHG(preconditioned=True), CVXPY": denoising(PDHG(preconditioned=True), cvx_denoising),
        "denoising, BasisPursuit(), CVXPY": answers(lambda: constrained(y, A), l1, cvx_denoising),
        "basis pursuit, PDHG, CVXPY": pursuit(PDHG(), 1e-6),
        "basis pursuit, ParetoRoot, CVXPY": pursuit(ParetoRoot(), 1e-4),  # rounding, see there
        "reweighted LASSO, scikit-learn": answers(
            lambda: again(y, A),
            l1,
            lambda d: l1(d, reweighted(d, lambda f: sklearn_lasso(d.matrix, d.y, d.weight * f), rounds, offset)),
        ),
        "reweighted denoising, CVXPY": answers(
            lambda: constrained_again(y, A),
            l1,
            lambda d: l1(d, reweighted(d, lambda f: cvx_weighted(d, f), rounds, offset)),
        ),
        "TV, l1 and box, PDHG, CVXPY": image(PDHG()),
        "TV, l1 and box, PDHG(restarts=True), CVXPY": image(PDHG(restarts=True)),
        "TV, l1 and box, PDHG(preconditioned=True), CVXPY": image(PDHG(preconditioned=True)),
        "TV, l1 and box, ADMM, CVXPY": image(ADMM()),
        "TV, l1 and box, CondatVu, CVXPY": image(CondatVu()),
        "TGV and box, PDHG, CVXPY": smooth,
        "quadratic, PCG, NumPy": field,
        "AMP's fixed point, scikit-learn": fixed_point(AMP(SoftThreshold(2.0), iterations=1000), amp_weights),
        "AMP's fixed point, damped, scikit-learn": fixed_point(
            AMP(SoftThreshold(2.0), iterations=3000, damping=0.5), amp_weights
        ),
        "VAMP's fixed point, damped, scikit-learn": fixed_point(
            VAMP(SoftThreshold(2.0), iterations=2000, noise_sigma=0.05, damping=0.7), vamp_weights
        ),
        "VAMP's fixed point, where it comes to rest, scikit-learn": fixed_point(
            VAMP(SoftThreshold(2.0), iterations=2000, noise_sigma=0.05), vamp_weights, resting
        ),
    }


def amp_weights(method: Any, d: Draw) -> tuple[np.ndarray, np.ndarray]:
    """`alpha sigma (1 - k / m)`, times the norms of the columns, which AMP divides by."""
    x, trace = jax.jit(lambda y, A: method.trace(y, Dense(A)))(d.y, d.matrix)
    x = np.asarray(x)
    kept = np.sum(np.abs(x) > 1e-9)  # damped, what has to be zero only tends to it
    weight = 2.0 * float(trace.sigma[-1]) * (1 - kept / M)
    return x, weight * np.linalg.norm(d.matrix, axis=0)


def vamp_weights(method: Any, d: Draw) -> tuple[np.ndarray, np.ndarray]:
    """A fixed point has `A.H (y - A x) = weight sign x` on its support, and no more elsewhere."""
    x = np.asarray(method(d.y, Dense(d.matrix)))
    support = x != 0
    slope = np.abs(d.matrix.T @ (d.y - d.matrix @ x))[support]
    return x, np.full(N, slope.mean())


def resting(method: Any, count: int) -> list[Draw]:
    """The first draws on which the last step of a method moves nothing; undamped, it circles on some."""
    draws = [Draw(seed) for seed in range(2 * count)]
    A, y = Dense(stacked(draws, "matrix")), stacked(draws, "y")
    x, later = (np.asarray(dataclasses.replace(method, iterations=method.iterations + more)(y, A)) for more in (0, 1))
    rests = np.linalg.norm(later - x, axis=1) <= 1e-12 * np.linalg.norm(x, axis=1)
    chosen = [d for d, rest in zip(draws, rests, strict=True) if rest][:count]
    if len(chosen) < count:
        raise SystemExit(f"{method} comes to rest on {len(chosen)} of {len(draws)} problems: too few")
    return chosen


def greedy() -> dict[str, tuple[Any, Callable[[Draw], np.ndarray]]]:
    return {
        "OMP, scikit-learn": (OMP(K), matching_pursuit),
        "CoSaMP, NumPy": (CoSaMP(K), cosamp),
        "IHT, NumPy": (IHT(K, max_steps=3000), niht),
        "HTP, NumPy": (HTP(K), htp),
    }


def compare(count: int, only: str = "") -> list[dict[str, Any]]:
    draws = [Draw(seed) for seed in range(count)]
    rows = []
    for name, run in convex(draws).items():
        if only not in name:
            continue
        begin = time.perf_counter()
        found, reference, *own = run()
        chosen = own[0] if own else draws
        want = np.array([reference(d) for d in chosen])
        difference = np.abs(found - want) / np.abs(want)
        rows.append({"name": name, "problems": count, "largest_difference": float(difference.max())})
        if passed_over := max(d.seed for d in chosen) + 1 - len(chosen):
            rows[-1]["passed_over"] = passed_over
        rows[-1] |= {"met": bool(difference.max() <= BAR), "seconds": round(time.perf_counter() - begin, 1)}
        print(rows[-1], flush=True)
    A, y = Dense(stacked(draws, "matrix")), stacked(draws, "y")
    for name, (method, one) in greedy().items():
        if only not in name:
            continue
        found = np.asarray(method(y, A))
        want = np.stack([one(d) for d in draws])
        same = int(np.sum(np.all((found != 0) == (want != 0), 1)))
        apart = float(np.max(np.abs(found - want)))
        rows.append({"name": name, "problems": count, "same_support": same, "largest_difference": apart})
        rows[-1]["met"] = same == count and apart <= BAR
        print(rows[-1], flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--quick", action="store_true", help="three problems each")
    parser.add_argument("--only", default="", help="part of the names of the comparisons to run")
    arguments = parser.parse_args()
    with jax.enable_x64(True):
        rows = compare(3 if arguments.quick else 20, arguments.only)
    if arguments.only and arguments.output.exists():
        earlier = json.loads(arguments.output.read_text())["comparisons"]
        new = {row["name"]: row for row in rows}
        rows = [new.pop(row["name"], row) for row in earlier] + list(new.values())
    peers = {name: version(name) for name in ("clarabel", "cvxpy", "jax", "scikit-learn", "spgl1")}
    report = {"bar": BAR, "peers": peers, "cpus": os.cpu_count(), "comparisons": rows}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    beside = arguments.output.with_suffix(".tmp")
    beside.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(beside, arguments.output)
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
