"""Container images to one root file system tar.

>>> import flatten
>>> flatten.export("image.tar", "rootfs.tar")                       # doctest: +SKIP
"""

try:
    from .edit import Edits
    from .errors import (
        FlattenError,
        FormatError,
        IntegrityError,
        SourceError,
        UsageError,
    )
    from .export import Exported, export, plan_image
    from .history import Point
    from .limits import Limits
    from .model import Image, Layer, Plan
    from .options import Options
    from .sources import open_image
except KeyboardInterrupt:  # the command has hardly started: no traceback for that
    raise SystemExit(130) from None

__version__ = "0.2.0"

__all__ = [
    "Edits",
    "Exported",
    "FlattenError",
    "FormatError",
    "Image",
    "IntegrityError",
    "Layer",
    "Limits",
    "Options",
    "Plan",
    "Point",
    "SourceError",
    "UsageError",
    "export",
    "open_image",
    "plan_image",
]
