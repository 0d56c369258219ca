"""Image names as engines and registries write them, in full and in short.

==================  =================================  ==================
name                in full                            in short
==================  =================================  ==================
``app``             ``docker.io/library/app:latest``   ``app:latest``
``us/app:1``        ``docker.io/us/app:1``             ``us/app:1``
``localhost/app``   ``localhost/app:latest``           as in full
``host:5000/a:1``   ``host:5000/a:1``                  as in full
==================  =================================  ==================

Reference: github.com/distribution/reference, regexp.go and normalize.go.
"""

import re
from typing import Final

_HUB: Final = "docker.io"
_OFFICIAL: Final = "library/"

_WORD: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST: Final = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
_NAME: Final = re.compile(rf"({_HOST}(?:/{_WORD})+)(?::(\w[\w.-]{{0,127}}))?", re.ASCII)
_IMAGE_ID: Final = re.compile("[0-9a-f]{64}")
_LONGEST: Final = 255  # characters of a name without its tag


def full_name(name: str) -> str | None:
    """Return a name with its registry and tag, or None if engines refuse it as a tag.

    A name with a digest and 64 hex digits, which would be an image id, are refused.

    >>> full_name("app"), full_name("us/app:1"), full_name("host:5000/a:1")
    ('docker.io/library/app:latest', 'docker.io/us/app:1', 'host:5000/a:1')
    >>> full_name("App:1"), full_name("a@sha256:0"), full_name("a:1:2")
    (None, None, None)
    """
    host, slash, rest = name.partition("/")
    if not slash or not (re.search("[.:A-Z]", host) or host == "localhost"):
        host, rest = _HUB, name
    if host in (_HUB, f"index.{_HUB}"):
        host, rest = _HUB, rest if "/" in rest else _OFFICIAL + rest
    found = _NAME.fullmatch(f"{host}/{rest}")
    if found is None or _IMAGE_ID.fullmatch(name):
        return None
    repository, tag = found.groups()
    return None if len(repository) > _LONGEST else f"{repository}:{tag or 'latest'}"


def short_name(full: str) -> str:
    """Return a full name as docker shows it.

    >>> short_name("docker.io/library/app:1"), short_name("localhost/app:1")
    ('app:1', 'localhost/app:1')
    """
    rest = full.removeprefix(f"{_HUB}/")
    inner = rest.removeprefix(_OFFICIAL)
    return inner if rest != full and "/" not in inner else rest
