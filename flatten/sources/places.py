"""The usual data directories of engines.

Reference: containers-storage.conf(5), "graphroot" and "rootless_storage_path"; docker's
and containerd's defaults.
"""

import os
import re
from pathlib import Path
from typing import Any, Final

from ..errors import FormatError, SourceError, shown

_ON_A_DISK: Final = (
    "var/lib/docker",
    "var/lib/containers/storage",
    "var/lib/containerd",
)
_FIXED: Final = {
    "docker-root": "/var/lib/docker",
    "graph": "/var/lib/docker",
    "containerd": "/var/lib/containerd",
}


def usual_place(kind: str) -> str | None:
    """Return the usual data directory of a kind of engine; None for other kinds.

    Raises:
        FormatError: storage.conf is not TOML.
        SourceError: $CONTAINERS_STORAGE_CONF names a file that cannot be read.
    """
    if kind == "containers-storage":
        return _containers_storage()
    if kind == "docker-root" and os.geteuid():
        rootless = Path(_data_home(), "docker")
        return str(rootless) if os.path.isdir(rootless) else _FIXED[kind]
    return _FIXED.get(kind)


def _data_home() -> str:
    home = os.environ.get("HOME", "/")
    return os.environ.get("XDG_DATA_HOME") or f"{home}/.local/share"


def _containers_storage() -> str:
    """Return this user's store of podman."""
    storage = _configuration().get("storage", {})
    storage = storage if isinstance(storage, dict) else {}
    if os.geteuid() == 0:
        return str(storage.get("graphroot") or "/var/lib/containers/storage")
    configured = storage.get("rootless_storage_path") or (
        storage.get("graphroot") if os.path.isfile(_own_file()) else None
    )
    return _expanded(str(configured or f"{_data_home()}/containers/storage"))


def _expanded(path: str) -> str:
    """Replace the variables that storage.conf may have: $HOME, $USER, $UID."""
    values = {"UID": str(os.geteuid()), **os.environ}
    return re.sub(r"\$(\w+)", lambda found: values.get(found[1], found[0]), path)


def _own_file() -> Path:
    home = os.environ.get("HOME", "/")
    config = os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    return Path(config, "containers/storage.conf")


def _configuration() -> dict[str, Any]:
    """Return the parsed storage.conf: a named one, the user's, or the system's."""
    import tomllib  # 3 ms, for stores without a path

    named = os.environ.get("CONTAINERS_STORAGE_CONF")
    paths = [Path(named)] if named else [
        *([_own_file()] if os.geteuid() else []),
        Path("/etc/containers/storage.conf"),
        Path("/usr/share/containers/storage.conf"),
    ]  # fmt: skip
    for path in paths:
        try:
            return tomllib.loads(path.read_text())
        except OSError as error:
            if named:
                raise SourceError(f"{shown(named)}: {error.strerror}") from error
        except ValueError as error:
            raise FormatError(f"not TOML: {error}", where=shown(str(path))) from error
    return {}


def stores_below(path: str) -> list[str]:
    """Return the engines' directories in a root file system, such as a mounted disk.

    A directory behind a symlink is left out: the link may lead to the host's own.
    """
    found = []
    for place in _ON_A_DISK:
        parts = place.split("/")
        steps = [os.path.join(path, *parts[: at + 1]) for at in range(len(parts))]
        if all(os.path.isdir(step) and not os.path.islink(step) for step in steps):
            found.append(steps[-1])
    return found
