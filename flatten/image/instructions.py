r"""Derive a config's settings after an earlier step from the history.

A config only has the settings after the last step. Settings that no later step changed
are taken from it; the others are read from the earlier commands, as written by docker's
builder, BuildKit and buildah::

    /bin/sh -c #(nop)  ENV PATH=/bin LANG=C     docker's builder, buildah
    ENV PATH=/bin LANG=C                        BuildKit
    /bin/sh -c #(nop)  CMD ["sh" "-c" "date"]   Go's %q, without commas

Values in commands are not quoted, so a value that contains `` NAME=`` is split there.
Settings that no command shows (of ``docker commit``, or a base without history) are
lost only if a later step replaced them.

Reference: moby builder/dockerfile/dispatchers.go; buildkit dockerfile2llb/convert.go.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

_COMMAND: Final = re.compile(r"(?:.*#\(nop\)\s+)?([A-Z]+)\s+(.*)", re.DOTALL)
_PAIR: Final = re.compile(r"([^\s=]+)=(.*?)(?=\s+[^\s=]+=|\Z)", re.DOTALL)
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)

Keyed = dict[str, str | None]


def config_after(
    config: dict[str, Any], done: Iterable[str], later: Iterable[str]
) -> dict[str, Any]:
    """Return the settings after the commands ``done``, before those ``later``.

    Args:
        config: The settings after all of them: ``config`` of a config document.
        done: ``created_by`` of the steps up to that point.
        later: ``created_by`` of the later steps.

    >>> config_after({"User": "app", "Env": ["A=2", "B=1"]}, ["ENV A=1"], ["ENV A=2"])
    {'User': 'app', 'Env': ['A=1', 'B=1']}
    """
    before, touched = _replay(done), _replay(later)
    if "Entrypoint" in touched:  # ENTRYPOINT resets the base's CMD
        touched.setdefault("Cmd", None)
    out = dict(config)
    for key, value in touched.items():
        if isinstance(value, dict):
            found = _restored(config.get(key), value, before.get(key) or {})
        else:
            found = before.get(key)
        if found is None:
            out.pop(key, None)
        else:
            out[key] = found
    return out


def with_command(config: dict[str, Any], command: str) -> dict[str, Any]:
    """Return the settings after one more command on top of ``config``.

    >>> with_command({"Env": ["A=1"]}, "ENV B=2")
    {'Env': ['A=1', 'B=2']}
    """
    out = dict(config)
    for key, value in _replay([command]).items():
        now = config.get(key)
        if not isinstance(value, dict):
            out[key] = value
        elif key == "Env":
            pairs = dict(str(item).partition("=")[::2] for item in now or ())
            out[key] = [f"{name}={text}" for name, text in (pairs | value).items()]
        else:
            out[key] = (now or {}) | {
                k: {} if v is None else v for k, v in value.items()
            }
    return out


def _replay(commands: Iterable[str]) -> dict[str, Any]:
    """Return the settings that commands make; those with keys are dicts."""
    state: dict[str, Any] = {}
    for command in commands:
        match = _COMMAND.fullmatch(command)
        if match is None or match[1] not in _SETTINGS:
            continue
        key, read = _SETTINGS[match[1]]
        value = read(match[2])
        if isinstance(value, dict):
            value = state.get(key, {}) | value
        state[key] = value
        if key == "Entrypoint":
            state.pop("Cmd", None)
    return state


def _restored(now: object, touched: Keyed, before: Keyed) -> object:
    """Undo changes by later commands to keys, in a list of pairs or a map."""
    if isinstance(now, list):  # "key=value" texts
        pairs = dict(str(item).partition("=")[::2] for item in now)
        kept = {k: before.get(k) if k in touched else v for k, v in pairs.items()}
        return [f"{key}={value}" for key, value in kept.items() if value is not None]
    if isinstance(now, dict):
        kept = {
            key: before[key] if key in touched and key in before else value
            for key, value in now.items()
            if key not in touched or key in before
        }
        return {k: {} if v is None else v for k, v in kept.items()} or None
    return now


def _pairs(text: str) -> Keyed:
    """Parse ``A=1 B=two words``.

    >>> _pairs("A=1 B=two words")
    {'A': '1', 'B': 'two words'}
    """
    return dict(_PAIR.findall(text))


def _words(text: str) -> list[str]:
    r"""Parse ``["sh" "-c"]``, as Go's %q writes it, or JSON, or ``[a b]``.

    >>> _words(r'["sh" "-c" "echo \"hi\""]'), _words("[/bin/bash -c]")
    (['sh', '-c', 'echo "hi"'], ['/bin/bash', '-c'])
    """
    if '"' in text:
        return [re.sub(r"\\(.)", r"\1", word) for word in _QUOTED.findall(text)]
    return text.strip("[]").split()


def _ports(text: str) -> Keyed:
    """Parse ``80 53/udp``, or ``map[80/tcp:{}]``.

    >>> _ports("map[80/tcp:{} 53/udp:{}]"), _ports("80")
    ({'80/tcp': None, '53/udp': None}, {'80/tcp': None})
    """
    words = re.findall(r"[0-9-]+(?:/[a-z]+)?", text)
    return {word if "/" in word else f"{word}/tcp": None for word in words}


def _volumes(text: str) -> Keyed:
    return dict.fromkeys(_words(text))


_SETTINGS: Final[dict[str, tuple[str, Any]]] = {
    "CMD": ("Cmd", _words),
    "ENTRYPOINT": ("Entrypoint", _words),
    "ENV": ("Env", _pairs),
    "EXPOSE": ("ExposedPorts", _ports),
    "HEALTHCHECK": ("Healthcheck", lambda _: None),  # not written in a parsable form
    "LABEL": ("Labels", _pairs),
    "ONBUILD": ("OnBuild", lambda _: None),  # consumed by builds on the image
    "SHELL": ("Shell", _words),
    "STOPSIGNAL": ("StopSignal", str),
    "USER": ("User", str),
    "VOLUME": ("Volumes", _volumes),
    "WORKDIR": ("WorkingDir", str),
}
