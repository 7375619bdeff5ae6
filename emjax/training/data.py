"""Images for training: read once, kept on the device as one flat array of 8- or 16-bit grey values.

Images of any sizes lie one after the other; a patch is a few slices of the flat array. 8 bits hold what most
microscopes wrote; 16 bits are used for all images as soon as one file has more. Sets with `scan` become sparse, noisy
scans, of which nothing but the measured pixels reaches the device: float16, in units of the full grey value, and NaN
where nothing was measured.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax._pytree import pytree_dataclass, static

if TYPE_CHECKING:
    from emjax.training.recipe import Data, Scanned, Source

LIMIT = 2**31 - 1  # places in the flat array are 32-bit integers


@pytree_dataclass
class Images:
    """Images of any sizes in one array. `cumulative` are the summed probabilities with which they are drawn."""

    pixels: Any  # (total,) uint8, uint16, or float16 with NaN where nothing was measured
    offset: Any  # (images,) where each begins
    height: Any
    width: Any
    cumulative: Any
    white: float = static()  # the grey value that means 1

    @staticmethod
    def pack(images: Sequence[np.ndarray], weights: Iterable[float] | None = None) -> "Images":
        """Images `(h, w)` of one type, each drawn in proportion to its weight times its pixels.

        The type is uint8 or uint16, or float16 for scans (see `scanned`).

        Raises ValueError: no images, other types, more than 2^31 - 1 pixels.
        """
        kinds = {image.dtype for image in images}
        if len(kinds) != 1 or not kinds <= {np.dtype(t) for t in (np.uint8, np.uint16, np.float16)}:
            given = ", ".join(sorted(map(str, kinds))) or "none"
            raise ValueError(f"expected images that are all uint8, all uint16 or all float16, got {given}")
        sizes = np.array([image.size for image in images])
        if sizes.sum() > LIMIT:
            raise ValueError(f"the images have {sizes.sum():,} pixels together, more than {LIMIT:,}; take fewer slices")
        shares = sizes * (np.ones(len(images)) if weights is None else np.fromiter(weights, float))
        pixels = np.concatenate([image.ravel() for image in images])
        return Images(
            jnp.asarray(pixels),
            jnp.asarray(np.cumsum(sizes) - sizes, jnp.int32),
            jnp.asarray([image.shape[0] for image in images], jnp.int32),
            jnp.asarray([image.shape[1] for image in images], jnp.int32),
            jnp.asarray(np.cumsum(shares) / shares.sum(), jnp.float32),
            white=_white(pixels.dtype),
        )


def read_images(data: "Data", folder: Path | None, cache: Path | None = None) -> tuple[Images, Images]:
    """The training and the validation images of a recipe, on the device.

    Args:
        data: the [data] table. folder: where its files lie. cache: an .npz file; read instead of the files if it
            exists, written if not.

    Raises ValueError naming the set: no files, files that cannot be read, images smaller than the crop; or a cache that
    was made for other sets.
    """
    mark = fingerprint(data)
    if cache is not None and cache.exists():
        parts = _read_cache(cache, mark)
    else:
        parts = [_read_all(getattr(data, part), folder, part) for part in ("train", "validation")]
        if cache is not None:
            _write_cache(cache, mark, parts)
    packed = []
    crops = (data.crop, data.validation_crop or data.crop)
    for part, (images, members), crop in zip(("train", "validation"), parts, crops, strict=True):
        sources = getattr(data, part)
        for image, member in zip(images, members, strict=True):
            if min(image.shape) < crop:
                what = sources[member].files or "phantom"
                raise ValueError(
                    f"data.{part}[{member}] ({what}) has an image of {image.shape[0]} x {image.shape[1]} pixels, "
                    f"smaller than the crop of {crop}; take a smaller data.crop or leave the file out"
                )
        packed.append(Images.pack(_as_scans(images, members, sources), [sources[m].weight for m in members]))
    return packed[0], packed[1]


def scanned(image: np.ndarray, scan: "Scanned", number: int = 0) -> np.ndarray:
    """One scan of an image `(h, w)` of uint8 or uint16: float16, the noisy grey values of random pixels, NaN elsewhere.

    The pixels and their noise follow from the seed of `scan` and the `number` of the image in its set.
    """
    rng = np.random.default_rng([scan.seed, number])
    measured = rng.random(image.shape, np.float32) < scan.ratio
    found = np.full(image.shape, np.nan, np.float16)
    values = image[measured].astype(np.float32) / np.float32(_white(image.dtype))
    found[measured] = values + np.float32(scan.noise) * rng.standard_normal(values.size, np.float32)
    return found


def _as_scans(images: list[np.ndarray], members: list[int], sources: "Sequence[Source]") -> list[np.ndarray]:
    """The images as the sets want them: as they are, or as scans."""
    found = []
    for i, (image, member) in enumerate(zip(images, members, strict=True)):
        scan = sources[member].scan
        found.append(image if scan is None else scanned(image, scan, i - members.index(member)))
    return found


def _white(dtype: np.dtype) -> float:
    return 1.0 if dtype == np.float16 else float(np.iinfo(dtype).max)


def fingerprint(data: "Data") -> str:
    """A hash of what decides the images themselves: files, slices and phantoms, but not weights.

    Nor scans, which are made of the images after they were read: one cache serves recipes that differ in them.
    """
    what = {
        part: [(s.files, s.slices, s.rows, s.columns, s.phantom) for s in getattr(data, part)]
        for part in ("train", "validation")
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _read_all(sources: "Sequence[Source]", folder: Path | None, part: str) -> tuple[list[np.ndarray], list[int]]:
    images: list[np.ndarray] = []
    members: list[int] = []
    for i, source in enumerate(sources):
        where = f"data.{part}[{i}]"
        try:
            new = _phantoms(source.phantom) if source.phantom is not None else _files(source, folder)
        except (ValueError, TypeError) as err:
            raise ValueError(f"{where}: {err}") from err
        images += new
        members += [i] * len(new)
    if any(image.dtype == np.uint16 for image in images):
        images = [image if image.dtype == np.uint16 else image.astype(np.uint16) * np.uint16(257) for image in images]
    return images, members


def _files(source: "Source", folder: Path | None) -> list[np.ndarray]:
    from emjax import io

    if folder is None:
        raise ValueError(f"files = {source.files!r} lie in a folder; say which (--data)")
    assert source.files is not None
    try:
        paths = sorted(p for p in folder.glob(source.files) if p.is_file())
    except (ValueError, NotImplementedError) as err:  # empty, absolute, or "**" within a name
        raise ValueError(
            f"files = {source.files!r} is no name or glob relative to the data folder, such as 'set/*.tif' ({err})"
        ) from err
    if not paths:
        raise ValueError(f"files = {source.files!r}: no such file in {folder}")
    cut = tuple(_slice(getattr(source, key), key) for key in ("slices", "rows", "columns"))
    images: list[np.ndarray] = []
    for path in paths:
        scan = io.read(path, rgb="mean")
        if scan.mask is not None:
            raise ValueError(
                f"{path.name}: {np.mean(scan.mask == 0):.1%} of the pixels are NaN, which is not measured; a training "
                "takes whole images, and makes sparse scans of them itself (scan = {ratio = ...})"
            )
        stack = scan.image.reshape(-1, *scan.image.shape[-2:])[cut]
        if stack.size == 0:
            raise ValueError(f"{path.name}: slices, rows and columns leave nothing of the image {scan.image.shape}")
        bits = np.uint8 if scan.dtype == np.uint8 else np.uint16
        images += [np.rint(image * np.iinfo(bits).max).astype(bits) for image in stack]
    return images


def _slice(text: str | None, key: str) -> slice:
    try:
        numbers = [int(part) if part.strip() else None for part in (text or ":").split(":")]
        if not 2 <= len(numbers) <= 3 or numbers[2:] == [0]:
            raise ValueError
    except ValueError:
        raise ValueError(f'{key} = {text!r}; expected "start:stop" or "start:stop:step"') from None
    return slice(*numbers)


def _phantoms(table: dict) -> list[np.ndarray]:
    from emjax.acquisition import phantom
    from emjax.training.recipe import Phantoms

    settings = dataclasses.asdict(Phantoms.of(table, "phantom"))
    count, size, seed = (settings.pop(key) for key in ("count", "size", "seed"))
    images = [phantom((size, size), seed + i, **settings).image for i in range(count)]
    return [np.rint(255 * image).astype(np.uint8) for image in images]


def _write_cache(path: Path, mark: str, parts: Sequence[tuple[list[np.ndarray], list[int]]]) -> None:
    from emjax import io

    arrays: dict[str, Any] = {"fingerprint": np.array(mark)}
    for name, (images, members) in zip(("train", "validation"), parts, strict=True):
        arrays[f"{name}_pixels"] = np.concatenate([image.ravel() for image in images])
        arrays[f"{name}_shapes"] = np.array([image.shape for image in images], np.int32)
        arrays[f"{name}_members"] = np.array(members, np.int32)
    with io.atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def _read_cache(path: Path, mark: str) -> list[tuple[list[np.ndarray], list[int]]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        same = str(arrays["fingerprint"]) == mark
    except (OSError, ValueError, KeyError, EOFError) as err:
        raise ValueError(f"{path}: no cache of training images ({err}); remove it, and it is made anew") from err
    if not same:
        raise ValueError(f"{path}: this cache was made for other [data] sets; remove it, or give --cache another name")
    parts = []
    for name in ("train", "validation"):
        shapes = arrays[f"{name}_shapes"]
        ends = np.cumsum(shapes.prod(1, dtype=np.int64))[:-1]
        flat = np.split(arrays[f"{name}_pixels"], ends)
        images = [pixels.reshape(shape) for pixels, shape in zip(flat, shapes, strict=True)]
        parts.append((images, arrays[f"{name}_members"].tolist()))
    return parts


def to_devices(images: Images, sharding: Any) -> Images:
    """The same images as whole copies on every device of `sharding`."""
    return jax.device_put(images, sharding)
