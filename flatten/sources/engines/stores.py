"""The common interface of engines' roots: a store for each storage driver."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

from ...image.image import Image
from ..choice import Entry, Platform
from .survey import Survey, joined


class EngineStore(Protocol):
    """The images and containers that one storage driver keeps in an engine's root."""

    def images(self) -> Iterable[Entry]:
        """Return the images; an image that is damaged raises its error when loaded."""

    def containers(self) -> Iterable[Entry]:
        """Return the containers; their names and ids begin with ``container:``."""

    def survey(self) -> Survey:
        """Return the inventory besides the images."""


def image_entries(
    names: Mapping[str, Sequence[str]],
    ids: Iterable[str],
    driver: str,
    load: Callable[[str, Sequence[str]], Image],
    platform: Callable[[str], Platform | None],
) -> Iterator[Entry]:
    """Yield the entries of docker's images, those with names first, then by id.

    Args:
        names: The names of ids that have any; each has a tag or a digest.
        ids: All ids.
        driver: The storage driver.
        load: Opens the image of an id, given its names.
        platform: Returns the platform of the image of an id.
    """
    for id_ in sorted(ids, key=lambda id_: (id_ not in names, id_)):
        known = names.get(id_, ())
        yield Entry(
            (id_,),
            tuple(known),
            load=partial(load, id_, known),
            platform=partial(platform, id_),
            store=driver,
        )


def all_images(stores: Iterable[EngineStore]) -> Sequence[Entry]:
    """Return the images of all drivers."""
    return [entry for store in stores for entry in store.images()]


def all_containers(stores: Iterable[EngineStore]) -> Sequence[Entry]:
    """Return the containers of all drivers."""
    return [entry for store in stores for entry in store.containers()]


def whole_survey(stores: Iterable[EngineStore]) -> Survey:
    """Return the inventory of all drivers besides the images."""
    return joined(store.survey() for store in stores)
