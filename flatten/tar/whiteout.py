"""The AUFS spelling of removals, which layer tars use: all that knows of ``.wh.``.

=====================  ============================================  ==========
last name of a path    meaning                                       result
=====================  ============================================  ==========
``.wh..wh..opq``       the directory hides its lower children        OPAQUE
``.wh..wh.*``          AUFS bookkeeping, also as a directory         ASIDE
``.wh.``, ``.wh..``,   names nothing, or the directory itself        ValueError
``.wh...``
``.wh.x``              hides ``x`` of the layers below               HIDES
any other              an ordinary name, ``a.wh.b`` too              ORDINARY
=====================  ============================================  ==========

Reference: OCI image-spec layer.md, "Whiteouts"; moby pkg/archive/whiteouts.go.
"""

from typing import Final

MARK: Final = b".wh."
META: Final = b".wh..wh."
OPAQUE_MARK: Final = b".wh..wh..opq"
FUSE_OPAQUE_MARK: Final = b".wh..opq"
"""fuse-overlayfs's, on its disks only: in a layer tar it hides ``.opq``."""

ORDINARY: Final = 0
HIDES: Final = 1
OPAQUE: Final = 2
ASIDE: Final = 3


def classify(path: bytes) -> tuple[int, bytes]:
    """Say what a normalised path means, and which path it is about.

    Raises:
        ValueError: The mark names nothing; the text says so.

    >>> classify(b"a/.wh.b") == (HIDES, b"a/b")
    True
    >>> classify(b"a/.wh..wh..opq") == (OPAQUE, b"a")
    True
    >>> classify(b".wh..wh.plnk/12.34") == (ASIDE, b".wh..wh.plnk/12.34")
    True
    """
    parent, slash, name = path.rpartition(b"/")
    if any(part.startswith(META) for part in parent.split(b"/")):
        return ASIDE, path
    if name == OPAQUE_MARK:
        return _below_ordinary(OPAQUE, parent, parent)
    if name.startswith(META):
        return ASIDE, path
    if not is_mark(name):
        return _below_ordinary(ORDINARY, path, parent)
    hidden = name[len(MARK) :]
    if hidden in (b"", b".", b".."):
        raise ValueError("a whiteout that names nothing")
    return _below_ordinary(HIDES, parent + slash + hidden, parent)


def hiding(path: bytes) -> bytes:
    """Return the mark that hides ``path``.

    >>> hiding(b"a/b"), hiding(b"b")
    (b'a/.wh.b', b'.wh.b')
    """
    parent, slash, name = path.rpartition(b"/")
    return parent + slash + MARK + name


def emptying(path: bytes) -> bytes:
    """Return the mark that makes the directory ``path`` opaque.

    >>> emptying(b"a"), emptying(b"")
    (b'a/.wh..wh..opq', b'.wh..wh..opq')
    """
    return path + b"/" + OPAQUE_MARK if path else OPAQUE_MARK


def is_mark(name: bytes) -> bool:
    """Say whether a name is a whiteout's, which no tree may hold."""
    return name.startswith(MARK)


def _below_ordinary(meaning: int, path: bytes, parent: bytes) -> tuple[int, bytes]:
    """Refuse what lies below a whiteout: it could only be lost.

    The spec leaves it open; docker and umoci write a directory called ``.wh.x``.
    """
    if any(map(is_mark, parent.split(b"/"))):
        raise ValueError("an entry below a whiteout")
    return meaning, path
