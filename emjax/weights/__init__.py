"""Weights from the data: certified paths of one problem along its weight, and the rules that choose a point of them.

    p = path(lambda w: Problem(data, TV(w)), jnp.geomspace(0.1, 1e-3, 20))       20 solves in one program
    l_curve(p).weight,  discrepancy(p, power).weight                             rules of a path
    held_out(build, data, thetas).weight,  sure(...).weight,  gsure(...).weight  rules that solve for themselves

All are pure. Under `jax.jit` they are compiled once; outside of it at every call, as `build` is a new function then.
"""

from emjax.weights.path import Build, Path, path
from emjax.weights.risk import gsure, held_out, pseudo_inverse, sure
from emjax.weights.rules import Choice, discrepancy, l_curve, parabola

__all__ = [
    "Build",
    "Choice",
    "Path",
    "discrepancy",
    "gsure",
    "held_out",
    "l_curve",
    "parabola",
    "path",
    "pseudo_inverse",
    "sure",
]
