"""Microscope images on disk: TIFF with metadata, in and out. The only code of the package that touches files.

    scan = emjax.io.read("scan.tif")             # image in [0, 1], mask, pixel size, dwell time
    emjax.io.write("out.tif", x, like=scan)      # same type, scale and metadata; whole or not at all

NumPy arrays come in and go out. Everything that is wrong with a file is an `ImageError`.
"""

from emjax.io.atomic import atomic_path, check_writable
from emjax.io.errors import ImageError
from emjax.io.masks import fit_mask, mask_weights
from emjax.io.metadata import Metadata
from emjax.io.scan import Scan
from emjax.io.tiff import read, read_mask, write

__all__ = [
    "ImageError",
    "Metadata",
    "Scan",
    "atomic_path",
    "check_writable",
    "fit_mask",
    "mask_weights",
    "read",
    "read_mask",
    "write",
]
