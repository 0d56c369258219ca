"""Credentials for registries, where podman, skopeo and docker keep them.

In this order: ``--authfile`` or else ``$REGISTRY_AUTH_FILE``;
``$XDG_RUNTIME_DIR/containers/auth.json``; ``~/.config/containers/auth.json``;
``~/.docker/config.json``. A file that is named must exist, the others need not. Each
may name programs (``docker-credential-NAME``) that keep the secrets.

Reference: containers-auth.json(5); docker's "docker login", "Credential helpers".
"""

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ...errors import FlattenError, FormatError, SourceError, shown
from .reference import DOCKER_HUB

_HUB_KEY: Final = "https://index.docker.io/v1/"
_MAX_FILE: Final = 1 << 22
_HELPER_TIME: Final = 30  # seconds


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a registry asks for; never shown.

    Attributes:
        user: The user name; "" for an identity token.
        secret: The password.
        identity_token: A refresh token, which is exchanged for access tokens.
    """

    user: str = ""
    secret: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """Return the value of an Authorization header."""
        pair = f"{self.user}:{self.secret}".encode()
        return "Basic " + base64.b64encode(pair).decode()


def find_credentials(
    host: str, repository: str, authfile: str | None
) -> Credentials | None:
    """Return the credentials for a repository, or None if there are none.

    Raises:
        SourceError: The file that was named does not exist.
        FormatError: A file is not as docker and podman write it.
        FlattenError: A credential helper failed.
    """
    for path, required in _files(authfile):
        try:
            with open(path, "rb") as file:
                text = file.read(_MAX_FILE + 1)
        except OSError as error:
            if not required and isinstance(error, FileNotFoundError):
                continue
            raise SourceError(f"{shown(str(path))}: {error.strerror}") from error
        found = _look_up(_parse(text, path), _keys(host, repository), path)
        if found is not None:
            return found
    return None


def _files(authfile: str | None) -> Iterator[tuple[Path, bool]]:
    """Yield the files, and whether each must exist."""
    named = authfile or os.environ.get("REGISTRY_AUTH_FILE")
    if named:
        yield Path(named), True
        return
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers/auth.json"), False
    home = Path(os.environ.get("HOME", "/"))
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    yield config / "containers/auth.json", False
    docker = Path(os.environ.get("DOCKER_CONFIG") or home / ".docker")
    yield docker / "config.json", False


def _keys(host: str, repository: str) -> list[str]:
    """Return the keys to look up, the most specific first."""
    parts = repository.split("/")
    keys = [f"{host}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1)]
    keys += [host, f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/"]
    return [*keys, _HUB_KEY] if host == DOCKER_HUB else keys


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    where = shown(str(path))
    if len(text) > _MAX_FILE:
        raise FormatError(f"more than {_MAX_FILE:,} bytes", where=where)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # the text may hold secrets
        raise FormatError("not JSON", where=where) from error
    if not isinstance(document, dict):
        raise FormatError("not a JSON object", where=where)
    for key in ("auths", "credHelpers"):
        if not isinstance(document.get(key) or {}, dict):
            raise FormatError(f"{key} is not an object", where=where)
    return document


def _look_up(
    document: dict[str, Any], keys: list[str], path: Path
) -> Credentials | None:
    """Return a file's credentials for the first key that it has.

    Credential helpers come first, as for podman and docker.
    """
    helpers = document.get("credHelpers") or {}
    auths = document.get("auths") or {}
    for key in keys:
        if helper := helpers.get(key):
            return _ask_helper(str(helper), key)
    for key in keys:
        entry = auths.get(key)
        if isinstance(entry, dict) and (
            entry.get("auth") or entry.get("identitytoken")
        ):
            return _decode(entry, shown(str(path)))
    if store := document.get("credsStore"):
        for key in keys:
            if (found := _ask_helper(str(store), key)) is not None:
                return found
    return None


def _decode(entry: dict[str, Any], where: str) -> Credentials:
    try:
        pair = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise FormatError("auth is not base64 of USER:PASSWORD", where=where) from error
    user, _, secret = pair.partition(":")
    token = str(entry.get("identitytoken") or "")
    return Credentials(user, secret.strip("\0"), token)


def _ask_helper(name: str, key: str) -> Credentials | None:
    """Run ``docker-credential-NAME get``; None if it has no credentials for the key."""
    program = f"docker-credential-{name}"
    if "/" in name:
        raise FlattenError(f"{shown(program)}: not the name of a credential helper")
    try:
        done = subprocess.run(
            [program, "get"], input=key.encode(), capture_output=True, check=False,
            timeout=_HELPER_TIME,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        why = getattr(error, "strerror", None) or f"no answer in {_HELPER_TIME} s"
        raise FlattenError(f"{shown(program)}: {why}") from error
    if done.returncode:
        if b"credentials not found" in done.stdout:
            return None
        raise FlattenError(f"{shown(program)} get: exit code {done.returncode}")
    try:
        found = json.loads(done.stdout)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FlattenError(f"{shown(program)} get: no Username and Secret") from error
    if user == "<token>":
        return Credentials(identity_token=secret)
    return Credentials(user, secret)
