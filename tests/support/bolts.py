"""Writes bbolt files for tests: nested dicts to pages, right or wrong.

Shares nothing with the package's reader but the documents that describe the format.
"""

import struct

PAGE = 512


def fnv(data):
    value = 14695981039346656037
    for byte in data:
        value = (value ^ byte) * 1099511628211 % 2**64
    return value


def meta(number, root, high, transaction, *, page_size=PAGE, version=2, checksum=None):
    """Write a meta page."""
    head = struct.pack("<QHHI", number, 4, 0, 0)
    body = struct.pack(
        "<IIIIQQQQQ", 0xED0CDAED, version, page_size, 0, root, 0, 2, high, transaction
    )
    sum_ = fnv(body) if checksum is None else checksum
    return (head + body + struct.pack("<Q", sum_)).ljust(page_size, b"\0")


def leaf(number, elements, *, overflow=0, count=None, flags=2):
    """Write a leaf page from (flags, key, value); not padded."""
    count = len(elements) if count is None else count
    out = struct.pack("<QHHI", number, flags, count, overflow)
    at = 16 * len(elements)
    data = b""
    for position, (kind, key, value) in enumerate(elements):
        start = at + len(data) - 16 * position
        out += struct.pack("<IIII", kind, start, len(key), len(value))
        data += key + value
    return out + data


def branch(number, children, *, count=None):
    """Write a branch page from (key, page); not padded."""
    count = len(children) if count is None else count
    out = struct.pack("<QHHI", number, 1, count, 0)
    at, data = 16 * len(children), b""
    for position, (key, child) in enumerate(children):
        out += struct.pack("<IIQ", at + len(data) - 16 * position, len(key), child)
        data += key
    return out + data


class Writer:
    """Lays out a tree of dicts: pages of a few elements, below branches of a few."""

    def __init__(self, few=3):
        self.few = few
        self.pages = {}

    def add(self, make):
        """Give ``make(number, overflow)``'s page the next number."""
        number = 3 + sum(len(data) // PAGE for data in self.pages.values())
        data = make(number, 0)
        overflow = (len(data) - 1) // PAGE
        self.pages[number] = make(number, overflow).ljust((overflow + 1) * PAGE, b"\0")
        return number

    def bucket(self, tree, inline=False):
        """Write a dict's pages and return the value of its leaf element."""
        small = not any(isinstance(value, dict) for value in tree.values())
        if inline and small and len(tree) <= self.few:
            page = leaf(0, [(0, key, tree[key]) for key in sorted(tree)])
            return struct.pack("<QQ", 0, 0) + page
        elements = [
            (1, key, self.bucket(value, inline=True))
            if isinstance(value, dict)
            else (0, key, value)
            for key, value in sorted(tree.items())
        ]
        runs = [
            elements[i : i + self.few] for i in range(0, len(elements), self.few)
        ] or [[]]
        level = [
            (run[0][1] if run else b"",
             self.add(lambda number, over, run=run: leaf(number, run, overflow=over)))
            for run in runs
        ]  # fmt: skip
        while len(level) > 1:
            runs = [level[i : i + self.few] for i in range(0, len(level), self.few)]
            level = [
                (run[0][0], self.add(lambda number, _, run=run: branch(number, run)))
                for run in runs
            ]
        return struct.pack("<QQ", level[0][1], 0)


def bolt(tree, *, few=3, transaction=7):
    """Write a file that holds a tree of dicts with keys and values of bytes."""
    writer = Writer(few)
    root = struct.unpack_from("<Q", writer.bucket(tree))[0]
    high = 3 + sum(len(data) // PAGE for data in writer.pages.values())
    freelist = struct.pack("<QHHI", 2, 16, 0, 0).ljust(PAGE, b"\0")
    metas = meta(0, root, high, transaction) + meta(1, 99, high, transaction - 1)
    return metas + freelist + b"".join(writer.pages.values())


def pages(*bodies, root=3, high=None):
    """Write a file from bodies of pages, from page 3 on, as they are."""
    high = 3 + len(bodies) if high is None else high
    out = meta(0, root, high, 2) + meta(1, root, high, 1) + bytes(PAGE)
    return out + b"".join(body.ljust(PAGE, b"\0") for body in bodies)
