"""All tests of this folder run with the kernel for headers, and without it."""

import pytest


@pytest.fixture(autouse=True)
def both_ways(headers_by):
    """Run each test with and without the kernel."""
