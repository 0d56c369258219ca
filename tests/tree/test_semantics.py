"""The rules of docs/semantics.md: layers in words, the tree they make.

The number that starts an id is the rule's; the value of a file is the position of
the layer whose content shows.
"""

from pathlib import Path

import pytest

import flatten
from builders import END, docker_archive, layer, layers, long_name, member, pax
from erofs_reader import Image as Erofs
from flatten.tree.edit import Edits
from indexes import can_mount, extracted, mounted_index
from listing import contents, disk_listing, listing, open_tar


@pytest.fixture
def flat(tmp_path):
    """Return a function from layers to the tar that they become."""

    def run(*each, **options):
        image, out = tmp_path / "image.tar", tmp_path / "rootfs.tar"
        image.write_bytes(docker_archive(layers(*each)))
        flatten.export(image, out, **options)
        return out.read_bytes()

    return run


@pytest.fixture
def refused(tmp_path, flat):
    """Return a function from layers to the message with which they are refused."""

    def run(*each):
        with pytest.raises(flatten.FormatError) as caught:
            flat(*each)
        assert not (tmp_path / "rootfs.tar").exists()
        return str(caught.value)

    return run


def directory(name, **fields):
    return member(name, type=b"5", **{"mode": 0o755, **fields})


TREES = {
    "1 a whiteout hides a lower file":
        ([["a", "b"], ["-a"]], {"b": "0"}),
    "1 a whiteout hides a lower directory with its subtree":
        ([["d/", "d/e/", "d/e/x", "k"], ["-d"]], {"k": "0"}),
    "1 a whiteout of nothing does nothing, in the lowest layer too":
        ([["-a", "b"], ["-c"]], {"b": "0"}),
    "1 a whiteout hides what is two layers below":
        ([["a"], ["b"], ["-a"]], {"b": "1"}),
    "1 a path comes back above its whiteout":
        ([["a"], ["-a"], ["a"]], {"a": "2"}),
    "1 whiteouts add no directories":
        ([["a"], ["x/y/-z".replace("-", ".wh.")]], {"a": "0"}),
    "2 a file re-added after its whiteout survives":
        ([["a"], ["-a", "a"]], {"a": "1"}),
    "2 a file re-added before its whiteout survives":
        ([["a"], ["a", "-a"]], {"a": "1"}),
    "2 a directory re-added after its whiteout has nothing old in it":
        ([["d/", "d/x"], ["-d", "d/", "d/y"]], {"d/": "", "d/y": "1"}),
    "2 a directory re-added before its whiteout has nothing old in it":
        ([["d/", "d/x"], ["d/", "d/y", "-d"]], {"d/": "", "d/y": "1"}),
    "2 a file below a whited directory brings it back":
        ([["d/", "d/x"], ["d/y", "-d"]], {"d/": "", "d/y": "1"}),
    "3 an opaque mark after its siblings spares them":
        ([["d/", "d/x"], ["d/", "d/y", "d/*"]], {"d/": "", "d/y": "1"}),
    "3 an opaque mark before its siblings spares them":
        ([["d/", "d/x"], ["d/", "d/*", "d/y"]], {"d/": "", "d/y": "1"}),
    "3 an opaque mark hides nested directories":
        ([["d/", "d/e/", "d/e/x"], ["d/*"]], {"d/": ""}),
    "3 an opaque mark at the root hides everything below":
        ([["a", "d/", "d/x"], ["*", "b"]], {"b": "1"}),
    "3 an opaque mark in a directory that is not there adds nothing":
        ([["a"], ["d/*"]], {"a": "0"}),
    "4 .wh. in the middle of a name is an ordinary name":
        ([["a.wh.b", "b"], ["c.wh.b"]], {"a.wh.b": "0", "b": "0", "c.wh.b": "1"}),
    "4 a whiteout spares names that it is a prefix of":
        ([["a/", "a/b", "a/bc", "a/b.d"], ["-a/b"]],
         {"a/": "", "a/bc": "0", "a/b.d": "0"}),
    "6 a whiteout may be a directory, a hard link, a symlink or a FIFO":
        ([["a", "b", "c", "d", "k"],
          [".wh.a/", ".wh.b=.wh..wh.aufs", ".wh.c->x", member(".wh.d", type=b"6")]],
         {"k": "0"}),
    "7 AUFS bookkeeping does not reach the output":
        ([[".wh..wh.aufs", ".wh..wh.plnk/", ".wh..wh.orph/", ".wh..wh.orph/x", "a",
           "d/.wh..wh.y"], [".wh..wh.orph/-a".replace("-", ".wh."), ".wh..wh.orph/d/*"]],
         {"a": "0"}),
    "7 a hard link to AUFS bookkeeping gets its content":
        ([["a"], [member(".wh..wh.plnk/7.1", b"P"), "b=.wh..wh.plnk/7.1",
                  "c=.wh..wh.plnk/7.1"]], {"a": "0", "b": "P", "c": "P"}),
    "7 a hard link before the AUFS bookkeeping that it names":
        ([["b=.wh..wh.plnk/7.1", member(".wh..wh.plnk/7.1", b"P")]], {"b": "P"}),
    "7 AUFS bookkeeping may link to nothing":
        ([["a", ".wh..wh.plnk/7.1=gone"]], {"a": "0"}),
    "8 a char device 0:0 is a device, not a whiteout":
        ([["a"], [member("a", type=b"3", device=(0, 0))]], {"a": "chr"}),
    "9 a file in a directory's place: the subtree is gone":
        ([["d/", "d/x"], ["d"]], {"d": "1"}),
    "9 a symlink in a directory's place: the subtree is gone":
        ([["d/", "d/x", "e/"], ["d->e"]], {"d": "->e", "e/": ""}),
    "10 dir, file, dir: the first directory's children stay gone":
        ([["d/", "d/x"], ["d"], ["d/"]], {"d/": ""}),
    "10 dir, file, dir within one layer":
        ([["d/", "d/x", "d", "d/"]], {"d/": ""}),
    "11 a directory in a file's place":
        ([["f"], ["f/", "f/x"]], {"f/": "", "f/x": "1"}),
    "11 a directory in a symlink's place leaves the target alone":
        ([["e/", "e/x", "l->e"], ["l/", "l/y"]],
         {"e/": "", "e/x": "0", "l/": "", "l/y": "1"}),
    "12 a directory over a directory keeps the children":
        ([["d/", "d/x"], ["d/"]], {"d/": "", "d/x": "0"}),
    "13 an entry below a symlink is written through it":
        ([["usr/", "usr/lib/", "lib->usr/lib"], ["lib/x"]],
         {"lib": "->usr/lib", "usr/": "", "usr/lib/": "", "usr/lib/x": "1"}),
    "13 an absolute symlink is resolved inside the root":
        ([["e/", "l->/e"], ["l/x"]], {"e/": "", "e/x": "1", "l": "->/e"}),
    "13 a symlink with too many .. stops at the root":
        ([["e/", "l->../../../e"], ["l/x"]], {"e/": "", "e/x": "1", "l": "->../../../e"}),
    "13 symlinks through symlinks":
        ([["e/", "a->b", "b->c/..", "c->e"], ["a/e/x"]],
         {"a": "->b", "b": "->c/..", "c": "->e", "e/": "", "e/x": "1"}),
    "13 a dangling symlink's target is made":
        ([["l->n/m"], ["l/x"]], {"l": "->n/m", "n/": "", "n/m/": "", "n/m/x": "1"}),
    "13 a whiteout below a symlink is resolved the same way":
        ([["usr/", "usr/lib/", "usr/lib/a", "lib->usr/lib"], ["-lib/a"]],
         {"lib": "->usr/lib", "usr/": "", "usr/lib/": ""}),
    "13 a whiteout in a directory that takes a symlink's place spares its target":
        ([["usr/", "usr/a", "lib->usr"], ["lib/", "-lib/a"]],
         {"lib/": "", "usr/": "", "usr/a": "0"}),
    "13 the same, with the whiteout first":
        ([["usr/", "usr/a", "lib->usr"], ["-lib/a", "lib/"]],
         {"lib/": "", "usr/": "", "usr/a": "0"}),
    "13 a whiteout below a symlink that is whited out itself":
        ([["s->d", "d/x", "d/y"], ["-s", "-s/x"]], {"d/": "", "d/y": "0"}),
    "13 the same, in the other order":
        ([["s->d", "d/x", "d/y"], ["-s/x", "-s"]], {"d/": "", "d/y": "0"}),
    "13 the same, with the replaced symlink through another":
        ([["lib->usr/lib", "usr/lib/d->/srv", "srv/x"], ["lib/d/", "lib/d/*"]],
         {"lib": "->usr/lib", "srv/": "", "srv/x": "0", "usr/": "", "usr/lib/": "",
          "usr/lib/d/": ""}),
    "13 a whiteout through symlinks in a circle":
        ([["a->b", "b->a"], ["-a/x"]], {"a": "->b", "b": "->a"}),
    "14 .. inside a name is cleaned":
        ([["d/", "d/../a", "d/e/../../b"]], {"a": "0", "b": "0", "d/": ""}),
    "15 symlink text is kept byte for byte":
        ([["a->/x/../../..//y/", "b->.", "c->../../../../etc/passwd"]],
         {"a": "->/x/../../..//y/", "b": "->.", "c": "->../../../../etc/passwd"}),
    "16 all spellings are one path":
        ([["d/", "d/x"], ["./d//x"], ["/d/x"], ["d/./x"]], {"d/": "", "d/x": "3"}),
    "16 all spellings are one path in hard links":
        ([["d/", "d/x", "a=./d//x", "b=/d/x"], ["-d"]], {"a": "0", "b": "0"}),
    "17 a hard link outlives its target's whiteout":
        ([["a", "b=a"], ["-a"]], {"b": "0"}),
    "17 hard links outlive their directory":
        ([["d/", "d/a", "b=d/a", "c=d/a"], ["-d"]], {"b": "0", "c": "0"}),
    "18 a hard link keeps the old content of a replaced target":
        ([["a", "b=a"], ["a"]], {"a": "1", "b": "0"}),
    "18 the same, within one layer":
        ([["a", "b=a", member("a", b"new")]], {"a": "new", "b": "0"}),
    "18 the same, when a directory takes the target's place":
        ([["a", "b=a"], ["a/"]], {"a/": "", "b": "0"}),
    "19 a hard link to a lower layer's file":
        ([["a"], ["b=a"]], {"a": "0", "b": "0"}),
    "19 a hard link to a lower file that is then replaced":
        ([["a"], ["b=a", "a"]], {"a": "1", "b": "0"}),
    "20 a hard link to a later name":
        ([["b=a", "a"]], {"a": "0", "b": "0"}),
    "20 a chain of hard links to later names":
        ([["c=b", "b=a", "a", "d=c"]], {"a": "0", "b": "0", "c": "0", "d": "0"}),
    "20 a hard link that waits and is replaced":
        ([["b=a", "b", member("a", b"A")]], {"a": "A", "b": "0"}),
    "21 a hard link to itself changes nothing":
        ([["a"], ["a=a"]], {"a": "0"}),
    "23 a hard link to a symlink is a second name of the symlink":
        ([["x", "s->x", "t=s"], ["-s"]], {"t": "->x", "x": "0"}),
    "24 the same path twice: the last wins":
        ([[member("a", b"1"), member("a", b"2")]], {"a": "2"}),
    "25 parents that no layer lists are made":
        ([["a/b/c"]], {"a/": "", "a/b/": "", "a/b/c": "0"}),
    "34 a layer without end blocks":
        ([layer("a", end=b"")], {"a": "0"}),
    "34 a layer with one end block":
        ([layer("a", end=bytes(512))], {"a": "0"}),
    "34 a layer whose last block is short of its padding":
        ([layer("a", end=b"")[:-500]], {"a": "0"}),
    "34 junk after the end of a layer":
        ([layer("a", end=END + b"junk" * 999), ["b"]], {"a": "0", "b": "1"}),
    "34 junk after a lone end block":
        ([layer("a", end=bytes(512) + b"junk" * 999)], {"a": "0"}),
    "35 an empty layer, of no bytes, of zeros":
        ([b"", ["a"], END, bytes(10240)], {"a": "1"}),
    "35 no layers at all":
        ([], {}),
    "36 the same layer twice, in its place":
        ([["a"], ["-a"], layer("a")], {"a": "0"}),
}  # fmt: skip


@pytest.mark.parametrize(("each", "want"), TREES.values(), ids=TREES)
def test_tree(flat, each, want):
    got = contents(flat(*each))

    assert got == want


def described(rows, *keys):
    """Return rows but for the root, which these layers do not list."""
    return [{key: row.get(key) for key in keys} for row in rows if row["path"]]


@pytest.mark.parametrize("each", [each for each, _ in TREES.values()], ids=TREES)
@pytest.mark.parametrize("index", [False, True], ids=["EROFS", "index"])
def test_tree_in_an_erofs(flat, tmp_path, each, index):
    tar, out = flat(*each), tmp_path / "o.erofs"
    all_keys = ("path", "type", "mode", "uid", "gid", "mtime", "sha256", "linkname")

    done = flatten.export(tmp_path / "image.tar", out, index=index)

    want = listing(tar)
    devices = done.devices or ()
    image = Erofs(out.read_bytes(), [Path(path).read_bytes() for path in devices])
    assert described(image.listing(), *all_keys) == described(want, *all_keys)
    if can_mount:
        with mounted_index(out, devices, tmp_path / "top") as top:
            assert described(disk_listing(top), *all_keys) == described(want, *all_keys)
    found = extracted(out, devices, tmp_path / "extracted")
    if found is not None:
        keys = ("path", "mode", "mtime")
        assert described(found, *keys) == described(want, *keys)


REFUSED = {
    "5 a whiteout that names nothing":
        ([["d/", "d/.wh."]], "layer 1 of 1", "whiteout that names nothing"),
    "5 a whiteout that names its directory":
        ([["a"], [".wh.."]], "layer 2 of 2", "whiteout that names nothing"),
    "5 a whiteout that names its parent":
        ([["d/.wh..."]], "layer 1", "whiteout that names nothing"),
    "5 an entry below a whiteout, through a symlink":
        ([["l->.wh.a", "l/b"]], "layer 1", "below the whiteout '.wh.a'"),
    "5 an entry below a whiteout":
        ([[".wh.d/", ".wh.d/x"]], "layer 1", "an entry below a whiteout"),
    "13 symlinks in a circle":
        ([["a->b", "b->a"], ["a/x"]], "layer 2", "more than 40 symlinks"),
    "14 a name that leaves the root":
        ([["../x"]], "layer 1", "a name that leaves the root: '../x'"),
    "14 an absolute name that leaves the root":
        ([["/../x"]], "layer 1", "a name that leaves the root"),
    "14 a name that leaves the root further down":
        ([["d/", "d/../../x"]], "layer 1", "a name that leaves the root"),
    "14 a hard link that leaves the root":
        ([["a", "b=../a"]], "layer 1", "hard link to a name that leaves the root"),
    "21 a hard link to nothing":
        ([["b=a"]], "layer 1", "a hard link to 'a', which does not exist"),
    "21 a hard link to nothing that is replaced later":
        ([["b=a", "b"]], "layer 1", "a hard link to 'a', which does not exist"),
    "21 a hard link to itself that is not there":
        ([["a=a"]], "layer 1", "a hard link to 'a', which leads back to itself"),
    "21 a hard link to a directory":
        ([["d/", "a=d"]], "layer 1", "a hard link to the directory 'd'"),
    "21 a hard link to a directory of AUFS's bookkeeping":
        ([[".wh..wh.plnk/", "a=.wh..wh.plnk"]], "layer 1", "link to the directory"),
    "21 a hard link to the root":
        ([["a=./"]], "layer 1", "a hard link to the directory ''"),
    "21 hard links in a circle":
        ([["a=b", "b=c", "c=a"]], "layer 1", "which leads back to itself"),
    "21 a hard link to what the layer whites out":
        ([["a"], ["-a", "b=a"]], "layer 2", "a hard link to 'a', which does not exist"),
    "25 an entry below a file":
        ([["f"], ["f/x"]], "layer 2", "where 'f' is not a directory"),
    "25 an entry below a symlink to a file":
        ([["f", "l->f"], ["l/x"]], "layer 2", "where 'f' is not a directory"),
    "31 a name over 64 KiB":
        ([[member(b"n" * 65537)]], "layer 1", "a name of 65,537 bytes"),
    "31 a PAX path with a NUL":
        ([[member("x", records={b"path": b"a\0b"})]], "layer 1", "a NUL in the PAX"),
    "34 a lone zero block between members":
        ([layer("a", end=bytes(512)) + layer("b")], "layer 1",
         "a single zero block, followed by more members"),
    "39 a root that is a symlink":
        ([[member("./", type=b"2", target="x")]], "layer 1", "root is not a directory"),
    "39 a root that is a file":
        ([[member("/", b"x")]], "layer 1", "the root is not a directory"),
}  # fmt: skip


@pytest.mark.parametrize(("each", "where", "why"), REFUSED.values(), ids=REFUSED)
def test_refused(refused, each, where, why):
    message = refused(*each)

    assert where in message
    assert why in message
    assert " at byte " in message


def rows(tar):
    return {row["path"]: row for row in listing(tar)}


def test_3_an_opaque_mark_leaves_its_directory_as_it_was(flat):
    got = rows(flat([directory("d", mode=0o1777, uid=5), "d/x"], ["d/*", "d/y"]))

    assert (got["d"]["mode"], got["d"]["uid"]) == ("1777", 5)


def test_11_a_directory_over_a_directory_has_the_new_metadata(flat):
    got = rows(
        flat([directory("d", uid=1), "d/x"], [directory("d", uid=2, mode=0o700)])
    )

    assert (got["d"]["mode"], got["d"]["uid"]) == ("0700", 2)


def test_19_a_link_across_layers_is_one_inode_written_once(flat):
    got = listing(flat(["b"], ["a=b"]))

    assert [(r["path"], r["type"]) for r in got] == [("a", "file"), ("b", "hardlink")]
    assert got[1]["linkname"] == "a"


def test_22_a_hard_link_header_says_nothing_about_the_inode(flat):
    link = member(
        "b", type=b"1", target="a", mode=0, uid=9, gid=9, mtime=1, size=700,
        records={b"SCHILY.xattr.user.x": b"y"},
    )  # fmt: skip
    got = rows(flat([member("a", b"0", mode=0o4711, uid=3), link, "c"]))

    assert got["b"] == got["a"] | {"path": "b", "type": "hardlink", "linkname": "a"}
    assert "c" in got


def test_24_a_path_twice_in_a_layer_warns_once_with_a_count(tmp_path):
    image = tmp_path / "image.tar"
    image.write_bytes(docker_archive(layers(["a", "a", "a", "b", "b"], ["a"])))

    done = flatten.export(image, tmp_path / "out.tar")

    assert len(done.warnings) == 1
    assert "3 paths are in the layer more than once" in done.warnings[0]


def test_25_implied_parents_are_0755_root_with_the_mtime_of_their_cause(flat):
    got = rows(flat([member("a/b/c", mtime=77), member("a/d", mtime=99)]))

    for path in ("a", "a/b"):
        assert got[path] == {
            "path": path, "type": "dir", "mode": "0755", "uid": 0, "gid": 0, "mtime": 77,
        }  # fmt: skip


def test_25_implied_parents_have_the_fraction_of_that_mtime_in_pax(flat):
    tar = flat([member("a/b/c", records={b"mtime": b"77.25"})], format="pax")

    with open_tar(tar) as opened:
        times = [info.pax_headers["mtime"] for info in opened]
    assert times == ["77.25", "77.25", "77.25"]


def test_25_a_prefix_has_the_fraction_of_the_latest_mtime_in_pax(flat):
    words = [
        member("a", records={b"mtime": b"77.5"}),
        member("b", records={b"mtime": b"77.25"}),
        member("c", records={b"mtime": b"76.75"}),
    ]
    tar = flat(words, format="pax", edits=Edits(prefix=b"p/q"))

    with open_tar(tar) as opened:
        times = {info.name: info.pax_headers["mtime"] for info in opened}
    assert (times["p"], times["p/q"]) == ("77.5", "77.5")


def test_26_a_directory_listed_below_keeps_its_metadata(flat):
    got = rows(flat([directory("d", mode=0o2750, uid=4, mtime=5)], ["d/x"]))

    assert (got["d"]["mode"], got["d"]["uid"], got["d"]["mtime"]) == ("2750", 4, 5)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o7777, 0o0])
def test_27_all_mode_bits_are_kept_and_file_type_bits_are_not(flat, mode):
    got = rows(flat([member("a", mode=0o100000 | mode), directory("d", mode=mode)]))

    assert got["a"]["mode"] == got["d"]["mode"] == f"{mode:04o}"


ACL = b"user::rw-,user:1000:r--,group::r--,mask::r--,other::---"
BINARY_ACL = bytes.fromhex(
    "02000000 01000600ffffffff 02000400e8030000 04000400ffffffff 10000400ffffffff"
    "20000000ffffffff"
)
BOTH_FORMS = {
    b"SCHILY.acl.access": ACL,
    b"SCHILY.xattr.system.posix_acl_access": BINARY_ACL,
}
XATTRS = BOTH_FORMS | {
    b"SCHILY.xattr.user.text": b"value",
    b"SCHILY.xattr.user.binary": bytes(range(256)),
    b"SCHILY.xattr.user.empty=sign": b"a=b\n7 c=d\n",
    b"SCHILY.xattr.security.capability": bytes.fromhex("010000020020" + "00" * 14),
    b"SCHILY.xattr.security.selinux": b"system_u:object_r:etc_t:s0\0",
    b"RHT.security.selinux": b"system_u:object_r:etc_t:s0",
}


def test_28_xattrs_acls_and_capabilities_are_kept_byte_for_byte(flat):
    tar = flat(
        [member("f", b"x", records=XATTRS), member("d", type=b"5", records=XATTRS)]
    )

    wanted = pax(dict(sorted((k, v) for k, v in XATTRS.items())))[512:]
    assert tar.count(wanted) == 2


FORMS_OF_AN_ACL = {
    "text": {b"SCHILY.acl.access": ACL},
    "text with newlines": {b"SCHILY.acl.access": ACL.replace(b",", b"\n") + b"\n"},
    "text with names": {b"SCHILY.acl.access": ACL.replace(b"1000:r--", b"me:r--:1000")},
    "an xattr": {b"SCHILY.xattr.system.posix_acl_access": BINARY_ACL},
    "both": BOTH_FORMS,
    "both, with other text": BOTH_FORMS | {b"SCHILY.acl.access": b"user::rwx"},
}


@pytest.mark.parametrize("records", FORMS_OF_AN_ACL.values(), ids=FORMS_OF_AN_ACL)
@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_28_an_acl_is_written_in_both_forms_whatever_it_came_in(flat, records, format):
    tar = flat([member("f", b"x", records=records)], format=format)

    assert pax(BOTH_FORMS)[512:] in tar
    assert tar == flat([member("f", b"x", records=BOTH_FORMS)], format=format)


@pytest.mark.parametrize(
    "records",
    [
        {b"SCHILY.acl.access": b"user:nobody-known:rw-"},
        {b"SCHILY.xattr.system.posix_acl_access": BINARY_ACL[:-1]},
        {b"SCHILY.xattr.system.posix_acl_default": b"\3" + BINARY_ACL[1:]},
        {b"SCHILY.xattr.system.posix_acl_default": BINARY_ACL[:4] + BINARY_ACL},
        {b"SCHILY.acl.ace": b"owner@:rwx:allow"},
    ],
    ids=["text without ids", "cut", "another version", "an unknown tag", "NFSv4"],
)
def test_28_an_acl_that_is_not_valid_stays_as_it_is(flat, records):
    assert pax(records)[512:] in flat([member("f", b"x", records=records)])


def test_28_an_acl_without_entries_is_none(flat):
    records = {
        b"SCHILY.acl.access": b"",
        b"SCHILY.xattr.system.posix_acl_default": b"\2\0\0\0",
    }

    assert flat([member("f", b"x", records=records)]) == flat([member("f", b"x")])


def test_28_overlay_marks_are_dropped(flat):
    marks = {
        b"SCHILY.xattr.trusted.overlay.opaque": b"y",
        b"SCHILY.xattr.user.overlay.origin": b"z",
        b"SCHILY.xattr.user.fuseoverlayfs.opaque": b"y",
    }
    got = rows(flat([member("f", b"x", records=marks)]))

    assert "xattrs" not in got["f"]


def test_28_an_xattr_that_only_libarchive_spells_is_kept(flat):
    records = {b"LIBARCHIVE.xattr.user.a%20b": b"AAECAw"}
    got = rows(flat([member("f", b"x", records=records)]))

    assert got["f"]["xattrs"] == {"user.a b": "AAECAw=="}


NUMBERS = {
    "beyond octal": (2**21, 2**31 + 7, 2**33 + 1),
    "negative mtime": (0, 0, -86_400),
    "mtime before 1900": (0, 0, -(2**35)),
    "the largest octal": (8**7 - 1, 8**7 - 1, 8**11 - 1),
}


@pytest.mark.parametrize(("uid", "gid", "mtime"), NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_29_large_and_negative_numbers(flat, uid, gid, mtime, format):
    got = rows(flat([member("a", uid=uid, gid=gid, mtime=mtime)], format=format))

    assert (got["a"]["uid"], got["a"]["gid"], got["a"]["mtime"]) == (uid, gid, mtime)


@pytest.mark.parametrize(
    ("text", "floor"), [(b"1.9", 1), (b"-1.5", -2), (b"-1.000000001", -2)]
)
def test_29_fractions_are_floored_in_gnu_and_kept_in_pax(flat, text, floor):
    tars = [
        flat([member("a", records={b"mtime": text})], format=format)
        for format in ("gnu", "pax")
    ]

    assert [rows(tar)["a"]["mtime"] for tar in tars] == [floor, floor]
    assert b"mtime=" not in tars[0]
    assert b"mtime=" + text + b"\n" in tars[1]


def test_30_names_of_owners_are_dropped(flat):
    tar = flat([member("a", uname=b"somebody", records={b"uname": b"someone"})])

    assert b"some" not in tar


def test_31_names_are_bytes(flat):
    names = [
        b"caf\xe9",
        b"\xff\xfe",
        b"new\nline",
        b"tab\t",
        b"\x01",
        "é".encode(),
        b"a b",
    ]
    got = flat([member(name, b"x") for name in names])

    assert sorted(rows(got)) == sorted(
        n.decode("utf-8", "surrogateescape") for n in names
    )


@pytest.mark.parametrize("length", [99, 100, 101, 255, 256, 4096, 65_536])
@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_31_long_names_and_targets(flat, length, format):
    name = "n" * length
    tar = flat([member(name, b"x"), member("s", type=b"2", target=name)], format=format)

    assert contents(tar) == {name: "x", "s": f"->{name}"}


def test_31_a_long_directory_name(flat):
    got = flat([member("d" * 99 + "/", type=b"5"), member("e" * 100 + "/", type=b"5")])

    assert sorted(contents(got)) == ["d" * 99 + "/", "e" * 100 + "/"]


def test_33_global_headers_are_defaults_until_replaced(flat):
    got = rows(
        flat([
            pax({b"mtime": b"100", b"uid": b"7", b"comment": b"x"}, b"g"),
            member("a"),
            member("b", records={b"mtime": b"200"}),
            pax({b"mtime": b"300"}, b"g"),
            member("c"),
            member("d", records={b"uid": b""}),
        ], ["e"])
    )  # fmt: skip

    assert [got[name]["mtime"] for name in "abc"] == [100, 200, 300]
    assert [got[name]["uid"] for name in "abcd"] == [7, 7, 7, 0]
    assert got["e"]["uid"] == 0  # each layer starts anew


def test_33_the_pax_size_decides_where_the_next_header_is(flat):
    inner = layer("smuggled", end=b"")
    got = contents(
        flat([
            pax({b"size": b"%d" % len(inner)}) + member("a", size=0) + inner,
            "b",
        ])
    )  # fmt: skip

    assert sorted(got) == ["a", "b"]


def test_33_records_override_the_header(flat):
    records = {
        b"path": b"p" * 200, b"uid": b"3000000000", b"gid": b"12", b"mtime": b"-3",
    }  # fmt: skip
    got = rows(flat([member("x", b"data", records=records, uid=1, gid=1)]))["p" * 200]

    assert (got["uid"], got["gid"], got["mtime"]) == (3_000_000_000, 12, -3)


def test_33_the_target_of_a_link_from_records(flat):
    got = contents(flat([member("s", type=b"2", records={b"linkpath": b"t" * 300})]))

    assert got == {"s": "->" + "t" * 300}


def test_39_the_root_is_the_first_member_when_a_layer_lists_it(flat):
    tar = flat(["a"], [directory("./", mode=0o700, uid=9)])
    got = listing(tar)

    assert [row["path"] for row in got] == ["", "a"]
    assert (got[0]["mode"], got[0]["uid"]) == ("0700", 9)


def test_a_long_name_may_be_padded_with_nuls(flat):
    """A larger L record moves the data behind it, which cloning it can ask for."""
    record = bytearray(long_name(b"n" * 120 + bytes(3000)))
    got = flat([bytes(record) + member("n", b"x")])

    assert contents(got) == {"n" * 120: "x"}
