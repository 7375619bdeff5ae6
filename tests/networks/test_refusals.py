"""What does not fit is refused where it comes in, with words that help; and what LISTA begins with."""

import json
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from network_registry import CASES, measured, network, operator, rows

from emjax.networks import LISTA, build
from emjax.operators import Dense, Fourier, Identity, PixelSampling
from emjax.reconstructors import Learned

PIXELS = PixelSampling(np.ones((6, 5), "f4"))
VOLUME = Identity((4, 4, 4))
COMPLEX = Fourier((6, 5), real=False)

REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "unknown kind": (lambda: build("resnet"), ValueError, "unknown network 'resnet'; there are deep-inverse, "),
    "unknown setting": (lambda: build("modl", {"depht": 3}), TypeError, "modl has no setting depht; it has phases, "),
    "posterior": (lambda: build("deep-inverse", {"posterior": True}), ValueError, "takes skip = true and start"),
    "start": (lambda: build("deep-inverse", {"start": "zero"}), ValueError, "unknown start 'zero'; there are backproj"),
    "field": (lambda: build("ista-net", {"field": [0.5, 1.0]}), ValueError, "a field is (mean, white, level"),
    "phases": (lambda: build("ista-net", {"phases": 0}), ValueError, "1 or more phases of 2 or more channels"),
    "modl": (lambda: build("modl", {"steps": 0}), ValueError, "1 or more phases and steps, got 10 and 0"),
    "lista": (lambda: build("lista", {"m": 0, "n": 3}), ValueError, "m, n and layers of 1 or more"),
    "memory": (lambda: build("learned-primal-dual", {"memory": 0}), ValueError, "are 1 or more, got 10, 32 and 0"),
    "dual": (lambda: build("learned-primal-dual", {"dual": "fan"}), ValueError, "unknown dual 'fan'; there are image"),
    "dncnn": (lambda: build("dncnn", {"depth": 1}), ValueError, "width >= 1 and depth >= 2"),
    "unshuffle": (lambda: build("scan", {"unshuffle": 3}), ValueError, "unshuffle divides 4, got 3"),
    "fewer than none": (lambda: build("scan", {"field_steps": -1}), ValueError, "field_steps of a scan network counts"),
    "half a block": (lambda: build("scan", {"encoder": (0, 1, 1.5)}), TypeError, "a whole number, got (0, 1, 1.5)"),
    "a text": (lambda: build("modl", {"steps": "3"}), TypeError, "modl: steps is a whole number, got '3'"),
    "no channels": (lambda: build("scan", {"widths": (8, 0, 8)}), ValueError, "whole numbers, 1 or more, got (8, 0"),
    "no block": (lambda: build("scan", {"unshuffle": 0}), ValueError, "whole numbers, 1 or more, got (0,)"),
    "levels": (lambda: build("scan", {"decoder": (1,)}), ValueError, "3 counts of encoder blocks and 2 of"),
    "no operator": (lambda: network("modl")(jnp.zeros(3), np.ones(3)), TypeError, "MoDL(y, A) takes an operator"),
    "shape": (lambda: network("ista-net")(jnp.zeros((6, 4)), PIXELS), ValueError, "have shape (6, 4), but"),
    "batch": (
        lambda: network("scan")(jnp.zeros((3, 6, 5)), PixelSampling(np.ones((2, 6, 5)))), ValueError, "do not fit"
    ),
    "volume": (lambda: network("deep-inverse")(jnp.zeros((4, 4, 4)), VOLUME), ValueError, "recovers real images (h, w"),
    "complex images": (lambda: network("modl")(jnp.zeros((6, 5)), COMPLEX), ValueError, "recovers real images (h, w)"),
    "no matrix": (
        lambda: network("ista-net-plus")(jnp.zeros((6, 5)), PIXELS), ValueError, "For pixel scans take scan-compact or"
    ),
    "no image of measurements": (
        lambda: network("primal-dual")(measured("modl"), operator("blocks")), ValueError, "with dual='pointwise'"
    ),
    "complex measurements": (
        lambda: network("primal-dual")(jnp.zeros((6, 5)), Fourier((6, 5))), ValueError, "takes real measurements"
    ),
    "complex measurements of a real operator": (
        lambda: network("scan")(jnp.zeros((6, 5), complex), PIXELS), TypeError, "makes real measurements, got complex"
    ),
    "another matrix": (
        lambda: network("lista")(jnp.zeros((6, 5)), PIXELS), ValueError, "takes 12 measurements of 20 elements"
    ),
    "not a scan": (lambda: network("scan")(measured("modl"), operator("blocks")), ValueError, "takes PixelSampling of"),
    "a prior": (lambda: network("vae")(jnp.zeros((6, 5)), PIXELS), TypeError, "reconstructors.Generative(network)"),
    "no network": (lambda: Learned(3), TypeError, "Learned takes a network"),
    "a class": (lambda: Learned(LISTA), TypeError, "Learned takes a network"),
    "a batch of matrices": (lambda: LISTA.from_operator(Dense(np.ones((2, 3, 4)))), ValueError, "with batch axes"),
    "weight": (lambda: LISTA.from_operator(Dense(np.ones((3, 4))), weight=-1), ValueError, "0 or more, got -1"),
    "complex matrix": (lambda: LISTA.from_operator(COMPLEX), ValueError, "LISTA takes real vectors"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    make, error, words = REFUSED[name]
    with pytest.raises(error, match=re.escape(words)):
        make()


@pytest.mark.parametrize("tied", [True, False])
def test_lista_begins_as_ista(tied: bool) -> None:
    matrix, weight = rows(12, 20), 0.05
    A = Dense(matrix)
    y = measured("lista")
    found = LISTA.from_operator(A, layers=5, tied=tied, weight=weight)
    assert found.settings == {"m": 12, "n": 20, "layers": 5, "tied": tied}
    phi = matrix.astype(np.float64)
    lipschitz = np.linalg.norm(phi, 2) ** 2
    x = np.zeros((20, len(y)))
    for _ in range(5):
        v = x - phi.T @ (phi @ x - np.asarray(y).T) / lipschitz
        x = np.sign(v) * np.maximum(np.abs(v) - weight / lipschitz, 0)
    np.testing.assert_allclose(found(y, A), x.T, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_settings_from_json_build_it_again(name: str) -> None:
    found = network(name)
    settings = json.loads(json.dumps(found.settings))
    assert nnx.eval_shape(lambda: build(found.kind, settings)).settings == found.settings


def test_learned_is_the_network() -> None:
    found, y, A = network("lista"), measured("lista"), operator("matrix")
    np.testing.assert_allclose(Learned(found)(y, A), found(y, A), atol=1e-5)
    assert Learned(found).fit(y, A).network.settings == found.settings
