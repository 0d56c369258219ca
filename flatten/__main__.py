"""``python -m flatten``."""

try:
    from .cli.main import script
except KeyboardInterrupt:  # nothing heeds signals yet
    raise SystemExit(130) from None

script()
