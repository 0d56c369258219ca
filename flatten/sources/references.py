"""How an image is named: ``[KIND:]PATH[#NAME]``, and the spellings of skopeo.

================================  ==================================================
``docker://NAME``                 in a registry (``registry/reference`` parses NAME)
``docker-daemon:NAME``,           in a running engine
``podman:NAME``
``containers-storage:NAME``       in this user's store of podman
``docker-root:``, ``containerd:`` in the usual data directory; ``#NAME`` may follow
``URL[#NAME]``                    an archive on a web server or in a bucket
``oci:PATH:TAG``                  the same as ``oci:PATH#TAG``; also for oci-archive and
                                  docker-archive
================================  ==================================================

A path that exists is always taken as a path.
"""

import os
import re
from typing import Final

REGISTRY: Final = "docker"
"""The kind of ``docker://`` references."""

DAEMONS: Final = ("docker-daemon", "podman")
"""Kinds of images in running engines."""

KINDS: Final = {
    "docker-archive": "docker_archive",
    "dir": "skopeo_dir",
    "oci-archive": "oci_archive",
    "oci": "oci_layout",
    "docker-root": "engines.docker_root",
    "graph": "engines.docker_graph",
    "containers-storage": "engines.containers_storage",
    "containerd": "engines.containerd",
}
"""Each kind of archive and directory, as skopeo spells it if it has it; its module.

They are tried in this order: an archive that is both docker's and OCI's is docker's.
"""

_TAGGED: Final = ("docker-archive", "oci-archive", "oci")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.")
_IMAGE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._/:@-]*")
_SUFFIX: Final = re.compile(r"\.[a-z0-9]+")


def parse_reference(reference: str) -> tuple[str | None, str, str | None]:
    """Split a reference into kind, path and image name.

    The path is a URL for images behind one, an image's name for registries and running
    engines, and "" for the usual data directory of an engine.

    >>> parse_reference("docker-archive:a/b.tar#alpine:3.20")
    ('docker-archive', 'a/b.tar', 'alpine:3.20')
    >>> parse_reference("-#app:1")
    (None, '-', 'app:1')
    >>> parse_reference("docker://alpine:3.20")
    ('docker', 'alpine:3.20', None)
    >>> parse_reference("https://example.org/a.tar#app:1")
    (None, 'https://example.org/a.tar', 'app:1')
    >>> parse_reference("containers-storage:alpine:3.20")
    ('containers-storage', '', 'alpine:3.20')
    """
    if os.path.lexists(reference):
        return None, reference, None
    kind: str | None
    kind, colon, rest = reference.partition(":")
    if not colon or kind not in (REGISTRY, *DAEMONS, *KINDS):
        kind, rest = None, reference
    elif kind == REGISTRY:
        rest = rest.removeprefix("//")
    path, mark, after = rest.partition("#")
    name = after if mark else None
    if kind in (REGISTRY, *DAEMONS) or is_url(rest):
        return kind, path, name
    ends = "#:" if kind in _TAGGED else "#"
    marks = [at for at, character in enumerate(rest) if character in ends]
    for stop in (len(rest), *marks):
        if rest[:stop] == "-" or os.path.lexists(rest[:stop]):
            return kind, rest[:stop], rest[stop + 1 :] if stop < len(rest) else None
    if kind == "containers-storage" and path and name is None and path[0] not in "./":
        return kind, "", path
    return kind, path, name


def is_url(path: str) -> bool:
    """Return True if a path is a URL, and not that of a file.

    >>> is_url("https://example.org/a.tar"), is_url("oci:a//b")
    (True, False)
    """
    return _URL.match(path) is not None and not os.path.lexists(path)


def registry_hint(path: str) -> str:
    """Return what to add to the message that a path does not exist.

    >>> registry_hint("alpine:3")
    '; an image in a registry is named docker://alpine:3'
    >>> registry_hint("a.tar")
    ''
    """
    last = path.rpartition("/")[2]
    is_name = _IMAGE_NAME.fullmatch(path) and (":" in last or not _SUFFIX.search(last))
    if not is_name:
        return ""
    return f"; an image in a registry is named {REGISTRY}://{path}"
