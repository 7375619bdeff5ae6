"""Problems, the one verb `solve`, and an algorithm a file."""

from emjax.solvers.admm import ADMM
from emjax.solvers.condat_vu import CondatVu
from emjax.solvers.douglas_rachford import DouglasRachford
from emjax.solvers.fista import FISTA
from emjax.solvers.gradients import Implicit, OneStep, Unrolled
from emjax.solvers.loop import History, Solver, Status
from emjax.solvers.pareto import ParetoRoot
from emjax.solvers.pcg import PCG
from emjax.solvers.pdhg import PDHG
from emjax.solvers.plug_and_play import HQS, PnPADMM, PnPPGD
from emjax.solvers.problem import TGV, TV, Problem, Term
from emjax.solvers.red import RED
from emjax.solvers.solve import Solution, choose, solve

__all__ = [
    "ADMM",
    "FISTA",
    "HQS",
    "PCG",
    "PDHG",
    "RED",
    "TGV",
    "TV",
    "CondatVu",
    "DouglasRachford",
    "History",
    "Implicit",
    "OneStep",
    "ParetoRoot",
    "PnPADMM",
    "PnPPGD",
    "Problem",
    "Solution",
    "Solver",
    "Status",
    "Term",
    "Unrolled",
    "choose",
    "solve",
]
