"""``flatten users SOURCE LAYER``: the images and containers that use a layer."""

import argparse

from ...views.usage import users
from .. import options
from ..tables import one_line, print_json

DESCRIPTION = f"""\
List all images, with their names, and all containers that use LAYER.

{options.SOURCE}

LAYER is a diff_id, a chain id, a cache-id (podman: the layer's id) or the
digest of a blob, at least the first six characters of one of these, or a path
to the layer's directory or into it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    options.add_source_argument(parser)
    parser.add_argument("layer", metavar="LAYER", help="the layer (see above)")
    options.add_source_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the images and containers, and return the exit code."""
    with options.open_source(args) as opened:
        found = users(opened, args.layer)
    if args.json:
        print_json(found)
        return 0
    for layer in found:
        for what, name in (
            ("chain id", layer["chain_id"]),
            ("diff id", layer["diff_id"]),
            ("digest", layer["digest"]),
            ("cache id", layer["cache_id"]),
            ("directory", layer["directory"]),
        ):
            if name is not None:
                print(f"{what}: {one_line(name)}")
        for image in layer["images"]:
            names = " ".join(image["names"]) or "-"
            print(
                f"  image {image['id'][:12]}, layer {image['position']}: "
                f"{one_line(names)}"
            )
        for container in layer["containers"]:
            names = " ".join(container["names"]) or "-"
            print(f"  container {container['id'][:12]}: {one_line(names)}")
        if layer["held_by"]:
            print(f"  {one_line(layer['held_by'])}")
        if not any(layer[key] for key in ("images", "containers", "held_by")):
            print("  nothing uses it")
    return 0
