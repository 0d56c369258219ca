"""What jobs share in one process: layers by diff_id, and trees of common bases."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from builders import layer, member
from flatten.batch import worker
from flatten.batch.jobs import Common, JobList
from flatten.batch.resolve import Names, collect, fingerprint, inspect
from flatten.batch.retries import Retries
from flatten.batch.run import Order, run_jobs
from flatten.batch.shared import Shared
from flatten.image.history import Point
from flatten.options import Options
from flatten.pipeline import plan_image
from flatten.plan.pieces import pieces
from flatten.sources.open import open_image
from fleets import BASE, delta, fleet, oci_archive

OTHER = layer(member("other", b"o" * 200_000))


def jobs_of(paths, out, options):
    """Return the jobs of some archives, in their order."""
    common = Common(options, fingerprint(options))
    with JobList() as found:
        names = Names(f"{out}/{{name}}.tar", options)
        assert not list(collect(map(str, paths), names, common, Retries(0), found))
        assert not list(inspect(found, common, Retries(0), force=False))
        return list(found.pending()), common


def written(folder, *images):
    """Write archives of images, given by their layers."""
    paths = []
    for at, tars in enumerate(images):
        paths.append(folder / f"image{at}.tar")
        paths[-1].write_bytes(oci_archive(tars))
    return paths


@pytest.fixture
def shared_of(tmp_path):
    """Return the sharing of some images, given by their layers, and their jobs."""

    def make(*images, memory=1 << 30, options=None):
        paths = written(tmp_path, *images)
        jobs, common = jobs_of(paths, tmp_path, options or Options())
        return Shared(common, memory), jobs

    return make


def reused(shared, job):
    """Return how many layers of a job's image are shared, and how many are stacked."""
    with open_image(job.source) as opened:
        image, stack = shared.reuse(opened)
        count = sum(
            one is not two for one, two in zip(image.layers, opened.layers, strict=True)
        )
        return count, stack.layers if stack else 0


def test_the_lowest_layers_that_others_have_are_stacked(shared_of):
    shared, jobs = shared_of([*BASE, *delta(0)], [*BASE, *delta(2)])
    for job in jobs:
        shared.prepare(job)
        assert reused(shared, job) == (2, 2)


def test_a_layer_that_others_have_above_their_own_is_shared(shared_of):
    shared, jobs = shared_of([BASE[0], OTHER], [BASE[1], OTHER])
    for job in jobs:
        shared.prepare(job)
        assert reused(shared, job) == (1, 0)


def test_an_image_alone_shares_nothing(shared_of):
    shared, (job,) = shared_of([*BASE, *delta(0)])
    shared.prepare(job)

    assert reused(shared, job) == (0, 0)


def test_the_tree_below_is_kept_for_those_that_follow(shared_of):
    """Two have another layer on the base, and the others do not."""
    images = [[*BASE, OTHER, *delta(0)], [*BASE, OTHER, *delta(2)]]
    shared, jobs = shared_of(*images, [*BASE, *delta(4)], [*BASE, *delta(6)])
    found = []
    for job in jobs:
        shared.prepare(job)
        found.append(reused(shared, job))

    assert sorted(found) == [(2, 2), (2, 2), (3, 3), (3, 3)]


def test_layers_that_were_not_used_for_longest_are_dropped(shared_of):
    images = [[*BASE, *delta(0)], [*BASE, *delta(2)], [OTHER, *delta(4)], [OTHER]]
    shared, jobs = shared_of(*images, memory=220_000)
    base = [job for job in jobs if job.uses[1:2] == (2,)]
    other = [job for job in jobs if job not in base]
    shared.prepare(base[0])
    assert reused(shared, base[1]) == (2, 2)
    shared.prepare(other[0])

    assert reused(shared, other[1])[0] == 1
    assert reused(shared, base[1])[0] < 2


def test_a_layer_with_a_warning_is_left_to_each_image(shared_of):
    twice = layer(member("a", b"1"), member("a", b"2"))
    shared, jobs = shared_of([twice, *delta(0)], [twice, *delta(2)])
    for job in jobs:
        shared.prepare(job)
        assert reused(shared, job) == (1, 0)


def test_a_delta_shares_nothing(shared_of):
    options = Options(since=Point(layer=1))
    shared, jobs = shared_of([*BASE, *delta(0)], [*BASE, *delta(2)], options=options)
    shared.prepare(jobs[0])

    assert reused(shared, jobs[0]) == (0, 0)


def test_a_plan_from_a_copy_of_a_tree_is_that_from_the_layers(shared_of):
    shared, jobs = shared_of(
        [*BASE, OTHER, *delta(1)], [*BASE, OTHER, *delta(3)], [*BASE, *delta(5)]
    )
    for job in jobs:
        shared.prepare(job)
        with open_image(job.source) as image:
            expected = list(pieces(plan_image(image)))
        with open_image(job.source) as opened:
            image, stack = shared.reuse(opened)
            stack = stack and type(stack)(stack.tree.copy(), stack.layers)
            assert list(pieces(plan_image(image, stack=stack))) == expected


def test_no_more_jobs_are_begun_than_asked_for(tmp_path):
    jobs, common = jobs_of(fleet(tmp_path / "in", 9), tmp_path / "out", Options())
    begun = []
    taken = (begun.append(job) or job for job in jobs)
    executor = ThreadPoolExecutor(1)
    try:
        order = Order(iter([taken]), 1, 2)
        for ended, _ in enumerate(run_jobs(order, executor, common, Retries())):
            assert len(begun) <= ended + 2
    finally:
        worker.stop()
        executor.shutdown()

    assert ended == 8


def test_a_run_goes_on_when_its_job_has_ended(tmp_path):
    """Two runs of three at a time, one job of each."""
    jobs, common = jobs_of(fleet(tmp_path / "in", 6), tmp_path / "out", Options())
    begun = []

    def run(part):
        for job in part:
            begun.append(job)
            yield job

    executor = ThreadPoolExecutor(2)
    order = Order((run(jobs[at : at + 2]) for at in (0, 2, 4)), 2, 1)
    try:
        ended = []
        for result in run_jobs(order, executor, common, Retries()):
            ended.append(result.output)
            assert len(begun) <= len(ended) + 2
    finally:
        worker.stop()
        executor.shutdown()

    assert begun[0] is jobs[0]
    assert begun[1] is jobs[2]
    assert sorted(ended) == sorted(job.targets[0].path for job in jobs)
