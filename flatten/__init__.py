"""Flatten container images, and read the files in them.

>>> import flatten
>>> flatten.export("image.tar", "rootfs.tar")                       # doctest: +SKIP
>>> with flatten.open_image("image.tar") as image:                  # doctest: +SKIP
...     print((image.root / "etc/os-release").read_text())

The public names are imported from their modules on first use. So ``import flatten`` is
fast, and the command can handle an interrupt while its modules are imported.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in typing, whose import takes longer than this one
if TYPE_CHECKING:
    from .api import Image, ImagePath, open_image
    from .errors import (
        FlattenError,
        FormatError,
        IntegrityError,
        SourceError,
        UsageError,
    )
    from .host.limits import Limits
    from .image.history import Point
    from .options import Access, Options
    from .pipeline import Exported, export, plan_image
    from .plan.plan import Plan
    from .tree.edit import Edits

__version__ = "0.2.0"

__all__ = [
    "Access",
    "Edits",
    "Exported",
    "FlattenError",
    "FormatError",
    "Image",
    "ImagePath",
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

_MODULES = {
    "Access": ".options",
    "Edits": ".tree.edit",
    "Exported": ".pipeline",
    "FlattenError": ".errors",
    "FormatError": ".errors",
    "Image": ".api",
    "ImagePath": ".api",
    "IntegrityError": ".errors",
    "Layer": ".image.image",
    "Limits": ".host.limits",
    "Options": ".options",
    "Plan": ".plan.plan",
    "Point": ".image.history",
    "SourceError": ".errors",
    "UsageError": ".errors",
    "export": ".pipeline",
    "open_image": ".api",
    "plan_image": ".pipeline",
}


if not TYPE_CHECKING:  # or else type checkers would accept any name

    def __getattr__(name: str) -> object:
        """Import a public name from its module, on its first use."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(_MODULES[name], __name__), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    """List the public names too, whether or not they have been imported."""
    return sorted({*globals(), *__all__})
