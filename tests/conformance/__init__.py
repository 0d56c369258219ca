"""A conformance kit for tools that merge the layers of a container image.

Each case is a small image built in code and the tree that it must become. The kit needs
Python 3.11 and its standard library, and it can be copied out of this repository::

    python -m tests.conformance 'mytool {in} {out}'

docs/conformance.md says how to run it and how some tools do.
"""
