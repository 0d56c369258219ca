"""How each registry is reached: registries.conf, certs.d, and the command's options.

Reference: containers-registries.conf(5), version 2; containers-certs.d(5), which docker
has too.
"""

import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ...errors import FormatError, SourceError, quoted, shown
from ...options import Access
from ..transport import Trust
from .reference import DOCKER_HUB, Reference, is_short, parse

_HUB_HOST: Final = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registry, or a mirror of one, that may have an image.

    Attributes:
        registry: Its name, under which credentials are kept.
        host: Where it is asked, with its port: its name, except for Docker Hub.
        repository: The image's name there.
        trust: Which certificates to trust and to show, and whether plain HTTP will do.
    """

    registry: str
    host: str
    repository: str
    trust: Trust


@dataclass(frozen=True, slots=True)
class Registries:
    """The contents of registries.conf and of the files beside it.

    Attributes:
        tables: The ``[[registry]]`` tables by prefix.
        aliases: Full names of short ones.
    """

    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls) -> "Registries":
        """Read the files that podman would.

        Raises:
            FormatError: One is not version 2 of the format.
            SourceError: The file that $CONTAINERS_REGISTRIES_CONF names is missing.
        """
        registries = cls()
        for path in _configuration_files():
            registries._add(path)
        return registries

    def _add(self, path: Path) -> None:
        where = shown(str(path))
        try:
            document = tomllib.loads(path.read_text())
        except OSError as error:
            raise SourceError(f"{where}: {error.strerror}") from error
        except ValueError as error:
            raise FormatError(f"not TOML: {error}", where=where) from error
        tables, aliases = document.get("registry", []), document.get("aliases", {})
        if (
            "registries" in document  # of version 1
            or not isinstance(aliases, dict)
            or not _are_tables(tables)
            or not all(_are_tables(table.get("mirror", [])) for table in tables)
        ):
            raise FormatError("not version 2 of registries.conf", where=where)
        for table in tables:
            prefix = table.get("prefix") or table.get("location")
            if prefix is None:
                what = "a [[registry]] without a prefix or location"
                raise FormatError(what, where=where)
            self.tables[prefix] = table
        self.aliases.update({k: v for k, v in aliases.items() if isinstance(v, str)})

    def resolve(self, text: str) -> Reference:
        """Return the image that a name means; a short one may be an alias."""
        if is_short(text):
            name, mark, version = _split(text)
            if name in self.aliases:
                return parse(self.aliases[name] + mark + version)
        return parse(text)

    def endpoints(self, reference: Reference, access: Access) -> list[Endpoint]:
        """Return where to look for an image: mirrors first, then the registry.

        Raises:
            SourceError: The registry is blocked.
        """
        name = f"{reference.host}/{reference.repository}"
        length, table = self._table(name)
        if table.get("blocked"):
            raise SourceError(f"{quoted(name)} is blocked in registries.conf")
        by_digest = table.get("mirror-by-digest-only")
        mirrors = [
            mirror
            for mirror in table.get("mirror", [])
            if _serves(mirror.get("pull-from-mirror", "all"), reference)
            and (reference.digest or not by_digest)
        ]
        return [
            _endpoint(_moved(name, length, place.get("location")), place, access)
            for place in (*mirrors, table)
        ]

    def _table(self, name: str) -> tuple[int, dict[str, Any]]:
        """Return how much of a name the longest prefix matches, and its table."""
        found = max(self.tables, key=lambda prefix: _matched(prefix, name), default="")
        length = _matched(found, name)
        return (length, self.tables[found]) if length else (0, {})


def _are_tables(value: object) -> bool:
    """Return True for a list of tables whose names are texts."""
    return isinstance(value, list) and all(
        isinstance(table, dict)
        and all(
            isinstance(table.get(key, ""), str)
            for key in ("prefix", "location", "pull-from-mirror")
        )
        for table in value
    )


def _configuration_files() -> Iterator[Path]:
    named = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    if named:
        yield Path(named)
        return
    home = Path(os.environ.get("HOME", "/"))
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "containers")
    system = Path("/etc/containers")
    for folder in (config, system):
        if (folder / "registries.conf").is_file():
            yield folder / "registries.conf"
            break
    for folder in (system, config):
        yield from sorted((folder / "registries.conf.d").glob("*.conf"))


def _split(text: str) -> tuple[str, str, str]:
    """Split a short name from its tag or digest."""
    mark = "@" if "@" in text else ":"
    return text.partition(mark)


def _matched(prefix: str, name: str) -> int:
    """Return how many characters of a name a prefix, or ``*.domain``, matches; or 0.

    >>> _matched("quay.io/b", "quay.io/b/c"), _matched("quay.io/b", "quay.io/bb")
    (9, 0)
    >>> _matched("*.example", "a.example/b"), _matched("*.example", "example/b")
    (9, 0)
    """
    start = 0
    if prefix.startswith("*."):
        prefix = prefix[1:]
        start = name.find(prefix)
        if start <= 0 or "/" in name[:start]:
            return 0
    stop = start + len(prefix)
    matches = prefix and name.startswith(prefix, start)
    return stop if matches and name[stop : stop + 1] in ("", "/", ":") else 0


def _serves(pull: str, reference: Reference) -> bool:
    """Return True if a mirror may be asked for a reference."""
    return pull in ("all", "digest-only" if reference.digest else "tag-only")


def _moved(name: str, length: int, location: str | None) -> str:
    """Return a name whose first ``length`` characters are replaced by a location."""
    return location + name[length:] if location else name


def _endpoint(name: str, table: dict[str, Any], access: Access) -> Endpoint:
    registry, _, repository = name.partition("/")
    named = Trust.by(access)
    host = _HUB_HOST if registry == DOCKER_HUB else registry
    found = _certificates(registry)
    trust = replace(
        found,
        authorities=(*found.authorities, *named.authorities),
        insecure=named.insecure or bool(table.get("insecure")),
    )
    return Endpoint(registry, host, repository, trust)


def _certificates(host: str) -> Trust:
    """Return the certificates in the first directory that there is for a host."""
    home = Path(os.environ.get("HOME", "/"))
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    for folder in (
        config / "containers/certs.d",
        Path("/etc/containers/certs.d"),
        Path("/etc/docker/certs.d"),
    ):
        place = folder / host
        if not os.path.isdir(place):
            continue
        pairs = [
            (str(path), str(path.with_suffix(".key")))
            for path in sorted(place.glob("*.cert"))
        ]
        authorities = tuple(map(str, sorted(place.glob("*.crt"))))
        return Trust(authorities, pairs[0] if pairs else None)
    return Trust()
