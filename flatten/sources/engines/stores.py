"""What is common to engines' roots: images and containers, by storage driver."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..choice import Entry
from .survey import Survey, joined


class EngineStore(Protocol):
    """What one storage driver keeps in an engine's root."""

    def images(self) -> Iterable[Entry]:
        """Return the images; an image that cannot be opened says so when loaded."""

    def containers(self) -> Iterable[Entry]:
        """Return the containers, by names and ids that begin with ``container:``."""

    def survey(self) -> Survey:
        """Return what there is besides images."""


def all_images(stores: Iterable[EngineStore]) -> Sequence[Entry]:
    """Return the images of all drivers."""
    return [entry for store in stores for entry in store.images()]


def all_containers(stores: Iterable[EngineStore]) -> Sequence[Entry]:
    """Return the containers of all drivers."""
    return [entry for store in stores for entry in store.containers()]


def whole_survey(stores: Iterable[EngineStore]) -> Survey:
    """Return what all drivers have besides images."""
    return joined(store.survey() for store in stores)
