"""``python -m flatten``."""

from .cli import script

script()
