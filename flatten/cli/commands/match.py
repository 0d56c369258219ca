"""``flatten match IMAGE --cmd ...``: the image that a build would reuse."""

import argparse
import json
from pathlib import Path
from typing import Any

from ...errors import UsageError, quoted
from ...image.image import Image
from ...image.instructions import with_command
from ...views.ancestry import Match, match
from .. import options
from ..tables import one_line, print_json

DESCRIPTION = f"""\
Find the image that docker's builder (before BuildKit) would reuse for one more
step on IMAGE: by docker's record of parents, the newest child of IMAGE with the
same settings; else the first image whose history continues IMAGE with that
command. The exit code is 1 if there is none.

{options.IMAGE}
"""
_SHELL = ["/bin/sh", "-c"]
_NOP = "#(nop) "
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    options.add_image_argument(parser)
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument(
        "--cmd",
        metavar="TEXT",
        help="the command that the step runs in a shell; or a step that runs nothing, "
        "as in a history: '#(nop) ENV A=1'",
    )
    step.add_argument(
        "--exec",
        metavar="JSON",
        type=parse_list,
        help='the command that it runs without a shell: \'["make", "all"]\'',
    )
    step.add_argument(
        "--settings",
        metavar="FILE",
        help="a JSON file of the container settings that differ from the image's",
    )
    parser.add_argument(
        "--scratch",
        action="store_true",
        help="match a first step (FROM scratch); IMAGE only names the source to search",
    )
    options.add_among_option(parser)
    options.add_json_option(parser)
    options.add_quiet_option(parser)
    options.add_input_options(parser)


def parse_list(text: str) -> list[str]:
    """Parse a JSON list of strings.

    Raises:
        argparse.ArgumentTypeError: The text is not such a list.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is not a JSON list of strings"
        )
    return found


def run(args: argparse.Namespace) -> int:
    """Print the image; return 1 if there is none, else 0."""
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
        options.note(args, "no image would be reused")
    else:
        print(f"{found.image.id[:12]}  {_how(found)}  {_names(found.image)}")
    return 1 if found is None else 0


def _settings(args: argparse.Namespace, config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the container that runs the step.

    These are the settings that docker's builder compares. To run a command, it removes
    the entrypoint. A step that runs nothing has a comment as its Cmd: two words where
    the history has two blanks (``#(nop)  ENV``), one word for COPY, ADD and WORKDIR.
    """
    env = config.get("Env") or []
    if not any(str(pair).startswith("PATH=") for pair in env):
        config = config | {"Env": [*env, _PATH]}  # as the builder does for FROM
    if args.settings is not None:
        return config | _read(args.settings)
    if args.exec is not None:
        return config | {"Cmd": args.exec, "Entrypoint": None}
    shell = config.get("Shell") or _SHELL
    if args.cmd.startswith(_NOP):
        command = args.cmd.removeprefix(_NOP)  # of COPY, it ends in a blank
        words = [_NOP, command[1:]] if command.startswith(" ") else [args.cmd]
        return with_command(config, command.lstrip()) | {"Cmd": [*shell, *words]}
    return config | {"Cmd": [*shell, args.cmd], "Entrypoint": None}


def _read(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{quoted(path)}: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{quoted(path)}: not a JSON object of settings")
    return found


def _how(found: Match) -> str:
    return found.how if found.step is None else f"{found.how}, up to step {found.step}"


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
