"""Executors for a batch: threads over this machine's fork server, or a Dask cluster."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

from ..errors import FlattenError, shown
from ..host.limits import processors
from . import worker

LOCAL = "local"
"""The address that stands for a Dask cluster on this machine."""

_CONNECTING = 30  # seconds


@contextmanager
def engine(cluster: str | None, jobs: int | None) -> Iterator[tuple[Executor, int]]:
    """Yield an executor, and the number of jobs that it runs at a time.

    Args:
        cluster: The address of a Dask scheduler, ``local``, or None for none.
        jobs: Jobs at a time on this machine; None is one a processor.

    Raises:
        FlattenError: Dask is not installed, or the scheduler cannot be reached.
    """
    jobs = jobs or processors()
    if cluster is not None:
        with _dask(cluster, jobs) as found:
            yield found
        return
    threads = ThreadPoolExecutor(jobs)
    try:
        yield threads, jobs
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        worker.stop()  # the threads' jobs end
        threads.shutdown()


@contextmanager
def _dask(cluster: str, jobs: int) -> Iterator[tuple[Executor, int]]:
    try:
        from distributed import Client, LocalCluster  # 500 ms
    except ImportError as error:
        raise FlattenError(
            "--cluster needs Dask: pip install 'flatten-image[cluster]'"
        ) from error
    if cluster == LOCAL:
        with (
            LocalCluster(
                n_workers=jobs, threads_per_worker=1, dashboard_address=None
            ) as own,
            Client(own) as client,
        ):
            yield client.get_executor(), jobs
        return
    try:
        client = Client(cluster, timeout=_CONNECTING)
    except (OSError, ValueError) as error:
        raise FlattenError(
            f"--cluster {shown(cluster)}: cannot connect: {error}"
        ) from error
    with client:
        threads = client.nthreads()
        if not threads:
            raise FlattenError(f"--cluster {shown(cluster)}: it has no workers")
        yield client.get_executor(), sum(threads.values())
