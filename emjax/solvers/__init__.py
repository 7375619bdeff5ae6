"""Problems, the one verb `solve`, and an algorithm a file."""

from emjax.solvers.admm import ADMM
from emjax.solvers.condat_vu import CondatVu
from emjax.solvers.fista import FISTA
from emjax.solvers.loop import History, Solver, Status
from emjax.solvers.pareto import ParetoRoot
from emjax.solvers.pcg import PCG
from emjax.solvers.pdhg import PDHG
from emjax.solvers.problem import TGV, TV, Problem, Term
from emjax.solvers.solve import Solution, Unrolled, choose, solve

__all__ = [
    "ADMM",
    "FISTA",
    "PCG",
    "PDHG",
    "TGV",
    "TV",
    "CondatVu",
    "History",
    "ParetoRoot",
    "Problem",
    "Solution",
    "Solver",
    "Status",
    "Term",
    "Unrolled",
    "choose",
    "solve",
]
