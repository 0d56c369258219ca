"""Headers of every format, and what flatten reads in them."""

import flatten
from builders import block, long_name, number, padded, pax, record
from flatten.tar.layer import read_layer
from flatten.tar.members import Members

GNU = b"ustar  \0"
NAMES = {
    "star's prefix": (
        block(b"b", tail=(b"p" * 130 + b"\x0012345670000 12345670000 ").ljust(163, b"\0")
              + b"tar\0"), b"p" * 130 + b"/b",
    ),
    "v7": (block(b"a/b", magic=b"", uname=b""), b"a/b"),
    "ustar with a prefix": (block(b"b", tail=b"p" * 155), b"p" * 155 + b"/b"),
    "ustar with a full name and prefix": (
        block(b"n" * 100, tail=b"p/q"), b"p/q/" + b"n" * 100,
    ),
    "GNU has no prefix": (block(b"b", magic=GNU, tail=b"12345670000\0" * 2), b"b"),
    "a name of exactly 100 bytes": (block(b"n" * 100), b"n" * 100),
    "a GNU long name": (long_name(b"n" * 300) + block(b"n" * 100, magic=GNU), b"n" * 300),
    "a PAX path": (pax({b"path": b"n" * 300}) + block(b"x"), b"n" * 300),
    "a long name and the same PAX path": (
        long_name(b"n" * 101) + pax({b"path": b"n" * 101}) + block(b"x"), b"n" * 101,
    ),
    "records before the end, for no member": (
        block(b"x") + pax({b"path": b"n"}) + bytes(1024), b"x",
    ),
    "a label is skipped": (block(b"label", b"V") + block(b"x"), b"x"),
    "an uname in the PAX records is dropped": (pax({b"uname": b"u"}) + block(b"x"), b"x"),
}  # fmt: skip
KINDS = {
    "0": (block(b"x", b"0"), "file"),
    "NUL, of old tars": (block(b"x", b"\0"), "file"),
    "NUL with a slash is a directory": (block(b"x/", b"\0"), "dir"),
    "0 with a slash is a file, as for Go and Python": (block(b"x/", b"0"), "file"),
    "7, contiguous": (block(b"x", b"7"), "file"),
    "1": (block(b"t", b"0") + block(b"x", b"1", target=b"t"), "hardlink"),
    "2": (block(b"x", b"2", target=b"y"), "symlink"),
    "3": (block(b"x", b"3", device=(5, 1)), "chr"),
    "4": (block(b"x", b"4", device=(7, 300_000_000)), "blk"),
    "5": (block(b"x", b"5"), "dir"),
    "5 with a slash": (block(b"x/", b"5"), "dir"),
    "6": (block(b"x", b"6"), "fifo"),
    "D, GNU incremental": (block(b"x", b"D", size=7) + padded(b"Ya\0Nb\0\0"), "dir"),
}


class Memory:
    """Layer bytes in memory that count what is read of them."""

    def __init__(self, data):
        self.data = data
        self.was_read = 0

    def read(self, offset, count):
        self.was_read += len(self.data[offset : offset + count])
        return self.data[offset : offset + count]

    def size(self):
        return len(self.data)


def index(tar, members=None):
    members = Members() if members is None else members
    return read_layer(Memory(tar), "layer", 0, members), members


def rows_or_error(tar, members=None):
    """Return all that is read of a layer, or the error; owners by their values."""
    members = Members() if members is None else members
    try:
        found, _ = index(tar, members)
    except flatten.FormatError as error:
        return str(error)
    columns = ("kinds", "layers", "sizes", "data", "mtimes", "targets", "extras")
    owners = [members.owner_table[owner] for owner in members.owners]
    return found, owners, {name: getattr(members, name) for name in columns}


def sparse_gnu(name, regions, size, data, magic=GNU):
    """Write an old GNU sparse member."""

    def slots(some, count):
        text = b"".join(number(value, 12) for region in some for value in region)
        return text.ljust(24 * count, b"\0")

    head, rest = regions[:4], regions[4:]
    tail = bytes(41) + slots(head, 4) + bytes([bool(rest)]) + number(size, 12)
    out = block(name, b"S", size=len(data), magic=magic, tail=tail)
    while rest:
        now, rest = rest[:21], rest[21:]
        out += (slots(now, 21) + bytes([bool(rest)])).ljust(512, b"\0")
    return out + padded(data)


def sparse_pax(version, name, regions, size, data):
    """Write a PAX sparse member of version 0.0, 0.1 or 1.0."""
    numbers = [number for region in regions for number in region]
    if version == "1.0":
        lines = b"".join(b"%d\n" % n for n in [len(regions), *numbers])
        data = padded(lines) + data
        records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0",
                   b"GNU.sparse.name": name, b"GNU.sparse.realsize": b"%d" % size}  # fmt: skip
        return pax(records) + block(b"GNUSparseFile.1/x", size=len(data)) + padded(data)
    body = record(b"GNU.sparse.size", b"%d" % size)
    body += record(b"GNU.sparse.numblocks", b"%d" % len(regions))
    if version == "0.1":
        body += record(b"GNU.sparse.name", name)
        body += record(b"GNU.sparse.map", b",".join(b"%d" % n for n in numbers))
    else:
        for offset, length in regions:
            body += record(b"GNU.sparse.offset", b"%d" % offset)
            body += record(b"GNU.sparse.numbytes", b"%d" % length)
    return pax(body) + block(name, size=len(data)) + padded(data)
