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
from ..access import Access
from ..transport import Trust, host_name
from .reference import DOCKER_HUB, Reference, is_short, parse

_HUB_HOST: Final = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registry, or a mirror of one, that may have an image.

    Attributes:
        host: Where it is asked, with its port.
        repository: The image's name there.
        trust: Which certificates to trust and to show, and whether plain HTTP will do.
    """

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
        if not isinstance(tables, list) or not isinstance(aliases, dict):
            raise FormatError("not version 2 of registries.conf", where=where)
        for table in tables:
            prefix = table.get("prefix") or table.get("location")
            if not isinstance(prefix, str):
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
        table = self._table(name)
        if table.get("blocked"):
            raise SourceError(f"{quoted(name)} is blocked in registries.conf")
        prefix = table.get("prefix") or table.get("location") or ""
        places = [
            mirror
            for mirror in table.get("mirror", [])
            if _serves(mirror.get("pull-from-mirror", "all"), reference)
        ]
        return [
            _endpoint(_moved(name, prefix, place.get("location")), place, access)
            for place in (*places, table)
        ]

    def _table(self, name: str) -> dict[str, Any]:
        """Return the table with the longest prefix that fits."""
        fits = [prefix for prefix in self.tables if _fits(prefix, name)]
        return self.tables[max(fits, key=len)] if fits else {}


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


def _fits(prefix: str, name: str) -> bool:
    """Return True if a prefix, or a ``*.domain``, matches a name at a separator."""
    if prefix.startswith("*."):
        host, slash, path = name.partition("/")
        domain, _, below = prefix[1:].partition("/")
        return host_name(host).endswith(domain) and _fits_path(
            below, path if slash else ""
        )
    return _fits_path(prefix, name)


def _fits_path(prefix: str, name: str) -> bool:
    return not prefix or name == prefix or name.startswith((f"{prefix}/", f"{prefix}:"))


def _serves(pull: str, reference: Reference) -> bool:
    """Return True if a mirror may be asked for a reference."""
    return pull in ("all", "digest-only" if reference.digest else "tag-only")


def _moved(name: str, prefix: str, location: str | None) -> str:
    """Return a name with its prefix replaced by a location."""
    if not location or prefix.startswith("*."):
        return name if not location else location + "/" + name.partition("/")[2]
    return location + name[len(prefix) :]


def _endpoint(name: str, table: dict[str, Any], access: Access) -> Endpoint:
    host, _, repository = name.partition("/")
    named = Trust.by(access)
    found = _certificates(host)
    trust = replace(
        found,
        authorities=(*found.authorities, *named.authorities),
        insecure=named.insecure or bool(table.get("insecure")),
    )
    return Endpoint(_HUB_HOST if host == DOCKER_HUB else host, repository, trust)


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
