"""What is said to people, on standard error."""

import sys


def say(text: str) -> None:
    """Print a line; nothing where standard error is closed, and never to the data."""
    if sys.stderr is not None:
        print(f"flatten: {text}", file=sys.stderr)
