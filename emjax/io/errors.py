"""The one exception of `emjax.io`, and plain words for what an operating system refuses."""

import errno

_PLAIN = {
    errno.ENOSPC: "the disk is full; free some space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space or write elsewhere",
    errno.EFBIG: "the file is larger than this disk or account allows; write elsewhere",
    errno.EACCES: "permission denied; check the rights of the file and of its folder",
    errno.EPERM: "permission denied; check the rights of the file and of its folder",
    errno.EROFS: "the disk is read-only; write elsewhere",
    errno.ENOENT: "no such file or folder; check the name, or make the folder first",
    errno.ENOTDIR: "a part of the path is a file, not a folder; check the name",
    errno.EISDIR: "this is a folder; give the name of a file",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EIO: "the disk or the network drive reports an error; try another one",
}


class ImageError(ValueError):
    """An image file or an image array that cannot be used.

    The message is one line: what was given, what was expected, how to mend it.
    """


def plain(error: OSError) -> str:
    """Return what went wrong, and how to mend it, for an `OSError` of the operating system."""
    if error.errno in _PLAIN:
        return _PLAIN[error.errno]
    # NumPy's tofile raises an OSError without a number ("n requested and m written") when a disk fills up
    return " ".join((error.strerror or str(error) or type(error).__name__).split())
