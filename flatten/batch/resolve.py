"""From references to jobs: digests first, then the layers of what is not done yet.

A registry is asked for a digest by HEAD. Only images that are left to do are looked at
further: their manifest and config, which name the layers.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Final, TypeVar

from ..errors import FlattenError, UsageError
from ..image.image import Image
from ..options import Options
from ..sources.choice import config_platform
from ..sources.open import open_image
from ..sources.references import REGISTRY, is_url, parse_reference
from .jobs import ID, Common, Job, JobList, Target
from .names import Template
from .references import name_and_tag
from .results import Result, failed
from .retries import Retries
from .storage import finished

LOOKUPS: Final = 4
"""References that are looked up at a time, each over one connection."""

_UNLIKE: Final = ("limits", "access", "force", "layers")
"""Options that do not change the output."""

_DOCUMENTS: Final = {
    "config_out": "--config-out",
    "list_out": "--list-out",
    "statement": "--statement",
    "verity": "--verity",
}
"""Fields of ``Options`` that name a file to write, and the options for them."""

A = TypeVar("A")
B = TypeVar("B")


def fingerprint(options: Options) -> str:
    """Return a digest of the options that change an output.

    Host files that ``--add`` names count by their names, not by their contents.
    """
    fields = {k: v for k, v in asdict(options).items() if k not in _UNLIKE}
    text = json.dumps(fields, sort_keys=True, default=repr)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def image_digest(image: Image) -> str:
    """Return the digest of an image outside registries: its manifest's, or its id."""
    return image.manifest or f"sha256:{image.id.removeprefix('sha256:')}"


class Names:
    """The templates of an output, and of the files to write along with it.

    Attributes:
        fields: The fields that they use.
    """

    def __init__(self, output: str, options: Options) -> None:
        """Parse the templates.

        Raises:
            UsageError: One is not valid, or a document would not be a file.
        """
        self._output = Template(output)
        self._documents: dict[str, Template] = {}
        for field, option in _DOCUMENTS.items():
            text = getattr(options, field)
            if text is not None:
                if text == "-" or is_url(text):
                    raise UsageError(f"{option}: a batch writes documents to files")
                self._documents[field] = Template(text)
        templates = (self._output, *self._documents.values())
        self.fields = {field for each in templates for field in each.fields}

    def target(self, reference: str, values: Mapping[str, str]) -> Target:
        """Return an image's output.

        Raises:
            UsageError: A value does not make the name of a file.
        """
        documents = {k: t.path(values, reference) for k, t in self._documents.items()}
        return Target(
            reference, self._output.path(values, reference), (*documents.items(),)
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """What a reference stands for.

    Attributes:
        digest: The digest of a manifest or an index, or an image's id.
        source: The reference to read, with the digest where it can have one.
        values: The values of the template's fields.
        layers: The image's layers, if it had to be opened.
    """

    digest: str
    source: str
    values: dict[str, str]
    layers: tuple[bytes, ...] = ()


def collect(
    references: Iterable[str],
    names: Names,
    common: Common,
    retries: Retries,
    jobs: JobList,
) -> Iterator[Result]:
    """Add the jobs for some references; yield the failures.

    Raises:
        UsageError: Two images would be written to the same output, or an output would
            leave its directory.
    """
    platform = "platform" in names.fields
    find = partial(_find, platform=platform, options=common.options)
    for reference, answer in _threaded(references, partial(retries.call, find)):
        if isinstance(answer, FlattenError):
            yield failed(reference, answer, answer.exit_code)
        else:
            target = names.target(reference, answer.values)
            jobs.add(answer.digest, answer.source, target, answer.layers)


def inspect(
    jobs: JobList, common: Common, retries: Retries, *, force: bool
) -> Iterator[Result]:
    """Find the layers of all jobs; yield the results of outputs that are done already.

    Args:
        jobs: The jobs; those that are left are marked in it.
        common: The options.
        retries: How often to try.
        force: Take no output for done.
    """
    look = partial(_look, common=common, force=force)
    for job, answer in _threaded(jobs, partial(retries.call, look)):
        if isinstance(answer, FlattenError):
            for target in job.targets:
                yield failed(
                    target.reference, answer, answer.exit_code,
                    digest=job.digest, output=target.path,
                )  # fmt: skip
            continue
        done, layers = answer
        yield from done
        paths = {result.output for result in done}
        left = tuple(t for t in job.targets if t.path not in paths)
        if left:
            jobs.pend(replace(job, targets=left), layers)


def _find(reference: str, options: Options, *, platform: bool) -> _Found:
    """Return what a reference stands for; its platform only if that is asked for.

    Raises:
        FlattenError: There is no such image, or it cannot be reached.
    """
    name, tag = name_and_tag(reference)
    values = {"name": name, "tag": tag}
    kind, path, _ = parse_reference(reference)
    source = reference
    digest = None
    layers: tuple[bytes, ...] = ()
    if kind == REGISTRY:
        from ..sources.registry.lookup import find_digest  # urllib3, for registries

        digest = find_digest(path, options.access)
        source = f"{REGISTRY}://{path.removeprefix('//').partition('@')[0]}@{digest}"
    if digest is None or platform:
        with open_image(source, options) as image:
            found = str(config_platform(image.config) or "unknown")
            values["platform"] = found.replace("/", "-")
            digest = digest or image_digest(image)
            layers = _layers(image)
    values["digest"] = digest.partition(":")[2]
    return _Found(digest, source, values, layers)


def _look(
    job: Job, common: Common, *, force: bool
) -> tuple[list[Result], tuple[bytes, ...]]:
    """Return the results of a job's outputs that are done, and the image's layers.

    Raises:
        FlattenError: The storage or the image cannot be read.
    """
    done = []
    for target in () if force else job.targets:
        document = finished(target.path, job.digest, common.fingerprint)
        if document is None:
            continue
        files = *(path for _, path in target.documents), *(document["devices"] or ())
        if all(map(os.path.exists, files)):
            done.append(Result.unchanged(target, document))
    if job.layers or len(done) == len(job.targets):
        return done, job.layers
    with open_image(job.source, common.options) as image:
        return done, _layers(image)


def _layers(image: Image) -> tuple[bytes, ...]:
    """Return what stands for an image's layers; nothing if a diff_id is not known."""
    diff_ids = [layer.diff_id or "" for layer in image.layers]
    if not all(diff_id.startswith("sha256:") for diff_id in diff_ids):
        return ()
    return tuple(map(layer_id, diff_ids))


def layer_id(diff_id: str) -> bytes:
    """Return the bytes that stand for a layer in the order of jobs."""
    return bytes.fromhex(diff_id.partition(":")[2])[:ID]


def _threaded(
    items: Iterable[A], do: Callable[[A], B]
) -> Iterator[tuple[A, B | FlattenError]]:
    """Call a function for each item in threads; yield items and answers as they come.

    Only a few items are read ahead. An error of flatten is the answer.
    """
    waiting: dict[Future[B], A] = {}
    source = iter(items)
    more = True
    with ThreadPoolExecutor(LOOKUPS) as threads:
        try:
            while more or waiting:
                while more and len(waiting) < 2 * LOOKUPS:
                    for item in source:
                        waiting[threads.submit(do, item)] = item
                        break
                    else:
                        more = False
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    item = waiting.pop(future)
                    error = future.exception()
                    if error is None:
                        yield item, future.result()
                    elif isinstance(error, FlattenError):
                        yield item, error
                    else:
                        raise error
        finally:
            for future in waiting:
                future.cancel()
