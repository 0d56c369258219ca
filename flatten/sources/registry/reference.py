"""References to images in registries: ``[HOST[:PORT]/]NAME[:TAG][@DIGEST]``.

Reference: the grammar of distribution/reference (v0.6), which docker and containers
libraries use, with their defaults for Docker Hub.
"""

import re
from dataclasses import dataclass
from typing import Final

from ...errors import UsageError, quoted
from ..transport import is_http

DOCKER_HUB: Final = "docker.io"
_NAME: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*"
    r"[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class Reference:
    """An image in a registry.

    Attributes:
        host: The registry, with its port if one was given.
        repository: The name in it.
        tag: None if only a digest was given.
        digest: ``sha256:<hex>`` of the manifest or index, or None.
    """

    host: str
    repository: str
    tag: str | None
    digest: str | None

    def __str__(self) -> str:
        """Return the full name."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.host}/{self.repository}{tag}{digest}"

    @property
    def version(self) -> str:
        """What to ask the registry for: the digest, or else the tag."""
        return self.digest or self.tag or "latest"


def is_short(text: str) -> bool:
    """Return True if a name does not begin with the host of a registry.

    >>> is_short("alpine:3"), is_short("quay.io/a/b"), is_short("localhost/a")
    (True, False, False)
    """
    first, slash, _ = text.partition("/")
    named = "." in first or ":" in first or first == "localhost"
    return not slash or not (named or first != first.lower())


def parse(text: str) -> Reference:
    """Parse a name; without a host it is on Docker Hub, in ``library/`` if it is short.

    Raises:
        UsageError: The name is not valid.

    >>> str(parse("alpine")), str(parse("localhost:5000/a/b:1"))
    ('docker.io/library/alpine:latest', 'localhost:5000/a/b:1')
    """
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise UsageError(f"{quoted(text)}: not a sha256 digest after the @")
    host, path = DOCKER_HUB, name
    if not is_short(name):
        host, _, path = name.partition("/")
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = DOCKER_HUB
    path, colon, tag = path.partition(":")
    if host == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    valid = (
        _HOST.fullmatch(host)
        and is_http(f"https://{host}")
        and all(map(_NAME.fullmatch, path.split("/")))
        and len(path) <= _MAX_NAME
        and (not colon or _TAG.fullmatch(tag))
    )
    if not valid:
        raise UsageError(
            f"{quoted(text)} is not the name of an image; expected "
            "docker://[HOST[:PORT]/]NAME[:TAG][@DIGEST], the name in small letters"
        )
    return Reference(host, path, tag or (None if digest else "latest"), digest or None)
