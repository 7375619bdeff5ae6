"""The phantom keeps its promises: same seed same bits, truth that fits the image, EM-like statistics."""

import itertools

import numpy as np
import pytest

from emjax.acquisition import Organelle, Phantom, phantom

KINDS = ["neuropil", "axons"]
SHAPES = [(1, 1), (16, 16), (1, 33), (33, 1), (17, 40), (1, 20, 24), (7, 9, 11), (5, 1, 12), (12, 5, 1)]


@pytest.fixture(scope="module")
def neuropil() -> Phantom:
    return phantom((384, 400), seed=3)


@pytest.fixture(scope="module")
def axons() -> Phantom:
    return phantom((256, 256), seed=3, kind="axons")


@pytest.fixture(scope="module")
def volume() -> Phantom:
    return phantom((24, 96, 96), seed=5)


def same(a: Phantom, b: Phantom) -> bool:
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in ("image", "labels", "organelles"))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_has_the_promised_arrays(shape, kind):
    p = phantom(shape, seed=1, kind=kind)
    assert p.image.shape == p.labels.shape == p.organelles.shape == shape
    assert (p.image.dtype, p.labels.dtype, p.organelles.dtype) == (np.float32, np.uint16, np.uint8)
    assert np.isfinite(p.image).all() and p.image.min() >= 0 and p.image.max() <= 1
    assert np.isin(p.organelles, list(Organelle)).all()
    assert np.array_equal(p.labels == 0, p.organelles == Organelle.MEMBRANE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(48, 56), (6, 24, 24)])
def test_a_seed_fixes_every_bit_and_another_seed_changes_the_picture(shape, kind):
    first = phantom(shape, seed=7, kind=kind)
    assert same(first, phantom(shape, seed=7, kind=kind))
    assert same(first, phantom(list(shape), seed=np.int64(7), kind=kind))
    other = phantom(shape, seed=8, kind=kind)
    assert not np.array_equal(first.image, other.image)
    assert not np.array_equal(first.organelles, other.organelles)


def test_a_slice_and_a_volume_of_one_slice_are_the_same_picture():
    flat, deep = phantom((30, 40), seed=2), phantom((1, 30, 40), seed=2)
    assert np.array_equal(flat.image, deep.image[0]) and np.array_equal(flat.labels, deep.labels[0])


def test_labels_are_numbered_without_holes(neuropil, axons, volume):
    for p in (neuropil, axons, volume):
        assert np.array_equal(np.unique(p.labels), np.arange(p.labels.max() + 1))


def test_neuropil_holds_every_organelle_and_cells_of_very_different_size(neuropil):
    assert set(np.unique(neuropil.organelles)) >= set(Organelle) - {Organelle.MYELIN}  # a sheath is rare
    area = np.bincount(neuropil.labels.ravel())[1:]
    assert len(area) > 50
    assert np.quantile(area, 0.95) > 8 * np.quantile(area, 0.3)


def test_stain_is_dark_and_cytoplasm_is_not(neuropil, axons):
    for p in (neuropil, axons):
        cytoplasm = p.image[p.organelles == Organelle.NONE].mean()
        assert 0.5 < cytoplasm < 0.85
        assert p.image[p.organelles == Organelle.MITOCHONDRION].mean() < cytoplasm - 0.08
    assert axons.image[axons.organelles == Organelle.MYELIN].mean() < cytoplasm - 0.2
    assert neuropil.image[neuropil.organelles == Organelle.MEMBRANE].mean() < 0.4


def test_membranes_separate_the_cells(neuropil):
    labels = neuropil.labels.astype(int)
    for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        touching = (a != b) & (a > 0) & (b > 0)
        assert touching.mean() < 1e-3


def test_myelin_carries_the_label_of_its_axon(axons):
    wrapped = np.unique(axons.labels[axons.organelles == Organelle.MYELIN])
    lit = np.unique(axons.labels[axons.organelles == Organelle.NONE])
    big = np.flatnonzero(np.bincount(axons.labels.ravel()) > 500)
    inner = np.intersect1d(np.intersect1d(wrapped, lit), big)
    assert len(inner) > 0.8 * len(big[big > 0])


def test_bright_stain_is_the_negative():
    dark, bright = phantom((40, 40), seed=4), phantom((40, 40), seed=4, bright_stain=True)
    np.testing.assert_allclose(bright.image, 1 - dark.image, atol=1e-7)
    assert bright.image.dtype == np.float32 and np.array_equal(dark.labels, bright.labels)


def test_the_spectrum_falls_as_in_real_micrographs(neuropil, axons):
    for p in (neuropil, axons):
        side = min(p.image.shape)
        window = np.outer(np.hanning(side), np.hanning(side))
        power = np.abs(np.fft.fft2((p.image[:side, :side] - p.image.mean()) * window)) ** 2
        f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
        edges = np.geomspace(0.03, 0.3, 9)
        radial = [power[(f >= a) & (f < b)].mean() for a, b in itertools.pairwise(edges)]
        slope = np.polyfit(np.log(edges[1:] * edges[:-1]) / 2, np.log(radial), 1)[0]
        assert -4.5 < slope < -2.5
        assert power[f > 0.4].mean() < 1e-2 * power[(f > 0.2) & (f < 0.25)].mean()  # no noise floor


def test_blur_removes_detail():
    sharp, soft = (phantom((64, 64), seed=1, psf=s).image for s in (0.0, 2.0))
    assert np.abs(np.diff(soft)).mean() < 0.5 * np.abs(np.diff(sharp)).mean()


def test_a_volume_is_as_smooth_in_depth_as_in_the_plane(volume):
    v = volume.image
    depth, plane = correlation(v[1:], v[:-1]), correlation(v[:, 1:], v[:, :-1])
    assert abs(depth - plane) < 0.05
    assert correlation(v[0], v[-1]) < depth - 0.3
    assert (volume.labels[1:] == volume.labels[:-1]).mean() > 0.75


@pytest.mark.parametrize(("kind", "fine", "coarse"), [("neuropil", 4.0, 16.0), ("axons", 60.0, 200.0)])
def test_pixel_size_is_physical(kind, fine, coarse):
    few, many = (phantom((96, 96), seed=0, kind=kind, pixel_size=p) for p in (fine, coarse))
    assert many.labels.max() > 2 * few.labels.max()
    assert (few.pixel_size, many.pixel_size) == (fine, coarse)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (4,)}, r"shape is \(4,\); expected \(h, w\) or \(d, h, w\)"),
        ({"shape": (0, 5)}, "positive integers"),
        ({"shape": (5, -1)}, "positive integers"),
        ({"shape": (5, 2.5)}, "positive integers"),
        ({"shape": 5}, "shape is 5"),
        ({"shape": (2, 2, 2, 2)}, "expected"),
        ({"kind": "liver"}, "kind is 'liver'; expected one of 'neuropil', 'axons'"),
        ({"seed": -1}, "seed is -1; expected an integer"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"pixel_size": 0}, "drawn at 2 to 24 nm"),
        ({"pixel_size": float("nan")}, "drawn at"),
        ({"pixel_size": 8, "kind": "axons"}, "axons is drawn at 40 to 250 nm"),
        ({"psf": -1}, "psf is -1"),
    ],
)
def test_bad_arguments_say_what_was_expected(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        phantom(**{"shape": (8, 8), **arguments})
    assert "\n" not in str(error.value)
