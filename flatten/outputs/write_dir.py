"""Write a plan into a directory, without following any symlink.

Everything is created below one descriptor. The paths of a plan lead through directories
only, and ``beneath`` refuses symlinks in them. A name is created with O_EXCL, then its
content is written, then its metadata is set: the owner first, because changing it
clears setuid bits and capabilities. Directories are created first, and are 0700 until
everything is in them. Then come all other files, in several processes if there are
many, and hard links. The metadata of directories is set last, from the deepest up, so
that their mtimes stay. Owners and modes that files get when they are created are not
set again.

Owners, setuid bits, xattrs, times and devices that the kernel or the file system
refuses are counted; they are not errors.
"""

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from ..errors import FlattenError, quoted
from ..host.beneath import Beneath
from ..host.files import LayerBytes
from ..plan.pieces import sections
from ..plan.plan import Plan
from ..tar import xattrs
from ..tar.members import DIRECTORY, FIFO, FILE, FILE_TYPES, NO_EXTRA, SYMLINK
from .copying import Copier

MAX_PATH: Final = 4095  # bytes that the kernel takes for one path (PATH_MAX - 1)
STEP: Final = 1 << 20  # bytes per write
_AHEAD: Final = 1 << 16  # bytes of a layer that are read at once for small contents
_BY_KERNEL: Final = 1 << 16  # bytes of a content from which the kernel copies it

_UNCHANGED: Final = (1 << 32) - 1  # to chown; no file of Linux has this owner
_REFUSED: Final = frozenset(
    (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL, errno.ERANGE)
)
_TOO_LARGE: Final = (errno.E2BIG, errno.ENOSPC)  # an xattr for Linux, the file system
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UNNAMED: Final = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
_HANDLE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_SET_IDS: Final = 0o6000
_LATEST: Final = (1 << 31) * 10**9 - 1  # a time that file systems of 32 bits hold, too

ROOT: Final = b"./"  # the path of the root, first in a plan

MANY: Final = 20_000  # members from which several processes write

Advance = Callable[[int], object]
_Written = tuple[Counter[str], set[bytes]]


def write_directory(  # noqa: PLR0913 - the rare ones by keyword
    plan: Plan,
    layers: Sequence[LayerBytes],
    root: int,
    *,
    own: bool = True,
    advance: Advance | None = None,
    processes: int = 1,
) -> Counter[str]:
    """Write all members below an empty directory, but not the root's own metadata.

    Args:
        plan: The plan; its headers and its size as a tar are not used.
        layers: The layers' bytes, by position.
        root: The directory's descriptor.
        own: Set the owners; otherwise everything belongs to the calling user.
        advance: Called with the number of bytes after each write.
        processes: How many processes may write, with this one.

    Returns:
        The number of owners, setuid bits, xattrs, times and devices that could not be
        set, by these words.

    Raises:
        FormatError: A layer has fewer bytes than when it was indexed.
        FlattenError: Writing failed.
    """
    _check_paths(plan)
    with Beneath(f"/proc/self/fd/{root}") as tree:
        writer = _DirectoryWriter(plan, layers, tree, own, advance)
        writer.add_directories()
        parts = _parts(plan, layers, processes)
        done = _together(
            [
                partial(
                    _write_files, plan, layers, root, part, own=own, advance=counted
                )
                for part, counted in zip(
                    parts, _shares(advance, len(parts)), strict=True
                )
            ]
        )
        for missed, absent in done:
            writer.missed += missed
            writer.absent |= absent
        writer.add_links()
        for position in reversed(range(len(plan))):
            if plan.paths[position] != ROOT:
                writer.leave(position)
    return writer.missed


def describe_root(
    plan: Plan, root: int, missed: Counter[str], *, own: bool = True
) -> None:
    """Set the root's own metadata: the last step, as other users may enter then.

    Args:
        plan: The plan that was written; if it has no root, nothing is done.
        root: The directory's descriptor.
        missed: Receives the counts, as ``write_directory`` returns them.
        own: Set the owner; otherwise it stays the calling user.

    Raises:
        FlattenError: The metadata cannot be set.
    """
    if plan.paths[:1] == [ROOT]:
        with Beneath(f"/proc/self/fd/{root}") as tree:
            writer = _DirectoryWriter(plan, (), tree, own, None)
            writer.leave(0)
        missed.update(writer.missed)


def _parts(plan: Plan, layers: Sequence[LayerBytes], most: int) -> list[range]:
    """Return ranges of positions in a plan, one for each process."""
    whole = [range(len(plan))]
    if len(plan) < MANY or not all(layer.is_here() for layer in layers):
        return whole
    return [range(part.start, part.stop) for part in sections(plan, most)] or whole


def _shares(advance: Advance | None, count: int) -> list[Advance | None]:
    """Return what each process calls: the first one moves the bar for all of them."""
    first = advance and (lambda done: advance(count * done))
    return [first, *[None] * (count - 1)]


def _together(works: Sequence[Callable[[], _Written]]) -> list[_Written]:
    """Run functions, each in a process."""
    if len(works) == 1:
        return [works[0]()]
    from ..host.processes import together  # 4 ms

    return together(works)


def _write_files(  # noqa: PLR0913 - what a process needs
    plan: Plan,
    layers: Sequence[LayerBytes],
    root: int,
    part: range,
    *,
    own: bool,
    advance: Advance | None,
) -> _Written:
    """Create what is neither a directory nor a hard link in a range of a plan.

    Returns:
        What could not be set, and the devices that could not be created.
    """
    with Beneath(f"/proc/self/fd/{root}") as tree:
        writer = _DirectoryWriter(plan, layers, tree, own, advance)
        writer.add_files(part)
    return writer.missed, writer.absent


class _DirectoryWriter:
    """Creates the members of a plan in a directory."""

    def __init__(
        self,
        plan: Plan,
        layers: Sequence[LayerBytes],
        tree: Beneath,
        own: bool,
        advance: Advance | None,
    ) -> None:
        self.missed: Counter[str] = Counter()
        self._plan = plan
        self._members = plan.members
        self._layers = layers
        self._tree = tree
        self._me = None if own else (os.geteuid(), os.getegid())
        self._advance = advance
        self._copier = Copier()
        self._buffer = memoryview(bytearray(STEP))
        self._buffered: tuple[LayerBytes | None, int, int] = None, 0, 0
        self._folder = tree.directory(b"")
        self._created = _created(self._folder)
        self._is_exact = _holds(f"/proc/self/fd/{self._folder}", _LATEST)
        self.absent: set[bytes] = set()  # devices that could not be created

    def add_directories(self) -> None:
        """Create all directories, without their metadata."""
        kinds = self._members.kinds
        for path, inode in self._plan:
            if kinds[inode] == DIRECTORY and path != ROOT:
                self._add(path.rstrip(b"/"), inode)

    def add_files(self, part: range) -> None:
        """Create the files in a range of the plan that have their first name there."""
        kinds, links = self._members.kinds, self._plan.links
        for position in part:
            inode = self._plan.inodes[position]
            if kinds[inode] != DIRECTORY and position not in links:
                self._add(self._plan.paths[position], inode)

    def add_links(self) -> None:
        """Create all later names of files."""
        for position, first in self._plan.links.items():
            path = self._plan.paths[position]
            try:
                self._link(first, path)
            except OSError as error:
                raise _failed(path, error) from error

    def _add(self, path: bytes, inode: int) -> None:
        try:
            parent, _, name = path.rpartition(b"/")
            self._folder = self._tree.directory(parent)
            self._make(path, name, inode)
        except OSError as error:
            raise _failed(path, error) from error

    def leave(self, position: int) -> None:
        """Set a directory's metadata; everything in it must be complete."""
        path, inode = self._plan.paths[position], self._plan.inodes[position]
        if self._members.kinds[inode] != DIRECTORY:
            return
        path = path.rstrip(b"/")
        try:
            folder = self._tree.directory(b"" if path == b"." else path)
            self._describe(f"/proc/self/fd/{folder}", inode)
        except OSError as error:
            raise _failed(path, error) from error

    def _make(self, path: bytes, name: bytes, inode: int) -> None:
        kind = self._members.kinds[inode]
        if kind == DIRECTORY:
            os.mkdir(name, 0o700, dir_fd=self._folder)
            return
        if kind == FILE:
            mode = self._members.owner_table[self._members.owners[inode]][0]
            has_mode = not mode & ~self._created.mode
            file = os.open(name, _NEW, mode if has_mode else 0o600, dir_fd=self._folder)
            try:
                self._fill(file, inode)
                self._describe(file, inode, self._created.owner, has_mode)
            finally:
                os.close(file)
            return
        if kind == SYMLINK:
            os.symlink(self._members.targets[inode], name, dir_fd=self._folder)
        elif kind == FIFO:
            os.mkfifo(name, 0o600, dir_fd=self._folder)
        elif not self._attempt("devices", self._make_device, name, inode):
            self.absent.add(path)
            return
        handle = os.open(name, _HANDLE, dir_fd=self._folder)
        try:  # such a path reaches a symlink itself, and a FIFO without opening it
            self._describe(f"/proc/self/fd/{handle}", inode, self._created.owner)
        finally:
            os.close(handle)

    def _make_device(self, name: bytes, inode: int) -> None:
        kind = FILE_TYPES[self._members.kinds[inode]]
        device = os.makedev(*self._members.extras.get(inode, NO_EXTRA).device)
        os.mknod(name, kind | 0o600, device, dir_fd=self._folder)

    def _link(self, first: bytes, path: bytes) -> None:
        """Create a hard link ``path`` to the path ``first``."""
        if first in self.absent:
            self.missed["devices"] += 1
            return
        parent, _, name = path.rpartition(b"/")
        there, _, old = first.rpartition(b"/")
        folder = os.dup(self._tree.directory(there))
        try:
            os.link(
                old,
                name,
                src_dir_fd=folder,
                dst_dir_fd=self._tree.directory(parent),
                follow_symlinks=False,
            )
        finally:
            os.close(folder)

    # --- contents

    def _fill(self, file: int, inode: int) -> None:
        """Write a file's data regions; between them are holes."""
        members = self._members
        layer, size = self._layers[members.layers[inode]], members.sizes[inode]
        end = 0
        for start, length, source in members.regions(inode):
            if length:
                if start != end:
                    os.lseek(file, start, os.SEEK_SET)
                self._copy(layer, source, file, length)
                end = start + length
        if end < size:
            os.ftruncate(file, size)

    def _copy(self, layer: LayerBytes, source: int, file: int, length: int) -> None:
        by_kernel = length >= _BY_KERNEL
        while length:
            done = self._copier.copy(layer, source, file, length) if by_kernel else 0
            if not done:
                done = os.write(file, self._read(layer, source, min(length, STEP)))
            source, length = source + done, length - done
            if self._advance is not None:
                self._advance(done)

    def _read(self, layer: LayerBytes, source: int, length: int) -> memoryview:
        """Return bytes of a layer, at most ``STEP``; valid until the next call.

        Contents that are one after another in the layer are read together.
        """
        last, start, stop = self._buffered
        near = layer is last and start <= source <= stop + _AHEAD
        if not near or source + length > stop:
            count = length
            if near and length < _AHEAD and (found := layer.extent(source)):
                count = max(length, min(_AHEAD, found[2]))
            self._buffered = None, 0, 0  # until all of it has been read
            layer.readinto(source, self._buffer[:count])
            self._buffered, start = (layer, source, source + count), source
        return self._buffer[source - start : source - start + length]

    # --- metadata

    def _describe(
        self,
        target: int | str,
        inode: int,
        owner: tuple[int, int] | None = None,
        has_mode: bool = False,
    ) -> None:
        """Set owner, mode, xattrs and mtime, in the order in which none is undone.

        Args:
            target: The file's descriptor, or a path that leads to it.
            inode: Its member.
            owner: The owner that it has, if that is known.
            has_mode: It has its mode, which has no setuid bits.
        """
        members = self._members
        mode, uid, gid = members.owner_table[members.owners[inode]]
        if self._me is None and owner == (uid, gid):
            owned = True
        elif self._me is None:
            owned = self._attempt("owners", os.chown, target, uid, gid)
            if owned and _UNCHANGED in (uid, gid):
                owned = False
                self.missed["owners"] += 1
        else:
            owned = self._me == (uid, gid)
        if members.kinds[inode] != SYMLINK and not has_mode:
            if mode & _SET_IDS and not owned:  # it would run as the calling user
                mode &= ~_SET_IDS
                self.missed["setuid bits"] += 1
            os.chmod(target, mode)
        extra = members.extras.get(inode, NO_EXTRA)
        if extra.records:
            self._set_xattrs(target, extra.records)
        self._set_time(target, members.mtimes[inode] * 10**9 + extra.nanoseconds)

    def _set_time(self, target: int | str, time: int) -> None:
        """Set the mtime, in nanoseconds; count it if the file system changes it.

        Linux moves times that a file system cannot hold to the nearest that it can,
        without an error.
        """
        done = self._attempt("times", os.utime, target, ns=(time, time))
        if self._is_exact and 0 <= time <= _LATEST:
            return
        if done and os.stat(target).st_mtime_ns != time:
            self.missed["times"] += 1

    def _set_xattrs(
        self, target: int | str, records: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        try:
            found = xattrs.from_records(records)
        except ValueError:
            self.missed["xattrs"] += 1
            return
        for name, value in found.items():
            try:
                self._attempt("xattrs", os.setxattr, target, name, value)
            except OSError as error:
                if error.errno not in _TOO_LARGE:
                    raise
                self.missed["xattrs"] += 1

    def _attempt(
        self, what: str, act: Callable[..., object], *given: object, **named: object
    ) -> bool:
        """Call ``act``; count it and return False if it is refused."""
        try:
            act(*given, **named)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
        except OverflowError:  # a number that the system call cannot take
            pass
        else:
            return True
        self.missed[what] += 1
        return False


class _Created(NamedTuple):
    """What a new file gets from the kernel.

    Attributes:
        owner: The uid and gid; None if they are not known.
        mode: The permissions that the umask leaves; 0 if they are not known.
    """

    owner: tuple[int, int] | None
    mode: int


def _created(folder: int) -> _Created:
    """Return what a file gets that is created in a directory, by creating one.

    It has no name. Not all file systems have such files.
    """
    try:
        file = os.open(b".", _UNNAMED, 0o777, dir_fd=folder)
    except OSError:
        return _Created(None, 0)
    try:
        status = os.fstat(file)
    finally:
        os.close(file)
    return _Created((status.st_uid, status.st_gid), stat.S_IMODE(status.st_mode))


def _holds(directory: str, time: int) -> bool:
    """Return True if a file system holds an mtime, in nanoseconds, as it is.

    One that holds an odd time at the end of a range holds all that are in the range.
    """
    try:
        os.utime(directory, ns=(time, time))
        return os.stat(directory).st_mtime_ns == time
    except OSError:
        return False


def _check_paths(plan: Plan) -> None:
    """Refuse paths that the kernel cannot look up, before anything is written."""
    longest = max(plan.paths, key=len, default=b"")
    if len(longest) > MAX_PATH:
        raise FlattenError(
            f"{quoted(longest)}: a path of {len(longest):,} bytes; Linux takes at most "
            f"{MAX_PATH:,}, so write a tar"
        )


def _failed(path: bytes, error: OSError) -> FlattenError:
    return FlattenError(f"cannot write {quoted(path)}: {error.strerror}")
