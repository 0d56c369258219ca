"""All cases, by the rules of flatten's docs/semantics.md."""

from . import compression, links, metadata, paths, tars, whiteouts
from .case import Case

CASES: tuple[Case, ...] = tuple(
    sorted(
        (
            *whiteouts.CASES, *paths.CASES, *links.CASES,
            *metadata.CASES, *tars.CASES, *compression.CASES,
        ),
        key=lambda case: case.rule,
    )
)  # fmt: skip
