"""Layers that are only directories: the kernel's overlay, AUFS, fuse-overlayfs."""

import hashlib
import os
import random
import shutil
import stat
import subprocess
import tarfile
from contextlib import contextmanager, suppress

import pytest

import flatten
from builders import digest, docker_documents
from flatten import FormatError
from listing import contents, disk_entry, disk_listing, listing

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, for mounts, devices and trusted xattrs"
)


@contextmanager
def mounted(point, lower, upper=None, options=""):
    """Mount an overlay of directories, oldest first."""
    point.mkdir(exist_ok=True)
    layers = ":".join(map(str, reversed(lower)))
    text = f"lowerdir={layers}{options}"
    if upper is not None:
        work = upper.with_name(f"{upper.name}-work")
        work.mkdir()
        text += f",upperdir={upper},workdir={work}"
    done = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", text, point],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"needs overlay mounts: {done.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def rooted(folder, trees, driver="overlay2", place="overlay2/{}/diff"):
    """Make a data root of docker's from directories, without tar-split's records."""
    docker_documents(
        folder / "image" / driver,
        [f"sha256:{digest(b'%d' % n)}" for n in range(len(trees))],
    )
    for position, tree in enumerate(trees):
        target = folder / place.format(f"{position:02x}" * 32)
        target.parent.mkdir(parents=True, exist_ok=True)
        tree.rename(target)
    return folder


def shell(script, folder):
    subprocess.run(["sh", "-euc", script], cwd=folder, check=True)


TRACKS = ",redirect_dir=on,metacopy=on,index=off"

BASE = """
mkdir -p a/deep/er b c; echo one > a/one; echo two > a/deep/two; echo x > a/deep/er/x
echo f > b/f; ln b/f b/g; ln b/f a/linked; ln -s ../b/f c/s; mkfifo c/pipe
echo big > c/big; chmod 4711 c/big; mkdir -p keep/me; echo k > keep/me/k
"""

SCRIPTS = {
    "names that are gone": ["rm -r a; rm b/f c/s c/pipe"],
    "a directory that is made again": ["rm -r a; mkdir a; echo new > a/new"],
    "a file where a directory was": ["rm -r a; echo a > a", "rm a; mkdir a; echo b > a/b"],
    "a directory under a new name": ["mv a A"],
    "a directory elsewhere": ["mv a/deep c/deep"],
    "a directory that moves twice": ["mv a A", "mv A c/again"],
    "a directory that moves in one that moved": ["mv a A; mv A/deep A/down", "mv A b/A"],
    "what is added to and removed from one that moved": [
        "mv a A; rm A/one; echo new > A/new", "rm A/deep/two; mv A B; echo n > B/deep/n",
    ],
    "a new directory where one moved away": [
        "mv a A; mkdir a; echo other > a/other", "mv a/other A/other; mv A/deep a/deep",
    ],
    "two that change places": ["mv a t; mv b a; mv t b"],
    "only the mode": ["chmod 600 c/big"],
    "only the owner, and then the name": ["chown 5:6 c/big", "mv c/big a/large"],
    "a hard link that is copied up": ["echo more >> b/f"],
    "only the mode of a hard link": ["chmod 600 b/f"],
    "hard links inside and outside of a directory that moved": ["mv a A; mv b B"],
    "a hard link that leaves with its directory": ["mv a A"],
    "opaque and moved again": ["rm -r a; mkdir a; echo 1 > a/1", "mv a A", "rm A/1"],
    "a directory into one made again": ["rm -r b; mkdir b; mv a b/a", "mv b/a/deep deep"],
}  # fmt: skip


@pytest.mark.parametrize("scripts", SCRIPTS.values(), ids=SCRIPTS)
def test_it_is_what_the_kernel_shows(tmp_path, scripts):
    check(tmp_path, [BASE, *scripts], TRACKS)


@pytest.mark.parametrize("options", [",userxattr", ",xino=on", ",redirect_dir=off"])
def test_other_ways_to_mount(tmp_path, options):
    script = (
        "rm -r a; mkdir a; echo n > a/n; rm b/f b/g; mv c/big c/large; chmod 1 keep"
    )
    check(tmp_path, [BASE, script, "rm a/n; rm -r keep/me"], options)


@pytest.mark.parametrize("seed", range(6))
def test_random_changes(tmp_path, seed):
    rng = random.Random(seed)
    check(
        tmp_path, [lambda top, n=n: change(top, rng, n) for n in (60, 25, 25)], TRACKS
    )


def check(tmp_path, steps, options):
    """Make a layer a step, in a real mount, and compare with what that shows."""
    trees = []
    for number, step in enumerate(steps):
        tree = tmp_path / f"tree{number}"
        tree.mkdir()
        do = step if callable(step) else lambda top, script=step: shell(script, top)
        if trees:
            with mounted(tmp_path / "merged", trees, tree, options) as merged:
                do(merged)
        else:
            do(tree)
        trees.append(tree)
    with mounted(tmp_path / "merged", trees, options=options) as merged:
        want = disk_listing(merged)
    root = rooted(tmp_path / "docker", trees)

    flatten.export(str(root), tmp_path / "out.tar")

    assert listing(tmp_path / "out.tar") == want


ACTIONS = [
    "write",
    "append",
    "mkdir",
    "fifo",
    "unlink",
    "rename",
    "chmod",
    "chown",
    "link",
    "symlink",
]
ACTIONS += ["rmtree", "move", "mode", "remake", "replace"]


def act(action, file, some, new):
    """Do something to a file, to some directory, or at a new name."""
    match action:
        case "write" if not os.path.lexists(new):
            new.write_text(f"{new}")
        case "append" if stat.S_ISREG(file.lstat().st_mode):
            file.write_text("more")
        case "mkdir":
            new.mkdir()
        case "fifo":
            os.mkfifo(new)
        case "unlink":
            file.unlink()
        case "rename":
            file.rename(new)
        case "chmod" if not file.is_symlink():
            file.chmod(0o4755)
        case "chown":
            os.chown(file, 3, 5, follow_symlinks=False)
        case "link":
            os.link(file, new, follow_symlinks=False)
        case "symlink":
            new.symlink_to("../b")
        case "rmtree":
            shutil.rmtree(some)
        case "move":
            some.rename(new)
        case "mode":
            some.chmod(0o700)
        case "remake":
            shutil.rmtree(some)
            some.mkdir()
        case "replace":
            some.rename(f"{some}z")
            some.mkdir()


def change(top, rng, count):
    """Do some random things in a directory; those that cannot be done are not."""
    for _ in range(count):
        found = sorted(top.rglob("*"))
        directories = [p for p in found if p.is_dir() and not p.is_symlink()]
        files = [p for p in found if p not in directories]
        new = rng.choice([top, *directories]) / rng.choice("abcdefgh")
        file = rng.choice(files or [top / "none"])
        with suppress(OSError):
            some = rng.choice(directories or [top / "none"])
            act(rng.choice(ACTIONS), file, some, new)


# --- marks made by hand


def char(path):
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(0, 0))


def flat(tmp_path, trees, **where):
    root = rooted(tmp_path / "docker", trees, **where)
    done = flatten.export(str(root), tmp_path / "out.tar")
    return contents(tmp_path / "out.tar"), done.warnings


@pytest.fixture
def trees(tmp_path):
    """Return two directories, the lower with some files."""
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    (lower / "d" / "sub").mkdir(parents=True)
    upper.mkdir()
    for name in ("a", "d/b", "d/c", "d/sub/e"):
        (lower / name).write_text(name)
    return [lower, upper]


@pytest.mark.parametrize("space", ["trusted", "user"])
def test_empty_files_are_whiteouts_where_the_directory_says_so(tmp_path, trees, space):
    upper = trees[1]
    (upper / "d").mkdir()
    for name in ("a", "d/b", "d/c"):
        (upper / name).touch()
        os.setxattr(upper / name, f"{space}.overlay.whiteout", b"")
    (upper / "d" / "c").write_text("not empty")
    os.setxattr(upper / "d", f"{space}.overlay.opaque", b"x")

    got, _ = flat(tmp_path, trees)

    assert got == {
        "./": "", "a": "", "d/": "", "d/c": "not empty", "d/sub/": "", "d/sub/e": "d/sub/e",
    }  # fmt: skip


def test_whiteouts_that_are_one_inode_are_no_hard_links(tmp_path, trees):
    char(trees[1] / "a")
    (trees[1] / "d").mkdir()
    os.link(trees[1] / "a", trees[1] / "d" / "b")
    os.link(trees[1] / "a", trees[1] / "d" / "sub")

    assert flat(tmp_path, trees)[0] == {"./": "", "d/": "", "d/c": "d/c"}


def test_the_roots_opaque_attribute_says_nothing(tmp_path, trees):
    os.setxattr(trees[1], "trusted.overlay.opaque", b"y")

    assert "a" in flat(tmp_path, trees)[0]


def test_overlays_attributes_are_not_the_images(tmp_path, trees):
    for name in ("trusted.overlay.origin", "user.overlay.nlink", "user.kept"):
        os.setxattr(trees[0] / "a", name, b"1")
    os.setxattr(trees[0] / "d", "trusted.overlay.overlay.opaque", b"y")

    flat(tmp_path, trees)

    rows = {row["path"]: row for row in listing(tmp_path / "out.tar")}
    assert list(rows["a"]["xattrs"]) == ["user.kept"]
    assert "xattrs" not in rows["d"]


def metacopy(trees):
    (trees[1] / "gone").touch()
    os.setxattr(trees[1] / "gone", "trusted.overlay.metacopy", b"")


def redirect(text):
    def damage(trees):
        (trees[1] / "moved").mkdir()
        os.setxattr(trees[1] / "moved", "trusted.overlay.redirect", text)

    return damage


REFUSED = {
    "a content that is nowhere": (
        metacopy,
        r"content of 'gone' should be in a layer below \(metacopy\), but is missing",
    ),
    "a redirect out of the root": (
        redirect(b"/../../etc"),
        "invalid redirect of 'moved' to '/../../etc'",
    ),
    "a redirect to the parent": (
        redirect(b".."),
        "invalid redirect of 'moved' to '..'",
    ),
    "a redirect to a path": (
        redirect(b"d/sub"),
        "invalid redirect of 'moved' to 'd/sub'",
    ),
    "a redirect to nothing": (redirect(b""), "invalid redirect of 'moved' to ''"),
}


@pytest.mark.parametrize(("damage", "why"), REFUSED.values(), ids=REFUSED)
def test_what_overlay_cannot_have_written_is_refused(tmp_path, trees, damage, why):
    damage(trees)

    with pytest.raises(FormatError, match=why):
        flat(tmp_path, trees)


AUFS = {"driver": "aufs", "place": "aufs/diff/{}"}


def test_aufs_marks_as_the_kernel_makes_them(tmp_path, trees):
    upper = trees[1]
    (upper / ".wh..wh.aufs").touch(mode=0o444)
    for name in (".wh..wh.plnk", ".wh..wh.orph"):
        (upper / name).mkdir(mode=0o700)
    (upper / "d").mkdir()
    os.link(upper / ".wh..wh.aufs", upper / ".wh.a")
    os.link(upper / ".wh..wh.aufs", upper / "d" / ".wh..wh..opq")
    (upper / "d" / "new").write_text("new")
    os.link(upper / "d" / "new", upper / ".wh..wh.plnk" / "12.34")

    assert flat(tmp_path, trees, **AUFS)[0] == {"./": "", "d/": "", "d/new": "new"}


def test_in_aufs_a_name_may_be_gone_below_and_there(tmp_path, trees):
    (trees[1] / "d").mkdir()
    (trees[1] / ".wh.d").touch()
    (trees[1] / "d" / "new").write_text("new")

    got, _ = flat(tmp_path, trees, **AUFS)

    assert got == {"./": "", "a": "a", "d/": "", "d/new": "new"}


def test_fuse_overlayfs_may_have_all_marks(tmp_path, trees):
    upper = trees[1]
    (upper / "d" / "sub").mkdir(parents=True)
    (upper / ".wh.a").touch()
    char(upper / "d" / "b")
    char(upper / "d" / "sub" / ".wh..opq")
    os.setxattr(upper / "d", "user.fuseoverlayfs.origin", b"1")

    got, _ = flat(
        tmp_path, trees, driver="fuse-overlayfs", place="fuse-overlayfs/{}/diff"
    )

    assert got == {"./": "", "d/": "", "d/c": "d/c", "d/sub/": ""}


def test_large_holes_stay_holes(tmp_path, trees):
    with (trees[1] / "a").open("wb") as file:
        file.write(b"start")
        file.seek(3 << 20)
        file.write(b"middle")
        file.truncate(9 << 20)
    os.truncate(trees[1] / "a", 9 << 20)
    (trees[1] / "huge").touch()
    os.truncate(trees[1] / "huge", 1 << 40)
    want = disk_entry(trees[1] / "a", "a", {})

    root = rooted(tmp_path / "docker", trees)
    flatten.export(str(root), tmp_path / "out.tar")

    assert (tmp_path / "out.tar").stat().st_size < 1 << 16
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.getmember("huge").size == 1 << 40
        data = tar.extractfile("a").read()
    assert hashlib.sha256(data).hexdigest() == want["sha256"]


def test_what_a_tar_cannot_hold_is_left_out_and_said(tmp_path, trees):
    os.mknod(trees[1] / "socket", 0o600 | stat.S_IFSOCK)
    (trees[1] / ".wh.name").touch()

    got, warnings = flat(tmp_path, trees)

    assert "socket" not in got
    assert any("1 sockets are left out" in warning for warning in warnings)
    assert any(
        "1 names that are not valid in a layer" in warning for warning in warnings
    )


def test_a_capability_of_a_user_namespace_is_everyones(tmp_path, trees):
    path = trees[0] / "a"
    value = bytes.fromhex("0100000300200000000000000000000000000000e9030000")
    os.setxattr(path, "security.capability", value)

    flat(tmp_path, trees)

    (row,) = [row for row in listing(tmp_path / "out.tar") if row["path"] == "a"]
    assert row["xattrs"] == {"security.capability": "AQAAAgAgAAAAAAAAAAAAAAAAAAA="}
