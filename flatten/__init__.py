"""Container images to one root file system tar.

>>> import flatten
>>> flatten.export("image.tar", "rootfs.tar")                       # doctest: +SKIP
"""

try:
    from .errors import (
        FlattenError,
        FormatError,
        IntegrityError,
        SourceError,
        UsageError,
    )
    from .export import Exported, export, plan_image
    from .host.limits import Limits
    from .image.history import Point
    from .image.image import Image, Layer
    from .options import Options
    from .plan.plan import Plan
    from .sources.open import open_image
    from .tree.edit import Edits
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
