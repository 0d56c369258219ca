"""The whole batch: references to jobs, jobs to an executor, results as they come.

The seam is ``concurrent.futures.Executor``: whatever implements it can run a batch.
Without another one, threads of this process wait for the children of its fork server.
"""

import heapq
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Final

from ..errors import FlattenError
from ..options import Options
from .engines import engine
from .jobs import Common, Job, JobList
from .references import expand, in_shard
from .resolve import Names, collect, fingerprint, inspect
from .results import Result, again, lost
from .retries import Retries
from .worker import LostWorkerError, work

_LOSSES: Final = 2  # times that a job's process is killed until the job has failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to run a batch.

    Attributes:
        jobs: Images that are made at a time on this machine; None is one a processor.
        cluster: The address of a Dask scheduler, or ``local`` for one on this machine;
            None needs no Dask.
        shard: This machine's shard, from 0, and the number of shards.
        retries: How often to try again.
        force: Make outputs again that are complete.
        sync: Wait until files are on the disk before they get their names.
    """

    jobs: int | None = None
    cluster: str | None = None
    shard: tuple[int, int] = (0, 1)
    retries: Retries = field(default_factory=Retries)
    force: bool = False
    sync: bool = True


def run(
    sources: Iterable[str],
    output: str,
    options: Options,
    settings: Settings,
    planned: Callable[[int], object] = lambda _: None,
) -> Iterator[Result]:
    """Make the outputs of all images that some sources stand for.

    Args:
        sources: Lists, globs, directories, repositories (``references.expand``).
        output: A template of output names.
        options: The options of each export.
        settings: How to run it.
        planned: Called with the number of jobs before the first one begins.

    Yields:
        A result for each output as it ends. Nothing is made before all references are
        looked up.

    Raises:
        UsageError: The template is not valid, or two images would have one output.
        FlattenError: The sources cannot be read, or the cluster cannot be reached.
    """
    names = Names(output, options)
    references = in_shard(expand(sources, options), *settings.shard)
    with JobList() as jobs, ExitStack() as stack:
        common = Common(options, fingerprint(options), settings.sync)
        yield from collect(references, names, common, settings.retries, jobs)
        yield from inspect(jobs, common, settings.retries, force=settings.force)
        planned(jobs.count())
        if not jobs.count():
            return
        executor, workers = stack.enter_context(engine(settings.cluster, settings.jobs))
        common = replace(common, slots=1 if settings.cluster else workers)
        running = run_jobs(
            jobs.pending(), executor, common, settings.retries, 2 * workers
        )
        with closing(running):
            yield from running


@dataclass(slots=True)
class _Attempt:
    """A job, and what happened to it.

    Attributes:
        number: Number of this attempt, from 1.
        losses: Times that its process was killed.
    """

    job: Job
    number: int = 1
    losses: int = 0


def run_jobs(
    jobs: Iterable[Job],
    executor: Executor,
    common: Common,
    retries: Retries,
    most: int,
) -> Generator[Result]:
    """Run jobs by an executor; yield their results as they come.

    Args:
        jobs: The jobs, which are taken from it as others end.
        executor: Runs them.
        common: What they have in common.
        retries: How often to try again.
        most: Maximum number of jobs that have begun and not ended.
    """
    running: dict[Future[list[Result]], _Attempt] = {}
    later: list[tuple[float, int, _Attempt]] = []
    order = itertools.count()
    attempts = map(_Attempt, jobs)
    try:
        while True:
            while later and later[0][0] <= time.monotonic():
                _submit(executor, heapq.heappop(later)[2], common, running)
            for attempt in itertools.islice(attempts, most - len(running) - len(later)):
                _submit(executor, attempt, common, running)
            if not running and not later:
                return
            pause = max(later[0][0] - time.monotonic(), 0) if later else None
            if not running:
                time.sleep(pause or 0)
                continue
            for future in wait(running, pause, FIRST_COMPLETED).done:
                attempt = running.pop(future)
                results = _results(future, attempt)
                due = _due(results, attempt, retries)
                if due is None:
                    yield from (again(result, attempt.number) for result in results)
                    continue
                attempt.number += 1
                heapq.heappush(later, (time.monotonic() + due, next(order), attempt))
    finally:
        for future in running:
            future.cancel()


def _submit(
    executor: Executor,
    attempt: _Attempt,
    common: Common,
    running: dict[Future[list[Result]], _Attempt],
) -> None:
    running[executor.submit(work, attempt.job, common)] = attempt


def _results(future: Future[list[Result]], attempt: _Attempt) -> list[Result]:
    """Return the results of a job, and count how often it was lost.

    An executor that gives up has tried again itself: Dask raises KilledWorker after
    several workers have died.
    """
    error = future.exception()
    if error is None:
        results = future.result()
        attempt.losses += any(result.lost for result in results)
        return results
    if not isinstance(error, Exception):
        raise error
    attempt.losses += 1 if isinstance(error, LostWorkerError) else _LOSSES
    name = type(error).__name__
    return lost(attempt.job, FlattenError(f"a worker process was lost ({name})"))


def _due(results: list[Result], attempt: _Attempt, retries: Retries) -> float | None:
    """Return the seconds until a job is tried again; None if its results are final."""
    if attempt.losses >= _LOSSES:
        return None
    waits = [
        retries.due(attempt.number, result.exit_code)
        for result in results
        if result.state == "failed"
    ]
    return min((wait for wait in waits if wait is not None), default=None)
