"""The list of jobs: one a digest, in the order of their layers."""

import random
import tracemalloc
from dataclasses import replace

import pytest

from flatten.batch.jobs import JobList, Target
from flatten.errors import UsageError

A, B, C, D = (bytes([value]) * 8 for value in range(1, 5))


@pytest.fixture
def jobs():
    with JobList() as found:
        yield found


def add(jobs, name, *layers, path=None):
    """Add a job and what is left of it; its digest is its name."""
    jobs.add(name, f"source of {name}", Target(name, path or f"out/{name}"))
    for job in jobs:
        if job.digest == name:
            jobs.pend(job, layers)


def test_jobs_follow_those_with_the_same_lowest_layers(jobs):
    for name, layers in {
        "1": (A, B, C), "2": (D,), "3": (A, B, D), "4": (A, B), "5": (A, C),
    }.items():  # fmt: skip
        add(jobs, name, *layers)

    assert [job.digest for job in jobs.pending()] == ["4", "1", "3", "5", "2"]


def test_jobs_know_how_many_have_each_layer(jobs):
    add(jobs, "1", A, B, B)
    add(jobs, "2", A, C)

    assert [job.uses for job in jobs.pending()] == [(2, 1, 1), (2, 1)]


def test_references_with_one_digest_are_one_job(jobs):
    for name in "ba":
        jobs.add("digest", "source", Target(name, f"out/{name}"))
    (job,) = jobs
    jobs.pend(job, [A])

    (job,) = jobs.pending()
    assert job.targets == (Target("a", "out/a"), Target("b", "out/b"))


def test_a_reference_that_is_listed_twice_has_one_output(jobs):
    for _ in range(2):
        jobs.add("digest", "source", Target("a", "out/a"))

    (job,) = jobs
    assert job.targets == (Target("a", "out/a"),)


def test_two_images_cannot_have_one_output(jobs):
    jobs.add("1", "source", Target("a", "out/x"))

    with pytest.raises(UsageError, match=r"'b' and 'a' would both .* 'out/x'"):
        jobs.add("2", "source", Target("b", "out/x"))


@pytest.mark.parametrize("paths", [("x", "x.json"), ("x.json", "x")])
def test_an_output_cannot_be_the_document_of_another(jobs, paths):
    jobs.add("1", "source", Target("a", paths[0]))

    with pytest.raises(UsageError, match="would both be written"):
        jobs.add("2", "source", Target("b", paths[1]))


def test_only_what_is_left_of_a_job_is_pending(jobs):
    for name in "ab":
        jobs.add("digest", "source", Target(name, f"out/{name}"))
    jobs.add("other", "source", Target("c", "out/c"))
    for job in jobs:
        if job.digest == "digest":
            jobs.pend(replace(job, targets=job.targets[1:]), [])

    (job,) = jobs.pending()
    assert job.targets == (Target("b", "out/b"),)
    assert jobs.count() == 1


@pytest.mark.parametrize("count", [0, 1, 2, 7, 600])
@pytest.mark.parametrize("most", [1, 3, 10])
def test_runs_are_the_jobs_in_their_order(jobs, count, most):
    dice = random.Random(count)
    for at in range(count):
        jobs.add(f"{at}", "source", Target(f"{at}", f"out/{at}"))
    for job in jobs:
        jobs.pend(job, [A, dice.choice((A, B, C, D))] if job.number % 9 else [])
    runs = [[job.number for job in run] for run in jobs.runs(most)]

    assert sum(runs, []) == [job.number for job in jobs.pending()]  # noqa: RUF017
    assert len(runs) == min(most, count)
    assert max(map(len, runs), default=0) <= -(-count // most)


def test_many_jobs_are_not_in_memory(jobs):
    dice = random.Random(1)
    tracemalloc.start()
    for at in range(20_000):
        jobs.add(f"sha256:{at:064}", f"source {at}", Target(f"{at}", f"out/{at}"))
    for job in jobs:
        jobs.pend(job, [A, dice.randbytes(8)])
    chains = [job.layers for job in jobs.pending() if job.number % 100 == 0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert chains == sorted(chains)
    assert len(chains) == 200
    assert peak < 2 << 20
