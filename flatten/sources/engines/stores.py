"""The common interface of engines' roots: a store for each storage driver."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..choice import Entry
from .survey import Survey, joined


class EngineStore(Protocol):
    """The images and containers that one storage driver keeps in an engine's root."""

    def images(self) -> Iterable[Entry]:
        """Return the images; an image that is damaged raises its error when loaded."""

    def containers(self) -> Iterable[Entry]:
        """Return the containers; their names and ids begin with ``container:``."""

    def survey(self) -> Survey:
        """Return the inventory besides the images."""


def all_images(stores: Iterable[EngineStore]) -> Sequence[Entry]:
    """Return the images of all drivers."""
    return [entry for store in stores for entry in store.images()]


def all_containers(stores: Iterable[EngineStore]) -> Sequence[Entry]:
    """Return the containers of all drivers."""
    return [entry for store in stores for entry in store.containers()]


def whole_survey(stores: Iterable[EngineStore]) -> Survey:
    """Return the inventory of all drivers besides the images."""
    return joined(store.survey() for store in stores)
