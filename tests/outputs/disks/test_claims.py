"""The table of docs/machines.md says of each file system what our readers find in it."""

import stat
from pathlib import Path

import pytest

import flatten
from builders import docker_archive
from disks import HARD, TOOLS, found
from needs import need

DOCS = Path(__file__).parents[3] / "docs" / "machines.md"


def table():
    """Return the cells of the table, by output and row."""
    lines = DOCS.read_text().partition("### What each output holds\n\n")[2].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:20]]
    head, _, *rows = [row for row in rows if row]
    columns = {name.split("`")[1]: at for at, name in enumerate(head) if "`" in name}
    return {output: {row[0]: row[at] for row in rows} for output, at in columns.items()}


@pytest.mark.parametrize("kind", ["squashfs", "erofs", "ext4"])
def test_the_table_of_outputs_is_right(tmp_path, kind):
    need(*TOOLS[kind])
    (tmp_path / "i.tar").write_bytes(docker_archive(HARD))
    flatten.export(tmp_path / "i.tar", tmp_path / f"o.{kind}")
    claims, nodes = table()[f".{kind}"], found(tmp_path / f"o.{kind}")

    def said(row):
        return claims[row].replace("the same", "`user.*`, `trusted.*`, `security.*`")

    def years(name):
        return 1970 + nodes[name].mtime / 31_556_952

    names = {name for node in nodes.values() for name in node.xattrs}
    acls = {name for name in names if name.startswith(b"system.posix_acl")}
    assert said("fractions of a second") == (
        "yes" if nodes[b"t/half"].nanoseconds else "no"
    )
    assert said("POSIX ACLs") == ("yes" if acls else "no")
    assert {f"`{name.decode().split('.')[0]}.*`" for name in names - acls} <= set(
        said("xattrs").split(", ")
    )
    assert said("hard links") == "yes"
    assert nodes[b"h/file"].number == nodes[b"h/file 2"].number
    assert said("devices, FIFOs") == "yes"
    assert stat.S_ISBLK(nodes[b"h/blk"].mode)
    assert stat.S_ISFIFO(nodes[b"h/fifo"].mode)
    assert said("owners") == "any"
    assert nodes[b"set"].uid == 3_000_000
    bounds = said("earliest and latest mtime")
    early, late = (0, 9999) if bounds == "any" else map(int, bounds.split(", "))
    assert int(years(b"t/1969")) == max(early, 1969)
    assert round(years(b"t/2400")) == min(late, 2400)
