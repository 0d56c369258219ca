"""The jobs of a batch: one an image and digest, in the order of their layers.

They are kept in a temporary database on disk, as there may be millions of them.
"""

import itertools
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from ..errors import FlattenError, UsageError, quoted
from ..options import Options
from .names import key_path

ID: Final = 8  # bytes of a diff_id that stand for the layer in the order of jobs
_AT_ONCE: Final = 500  # rows read at once

_SCHEMA: Final = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, source TEXT NOT NULL,
    known BLOB NOT NULL, layers BLOB
);
CREATE INDEX by_layers ON jobs (layers, id);
CREATE TABLE outputs (
    path TEXT PRIMARY KEY, job INTEGER, reference TEXT NOT NULL, documents TEXT
) WITHOUT ROWID;
CREATE INDEX by_job ON outputs (job);
CREATE TABLE layers (id BLOB PRIMARY KEY, uses INTEGER NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Target:
    """An output of a job.

    Attributes:
        reference: The reference that it is made for, as in the list.
        path: Its path or URL.
        documents: The fields of ``Options`` that name more files to write, and those.
    """

    reference: str
    path: str
    documents: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """An image to make, and where to.

    Attributes:
        number: Its number in the batch.
        source: The reference that is read, with the digest where it can have one.
        digest: What the reference stands for: the digest of a manifest or an index, or
            an image's id.
        targets: Its outputs; they get the same bytes.
        layers: The first ``ID`` bytes of each diff_id, oldest first; empty if some
            are not known.
        uses: For each layer, the number of jobs that have it.
    """

    number: int
    source: str
    digest: str
    targets: tuple[Target, ...]
    layers: tuple[bytes, ...] = ()
    uses: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Common:
    """What all jobs of a batch have in common.

    Attributes:
        options: The options of the export.
        fingerprint: A digest of those that change the output.
        sync: Wait until files are on the disk before they get their names.
        slots: Jobs that a machine does at a time.
    """

    options: Options
    fingerprint: str
    sync: bool = True
    slots: int = 1


class JobList:
    """The jobs, in a temporary database; one thread uses it."""

    def __init__(self) -> None:
        """Create an empty list."""
        self._database = sqlite3.connect("")  # a temporary file, deleted on closing
        self._database.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        """Return the list."""
        return self

    def __exit__(self, *_: object) -> None:
        """Delete it."""
        self._database.close()

    def add(
        self, digest: str, source: str, target: Target, layers: Sequence[bytes] = ()
    ) -> None:
        """Add an output, to the job with that digest or to a new one.

        Args:
            digest: What the reference stands for.
            source: The reference to read.
            target: The output.
            layers: The image's layers, if they are known.

        Raises:
            UsageError: The output has the name of another image's output, or of the
                document beside it.
        """
        run = self._database.execute
        try:
            run(
                "INSERT OR IGNORE INTO jobs (digest, source, known) VALUES (?, ?, ?)",
                (digest, source, b"".join(layers)),
            )
            (number,) = run(
                "SELECT id FROM jobs WHERE digest = ?", (digest,)
            ).fetchone()
            self._claim(target.path, number, target)
            for _, path in (("", key_path(target.path)), *target.documents):
                self._claim(path, None, target)
        except sqlite3.Error as error:
            raise _failed(error) from error

    def _claim(self, path: str, job: int | None, target: Target) -> None:
        """Reserve a path for a job's output or, without a job, for a document."""
        run = self._database.execute
        found = run("SELECT job, reference FROM outputs WHERE path = ?", (path,))
        row = found.fetchone()
        if row is None:
            documents = json.dumps(target.documents)
            values = path, job, target.reference, documents
            run("INSERT INTO outputs VALUES (?, ?, ?, ?)", values)
        elif row[0] != job or (job is None and row[1] != target.reference):
            raise UsageError(
                f"{quoted(target.reference)} and {quoted(row[1])} would both be "
                f"written to {quoted(path)}; name them apart with {{tag}} or {{digest}}"
            )

    def __iter__(self) -> Iterator[Job]:
        """Yield all jobs, in the order in which they were added.

        Jobs may be changed in between.
        """
        last = 0
        while rows := self._rows("known", "id > ? ORDER BY id", (last,)):
            for number, source, digest, known in rows:
                yield Job(number, source, digest, self._targets(number), _split(known))
                last = number

    def pend(self, job: Job, layers: Sequence[bytes]) -> None:
        """Set what is left to do of a job: its targets, and its image's layers."""
        run = self._database.execute
        chain = b"".join(layers)
        try:
            run("UPDATE jobs SET layers = ? WHERE id = ?", (chain, job.number))
            for target in set(self._targets(job.number)) - {*job.targets}:
                run("UPDATE outputs SET job = NULL WHERE path = ?", (target.path,))
            self._database.executemany(
                "INSERT INTO layers VALUES (?, 1) "
                "ON CONFLICT (id) DO UPDATE SET uses = uses + 1",
                [(layer,) for layer in {*layers}],
            )
        except sqlite3.Error as error:
            raise _failed(error) from error

    def pending(self, start: int = 0, stop: int | None = None) -> Iterator[Job]:
        """Yield the jobs that are left, those with common lowest layers in a row.

        Args:
            start: Position in that order of the first one.
            stop: Position after the last one; None is the end.
        """
        left = self.count() if stop is None else stop
        left -= start
        chain, last = b"", 0
        if start:
            where = "layers NOT NULL ORDER BY layers, id"
            ((last, _, _, chain),) = self._rows("layers", where, (), 1, start - 1)
        where = "(layers, id) > (?, ?) ORDER BY layers, id"
        while rows := self._rows("layers", where, (chain, last), min(left, _AT_ONCE)):
            for number, source, digest, chain in rows:
                ids = _split(chain)
                uses = tuple(map(self._uses, ids))
                yield Job(number, source, digest, self._targets(number), ids, uses)
                last = number
            left -= len(rows)

    def runs(self, most: int) -> Iterator[Iterator[Job]]:
        """Yield at most so many parts of the jobs that are left, each a row of them."""
        count = self.count()
        stops = sorted({count * at // most for at in range(most + 1)})
        for start, stop in itertools.pairwise(stops):
            yield self.pending(start, stop)

    def count(self) -> int:
        """Return the number of jobs that are left."""
        row = self._database.execute("SELECT count(layers) FROM jobs").fetchone()
        return int(row[0])

    def _rows(
        self,
        layers: str,
        where: str,
        values: tuple[object, ...],
        most: int = _AT_ONCE,
        skip: int = 0,
    ) -> list[tuple[int, str, str, bytes]]:
        query = (
            f"SELECT id, source, digest, {layers} FROM jobs WHERE {where} "
            "LIMIT ? OFFSET ?"
        )
        try:
            return self._database.execute(query, (*values, most, skip)).fetchall()
        except sqlite3.Error as error:
            raise _failed(error) from error

    def _targets(self, job: int) -> tuple[Target, ...]:
        query = (
            "SELECT reference, path, documents FROM outputs WHERE job = ? ORDER BY path"
        )
        return tuple(
            Target(reference, path, tuple(map(tuple, json.loads(documents))))
            for reference, path, documents in self._database.execute(query, (job,))
        )

    def _uses(self, layer: bytes) -> int:
        query = "SELECT uses FROM layers WHERE id = ?"
        return int(self._database.execute(query, (layer,)).fetchone()[0])


def _split(chain: bytes) -> tuple[bytes, ...]:
    return tuple(chain[at : at + ID] for at in range(0, len(chain), ID))


def _failed(error: sqlite3.Error) -> FlattenError:
    return FlattenError(
        f"cannot keep the list of jobs in a temporary file: {error}; set TMPDIR to "
        "another directory"
    )
