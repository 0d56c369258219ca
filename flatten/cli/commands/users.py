"""``flatten users SOURCE LAYER``: who uses a layer."""

import argparse

from ...views.usage import users
from .. import options
from ..tables import one_line, print_json

DESCRIPTION = f"""\
List all images, with their names, and all containers that use a layer.

{options.SOURCE}

LAYER is a diff id, a chain id, a cache-id (podman: the layer's id), the digest
of a blob, at least the first six characters of one, or a path to the layer's
directory or into it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all that this command takes."""
    parser.add_argument("source", metavar="SOURCE", help="which images")
    parser.add_argument("layer", metavar="LAYER", help="which layer")
    options.add_source_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the users, and return the exit code."""
    with options.open_source(args) as opened:
        found = users(opened, args.layer)
    if args.json:
        print_json(found)
        return 0
    for layer in found:
        for what, name in (
            ("chain id", layer["chain_id"]), ("diff id", layer["diff_id"]),
            ("digest", layer["digest"]), ("cache id", layer["cache_id"]),
            ("directory", layer["directory"]),
        ):  # fmt: skip
            if name is not None:
                print(f"{what}: {one_line(name)}")
        for image in layer["images"]:
            names = " ".join(image["names"]) or "-"
            print(f"  image {image['id'][:12]}, layer {image['position']}: "
                  f"{one_line(names)}")  # fmt: skip
        for container in layer["containers"]:
            names = " ".join(container["names"]) or "-"
            print(f"  container {container['id'][:12]}: {one_line(names)}")
        if layer["held_by"]:
            print(f"  {one_line(layer['held_by'])}")
        if not any(layer[key] for key in ("images", "containers", "held_by")):
            print("  nothing uses it")
    return 0
