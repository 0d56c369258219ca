"""What a batch is made of: references from lists, globs, directories and registries.

Everything is a stream: a list of a million references is never in memory.
"""

import fnmatch
import glob
import hashlib
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Final

from ..errors import SourceError, UsageError, quoted, shown
from ..options import Options
from ..sources.references import DAEMONS, REGISTRY, is_url, parse_reference
from ..sources.remote import fsspec_errors, fsspec_files
from .names import split_name, stem

_WILD: Final = frozenset("*?[")
_WEB: Final = re.compile("https?://")  # may have a query, and cannot be listed
_MAX_LINE: Final = 1 << 16  # characters of a reference in a list
_PROBE: Final = 512  # bytes read to tell a list from an archive


def expand(sources: Iterable[str], options: Options) -> Iterator[str]:
    """Yield the references that some sources stand for.

    ============================  ====================================================
    ``docker://HOST/REPO[:GLOB]``  the tags that match; all tags without one
    ``docker://HOST/REPO@DIGEST``  that image
    ``URL`` with ``*``, ``?``, ``[``  the files that match, by fsspec
    a directory                    the images of a layout or an engine's root, or else
                                   everything in it that is not hidden
    a file of text, or ``-``       a list: one reference a line; ``#`` begins a comment
    another file                   that archive
    a glob                         the paths that match
    ============================  ====================================================

    Raises:
        SourceError: A source does not exist, or has no image.
        FlattenError: A source cannot be read.
    """
    for source in sources:
        kind, path, _ = parse_reference(source)
        if source == "-" or (kind is None and _is_list(path, source)):
            yield from _lines(source)
        elif kind == REGISTRY:
            yield from _tagged(path, options)
        elif os.path.lexists(source):
            yield from (
                _in_directory(source, options) if os.path.isdir(source) else (source,)
            )
        elif _WILD.isdisjoint(path) or kind in DAEMONS or _WEB.match(path):
            yield source
        elif is_url(path):
            yield from _matching_urls(path)
        else:
            yield from _matching(source)


def in_shard(references: Iterable[str], index: int, count: int) -> Iterator[str]:
    """Yield the references of one of several shards.

    A reference is in the same shard wherever the list is read, so that machines which
    know nothing of each other divide it. A checksum would not do: those of names that
    differ in a few digits leave some shards nearly empty.
    """
    for reference in references:
        digest = hashlib.sha256(os.fsencode(reference)).digest()
        if int.from_bytes(digest[:8], "big") % count == index:
            yield reference


def name_and_tag(reference: str) -> tuple[str, str]:
    """Return what ``{name}`` and ``{tag}`` stand for.

    They are those of an image's name, without its registry; a file's name is taken
    without the endings of archives.

    >>> name_and_tag("docker://quay.io/a/b:1"), name_and_tag("x/app.tar.gz")
    (('a/b', '1'), ('app', 'latest'))
    >>> name_and_tag("oci:layout#app:2")
    ('app', '2')
    """
    kind, path, name = parse_reference(reference)
    if kind == REGISTRY:
        from ..sources.registry.reference import parse  # urllib3, for registries only

        found = parse(path.removeprefix("//"))
        digest = f"@{found.digest}" if found.digest else ""
        tag = f":{found.tag}" if found.tag else ""
        return split_name(found.repository + tag + digest)
    if name is not None and name.startswith("@"):
        return stem(path), name[1:]
    if name is not None or kind in DAEMONS:
        return split_name(name or path)
    return stem(path), "latest"


def _is_list(path: str, source: str) -> bool:
    """Return True if a path is a file of text, and not an archive."""
    if path != source or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(_PROBE)
    except OSError as error:
        raise SourceError(f"{quoted(path)}: {error.strerror}") from error
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        text = start[: error.start].decode() if error.start > _PROBE - 4 else "\0"
    return all(character.isprintable() or character in "\t\r\n" for character in text)


def _lines(source: str) -> Iterator[str]:
    """Yield the references in a list."""
    named = "standard input" if source == "-" else quoted(source)
    try:
        with ExitStack() as stack:
            file = sys.stdin
            if source != "-":
                file = stack.enter_context(open(source, encoding="utf-8"))
            while line := file.readline(_MAX_LINE + 1):
                if len(line) > _MAX_LINE:
                    raise UsageError(
                        f"{named}: a line of more than {_MAX_LINE:,} characters"
                    )
                if (text := line.strip()) and not text.startswith("#"):
                    yield text
    except UnicodeDecodeError as error:
        raise UsageError(f"{named}: not a list of references: not text") from error
    except OSError as error:
        raise SourceError(f"{named}: {error.strerror}") from error


def _tagged(path: str, options: Options) -> Iterator[str]:
    """Yield the images of a repository whose tags match."""
    path = path.removeprefix("//")
    head, slash, last = path.rpartition("/")
    last, colon, pattern = last.partition(":")
    if "@" in path or (colon and _WILD.isdisjoint(pattern)):
        yield f"{REGISTRY}://{path}"
        return
    from ..sources.registry.lookup import list_tags  # urllib3, for registries only

    repository = head + slash + last
    found = False
    for tag in list_tags(repository, options.access):
        if fnmatch.fnmatchcase(tag, pattern or "*"):
            found = True
            yield f"{REGISTRY}://{repository}:{tag}"
    if not found:
        raise SourceError(f"{REGISTRY}://{shown(path)}: no tag matches")


def _in_directory(path: str, options: Options) -> Iterator[str]:
    """Yield the images of a layout or an engine's root, or what is in a directory."""
    from ..sources.open import open_source

    try:
        with open_source(path, options) as opened:
            names = [entry.names for entry in opened.entries]
    except SourceError:
        yield from _listed(path)
        return
    times = Counter(itertools.chain.from_iterable(names))
    for at, called in enumerate(names):
        unique = [name for name in called if times[name] == 1]
        yield from (f"{path}#{name}" for name in unique or [f"@{at}"])


def _listed(path: str) -> Iterator[str]:
    """Yield what is in a directory and not hidden, sorted."""
    try:
        entries = sorted(os.listdir(path))
    except OSError as error:
        raise SourceError(f"{quoted(path)}: {error.strerror}") from error
    entries = [entry for entry in entries if not entry.startswith(".")]
    if not entries:
        raise SourceError(f"{quoted(path)}: no image in it")
    yield from (os.path.join(path, entry) for entry in entries)


def _matching(pattern: str) -> Iterator[str]:
    """Yield the paths that match a glob, sorted."""
    found = sorted(glob.glob(pattern))
    if not found:
        raise SourceError(f"{quoted(pattern)}: nothing matches")
    yield from found


def _matching_urls(pattern: str) -> Iterator[str]:
    """Yield the URLs of the objects that match a glob, sorted."""
    with fsspec_errors(shown(pattern)):
        files, path = fsspec_files(pattern, shown(pattern))
        found = sorted(map(files.unstrip_protocol, files.glob(path)))
    if not found:
        raise SourceError(f"{shown(pattern)}: nothing matches")
    yield from found
