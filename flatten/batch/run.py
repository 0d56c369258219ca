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

_RUNS: Final = 4  # runs of jobs for each worker of a cluster
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
) -> Generator[Result]:
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
        if settings.cluster is None:
            common = replace(common, slots=workers)
            order = Order(iter([jobs.pending()]), 1, 2 * workers)
        else:
            order = Order(jobs.runs(_RUNS * workers), workers, 1)
        running = run_jobs(order, executor, common, settings.retries)
        with closing(running):
            yield from running


@dataclass(frozen=True, slots=True)
class Order:
    """The order in which jobs are begun.

    On this machine all jobs are one run, since they share one set of layers. On a
    cluster each worker has its own: the next job of a run is submitted when the one
    before has ended, and so goes to the worker that was just doing it.

    Attributes:
        runs: Jobs, in runs of those with common layers.
        most: Number of runs that are begun and not ended.
        jobs: Number of jobs of a run that are begun and not ended.
    """

    runs: Iterator[Iterator[Job]]
    most: int
    jobs: int


@dataclass(slots=True)
class _Run:
    """A run of jobs, and how many of them have begun and not ended."""

    jobs: Iterator[Job]
    running: int = 0


@dataclass(slots=True)
class _Attempt:
    """A job, and what happened to it.

    Attributes:
        number: Number of this attempt, from 1.
        losses: Times that its process was killed.
    """

    job: Job
    run: _Run
    number: int = 1
    losses: int = 0


def run_jobs(
    order: Order, executor: Executor, common: Common, retries: Retries
) -> Generator[Result]:
    """Run jobs by an executor; yield their results as they come.

    Args:
        order: The jobs, which are taken from it as others end.
        executor: Runs them.
        common: What they have in common.
        retries: How often to try again. A job that waits for that counts as running.
    """
    running: dict[Future[list[Result]], _Attempt] = {}
    later: list[tuple[float, int, _Attempt]] = []
    tie = itertools.count()
    attempts = _attempts(order)
    try:
        while True:
            while later and later[0][0] <= time.monotonic():
                _submit(executor, heapq.heappop(later)[2], common, running)
            while (attempt := next(attempts)) is not None:
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
                    attempt.run.running -= 1
                    yield from (again(result, attempt.number) for result in results)
                    continue
                attempt.number += 1
                heapq.heappush(later, (time.monotonic() + due, next(tie), attempt))
    finally:
        for future in running:
            future.cancel()


def _attempts(order: Order) -> Iterator[_Attempt | None]:
    """Yield the next job to begin, or None while enough have begun, for ever."""
    begun: list[_Run] = []
    while True:
        while len(begun) < order.most and (jobs := next(order.runs, None)) is not None:
            begun.append(_Run(jobs))
        free = next((run for run in begun if run.running < order.jobs), None)
        if free is None:
            yield None
        elif (job := next(free.jobs, None)) is None:
            begun.remove(free)
        else:
            free.running += 1
            yield _Attempt(job, free)


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
