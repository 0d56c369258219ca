"""Whiteouts as layer tars spell them (``.wh.``, from AUFS), parsed only here.

=====================  ============================================  ==========
last name of a path    meaning                                       result
=====================  ============================================  ==========
``.wh..wh..opq``       the directory hides its lower children        OPAQUE
``.wh..wh.*``          AUFS bookkeeping: files and directories       BOOKKEEPING
``.wh.``, ``.wh..``,   no name, or the directory itself              ValueError
``.wh...``
``.wh.x``              hides ``x`` in the layers below               HIDES
any other              an ordinary name, including ``a.wh.b``        ORDINARY
=====================  ============================================  ==========

Reference: OCI image-spec layer.md, "Whiteouts"; moby pkg/archive/whiteouts.go.
"""

from typing import Final

MARK: Final = b".wh."
META: Final = b".wh..wh."
OPAQUE_MARK: Final = b".wh..wh..opq"
FUSE_OPAQUE_MARK: Final = b".wh..opq"
"""fuse-overlayfs's opaque mark, only in its directories: in a tar it hides ``.opq``."""

ORDINARY: Final = 0
HIDES: Final = 1
OPAQUE: Final = 2
BOOKKEEPING: Final = 3


def classify(path: bytes) -> tuple[int, bytes]:
    """Return the meaning of a normalised path, and the path that it refers to.

    Raises:
        ValueError: The whiteout has no name after ``.wh.``.

    >>> classify(b"a/.wh.b") == (HIDES, b"a/b")
    True
    >>> classify(b"a/.wh..wh..opq") == (OPAQUE, b"a")
    True
    >>> classify(b".wh..wh.plnk/12.34") == (BOOKKEEPING, b".wh..wh.plnk/12.34")
    True
    """
    parent, slash, name = path.rpartition(b"/")
    if any(part.startswith(META) for part in parent.split(b"/")):
        return BOOKKEEPING, path
    if name == OPAQUE_MARK:
        return _below_ordinary(OPAQUE, parent, parent)
    if name.startswith(META):
        return BOOKKEEPING, path
    if not is_mark(name):
        return _below_ordinary(ORDINARY, path, parent)
    hidden = name[len(MARK) :]
    if hidden in (b"", b".", b".."):
        raise ValueError("a whiteout that names nothing")
    return _below_ordinary(HIDES, parent + slash + hidden, parent)


def hiding(path: bytes) -> bytes:
    """Return the path of the whiteout that hides ``path``.

    >>> hiding(b"a/b"), hiding(b"b")
    (b'a/.wh.b', b'.wh.b')
    """
    parent, slash, name = path.rpartition(b"/")
    return parent + slash + MARK + name


def emptying(path: bytes) -> bytes:
    """Return the path of the mark that makes the directory ``path`` opaque.

    >>> emptying(b"a"), emptying(b"")
    (b'a/.wh..wh..opq', b'.wh..wh..opq')
    """
    return path + b"/" + OPAQUE_MARK if path else OPAQUE_MARK


def is_mark(name: bytes) -> bool:
    """Return True if a name is a whiteout's, which no tree may contain."""
    return name.startswith(MARK)


def _below_ordinary(meaning: int, path: bytes, parent: bytes) -> tuple[int, bytes]:
    """Refuse an entry below a whiteout, which could only be lost.

    The spec does not say; docker and umoci write a directory called ``.wh.x``.
    """
    if any(map(is_mark, parent.split(b"/"))):
        raise ValueError("an entry below a whiteout")
    return meaning, path
