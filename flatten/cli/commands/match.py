"""``flatten match IMAGE --cmd ...``: what a build of one more step would reuse."""

import argparse
import json
from pathlib import Path
from typing import Any

from ...errors import UsageError, quoted
from ...image.image import Image
from ...image.instructions import with_command
from ...views.ancestry import Match, match
from .. import options
from ..messages import say
from ..tables import one_line, print_json

DESCRIPTION = f"""\
Say which image docker's builder would reuse for one more step on an image: the
newest child of it, by docker's record of parents, that was made with the same
settings; or else the first image whose steps go on from it with that command.
The exit code is 1 when there is none.

{options.IMAGE}
"""
_SHELL = ["/bin/sh", "-c"]
_NOP = "#(nop) "
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all that this command takes."""
    options.add_image_argument(parser)
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument(
        "--cmd",
        metavar="TEXT",
        help="what the step runs; or, as in a history, '#(nop) ENV A=1' and so on",
    )
    step.add_argument(
        "--exec",
        metavar="JSON",
        type=parse_list,
        help='what it runs without a shell: \'["make", "all"]\'',
    )
    step.add_argument(
        "--settings",
        metavar="FILE",
        help="JSON: settings of the container that differ from the image's",
    )
    parser.add_argument(
        "--scratch",
        action="store_true",
        help="the step is the first of all; IMAGE only says where to look",
    )
    options.add_among_option(parser)
    options.add_json_option(parser)
    options.add_input_options(parser)


def parse_list(text: str) -> list[str]:
    """Read a JSON list of texts.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no JSON list of texts")
    return found


def run(args: argparse.Namespace) -> int:
    """Print the image; return 1 if there is none, or 0."""
    with options.open_among(args) as others:
        if args.scratch:
            found = match(None, _settings(args, {}), others)
        else:
            with options.open_image(args) as parent:
                config = parent.config.get("config") or {}
                found = match(parent, _settings(args, config), others)
    if args.json:
        print_json(_document(found))
    elif found is None:
        say("no image would be reused")
    else:
        print(f"{found.image.id[:12]}  {_how(found)}  {_names(found.image)}")
    return 1 if found is None else 0


def _settings(args: argparse.Namespace, config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the container that runs the step.

    Those that docker's builder looks for: to run something it takes the entrypoint
    away, and what only sets something runs nothing, but says so in Cmd: as two words
    where the history has two blanks, ``#(nop)  ENV``, as one for COPY, ADD, WORKDIR.
    """
    env = config.get("Env") or []
    if not any(str(pair).startswith("PATH=") for pair in env):
        config = config | {"Env": [*env, _PATH]}  # as the builder does at FROM
    if args.settings is not None:
        return config | _read(args.settings)
    if args.exec is not None:
        return config | {"Cmd": args.exec, "Entrypoint": None}
    shell = config.get("Shell") or _SHELL
    if args.cmd.startswith(_NOP):
        command = args.cmd.removeprefix(_NOP)  # COPY's ends in a blank
        words = [_NOP, command[1:]] if command.startswith(" ") else [args.cmd]
        return with_command(config, command.lstrip()) | {"Cmd": [*shell, *words]}
    return config | {"Cmd": [*shell, args.cmd], "Entrypoint": None}


def _read(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{quoted(path)}: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{quoted(path)}: no JSON object of settings")
    return found


def _how(found: Match) -> str:
    return found.how if found.step is None else f"{found.how}, until step {found.step}"


def _names(image: Image) -> str:
    return one_line(" ".join(image.names)) or "-"


def _document(found: Match | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "id": found.image.id,
        "names": found.image.names,
        "how": found.how,
        "source": found.image.source,
        "step": found.step,
    }
