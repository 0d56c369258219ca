"""``python -m flatten``."""

try:
    from .cli.main import script
except KeyboardInterrupt:  # no handler is installed yet
    raise SystemExit(130) from None

script()
