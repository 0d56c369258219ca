"""``python -m flatten``, and the ``flatten`` command."""


def script() -> None:
    """Run the command, which can be interrupted while its modules are imported."""
    try:
        from .cli import main  # an interrupt here is handled
    except KeyboardInterrupt:  # ``main`` does not handle signals yet
        raise SystemExit(130) from None
    main.script()


if __name__ == "__main__":
    script()
