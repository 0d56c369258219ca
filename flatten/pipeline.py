"""The whole pipeline: an image is opened, indexed, stacked, planned and written."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Unpack

from .errors import FormatError, UsageError, quoted
from .host.spools import short_turns
from .image.history import cut
from .image.image import Image, Transfer
from .image.parts import (
    are_exact,
    fetch_if_little,
    read_in_parts,
    read_whole,
    with_whole_layers,
)
from .image.read import Stack, read_layers
from .image.verify import DigestCheck, checking
from .options import OptionFields, Options
from .outputs.atomic import nothing
from .outputs.choose import choose
from .outputs.job import Job, Shape
from .outputs.progress import Progress, ProgressBar, Reporter
from .plan.make import Placement, make_plan
from .plan.plan import Plan
from .plan.strict import check_strict
from .sources.open import open_image
from .tar.members import Members
from .tree.delta import Snapshot, delta
from .tree.edit import (
    NO_EDITS,
    change_names,
    drop_fractions,
    ensure_root,
    limit_times,
    limit_xattrs,
    map_owners,
    select_xattrs,
)
from .tree.tree import Tree

Reuse = Callable[[Image], tuple[Image, Stack | None]]
"""Takes an open image; returns it with the layers that were read before, and a stack of
its lowest layers, if there is one."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export.

    Attributes:
        size: Bytes of the tar before compression; for other outputs, of a tar of the
            same tree.
        members: Number of entries in it.
        layers: Number of layers in the image.
        verified: Number of layers that were read whole and checked against their
            diff_id.
        verified_by_toc: Number of layers of which parts were read, and checked against
            their tables of contents.
        warnings: Warnings for the user, one sentence each.
        image: The image's id.
        names: The image's names.
        diff_ids: The layers' diff_ids, oldest first; None if the image records none.
        manifest: Digest of the image's manifest, or None if it has none.
        transfer: What was fetched, or None if the image is on this machine.
        devices: The files that an index points at, in order; None for other outputs.
        root_hash: The root hash (hex) of the dm-verity hash tree; None without one.
    """

    size: int
    members: int
    layers: int
    verified: int
    warnings: tuple[str, ...]
    image: str = field(default="", compare=False)
    names: tuple[str, ...] = field(default=(), compare=False)
    diff_ids: tuple[str | None, ...] = field(default=(), compare=False)
    manifest: str | None = field(default=None, compare=False)
    transfer: Transfer | None = field(default=None, compare=False)
    devices: tuple[str, ...] | None = field(default=None, compare=False)
    root_hash: str | None = field(default=None, compare=False)
    verified_by_toc: int = 0


def export(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | int,
    options: Options | None = None,
    *,
    progress: ProgressBar | Progress = "never",
    sync: bool = True,
    **changes: Unpack[OptionFields],
) -> Exported:
    """Flatten an image into one tar, or another output that ``out`` selects.

    Args:
        source: ``[KIND:]PATH[#NAME]``, as for ``open_image``.
        out: A path, whose suffix selects the output; it appears once it is complete. Or
            an open descriptor, to write a tar from its current position.
        options: The options; by default, ``Options()``.
        progress: When to show a progress bar on standard error: ``auto`` (on a
            terminal), ``always`` or ``never``. Or a function to call instead, in the
            calling thread, with the number of bytes written so far and in total. The
            first call has 0. The last one has the total, once the output is complete;
            an exception from any call before that cancels the export.
        sync: Flush a file to disk before it gets its name, so that after a power cut
            either the complete new file or the old one is there.
        changes: Fields of ``Options``, by name: ``export(a, b, mtime=0)``.

    Raises:
        FlattenError: The export failed. No output is left at ``out``.
    """
    options = replace(options or Options(), **changes)
    return run(source, out, options, progress=progress, sync=sync)


def run(  # noqa: PLR0913 - the rare ones by keyword
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | int,
    options: Options,
    *,
    progress: ProgressBar | Progress = "never",
    sync: bool = True,
    before_commit: Callable[[], object] = nothing,
    reuse: Reuse | None = None,
) -> Exported:
    """Do what ``export`` does, for a caller that has its own process.

    Args:
        source: As for ``export``.
        out: As for ``export``.
        options: As for ``export``.
        progress: As for ``export``.
        sync: As for ``export``.
        before_commit: Called when all checks have passed, before the output gets its
            name; an exception prevents that.
        reuse: Replaces layers by those that were read before, for another image.

    Raises:
        FlattenError: As for ``export``.
    """
    output = choose(out, options)
    parts = reuse is None and _may_be_read_in_parts(options)
    options = replace(options, access=replace(options.access, parts=parts))
    with (
        short_turns(),
        Reporter(progress) as reporter,
        opened_image(source, options, sync=sync, advance=reporter.read) as opened,
        ExitStack() as checks,
    ):
        image, stack = (opened, None) if reuse is None else reuse(opened)
        if not are_exact(image):
            image = with_whole_layers(image)
        check = checks.enter_context(_checking(image, options))
        image = with_additions(image, options)
        _refuse_same(out, options)
        for path in (out, *_documents(options)):
            if path is not None:
                refuse_image(path, image)
        shape = output.shape(image)
        if shape.rooted and options.since is not None:
            raise UsageError("a delta is a layer: write it to a tar")
        plan = plan_image(image, options, shape=shape, stack=stack)
        if not fetch_if_little(image, plan.members, plan.inodes):
            whole = [layer.whole for layer in read_in_parts(image)]
            image = with_whole_layers(image)
            if check is not None:
                check.add(whole)
            plan = plan_image(image, options, shape=shape)
        if options.strict:
            check_strict(plan, map(os.fsencode, options.allow_setuid), image.source)
        if check is not None:
            check.start_rest()
        with reporter.writing(plan.size) as advance:
            rereads = check is not None and check.rereads
            job = Job(
                image,
                plan,
                shape,
                sync=sync,
                rereads=rereads or options.list_out is not None,
                hashes=check is not None,
                before_commit=before_commit,
                advance=advance,
            )
            with _stating(out, image, options, sync=sync), output.writing(job):
                if check is not None:
                    check.finish()
                image.check_unchanged()
                _write_sidecars(job, options)
    promised = sum(layer.diff_id is not None for layer in read_whole(image))
    return Exported(
        plan.size,
        len(plan),
        len(image.layers),
        0 if check is None else promised,
        (*plan.warnings, *job.notes),
        image.id,
        image.names,
        tuple(layer.diff_id for layer in image.layers),
        image.manifest,
        None if image.transfer is None else image.transfer(),
        job.made.devices,
        job.made.root_hash,
        len(read_in_parts(image)),
    )


def _may_be_read_in_parts(options: Options) -> bool:
    """Return True if layers with a table of contents need not be read whole.

    A layer store and a delta take whole layers, and a statement names their digests.
    """
    needs_all = (options.verify, options.layers, options.since, options.statement)
    return all(need in (None, False) for need in needs_all)


@contextmanager
def opened_image(
    source: str | os.PathLike[str],
    options: Options,
    *,
    sync: bool,
    advance: Callable[[int], object] | None = None,
) -> Iterator[Image]:
    """Open the image, and put its layers where ``options.layers`` says."""
    with open_image(
        os.fspath(source), options, verify=options.verify is not False, advance=advance
    ) as image:
        if options.layers is None:
            yield image
        else:
            from .outputs.layer_store import LayerStore  # seldom needed

            yield LayerStore(Path(options.layers), sync=sync).stored(image)


def plan_image(
    image: Image,
    options: Options | None = None,
    *,
    shape: Shape | None = None,
    stack: Stack | None = None,
) -> Plan:
    """Read the headers of all layers and plan the tar of the tree they make.

    Args:
        image: An open image.
        options: The edits to make, and the limits on resources.
        shape: The requirements of the output.
        stack: The image's lowest layers, if they were applied before; it is changed.

    Raises:
        FormatError: A layer breaks its format or cannot be applied to the tree, or a
            limit is exceeded.
    """
    options, shape = options or Options(), shape or Shape()
    image = with_additions(image, options)
    tree, before = _stack(image, options, stack)
    if options.edits != NO_EDITS:
        _edit(tree, image, options)
    if shape.rooted:
        ensure_root(tree)
    if shape.times is not None:
        limit_times(tree, *shape.times)
    if not shape.fractions:
        drop_fractions(tree)
    if shape.xattrs is not None:
        limit_xattrs(tree, shape.xattrs, shape.xattr_room)
    placement = None
    if shape.share:
        layers = (*image.layers, *image.added)
        origins = [layer.open().origin for layer in layers]
        placement = Placement(shape.share, origins)
    plan = make_plan(
        tree,
        posix=shape.posix,
        sparse=shape.sparse,
        clamp_mtime=options.mtime,
        placement=placement,
        entries=None if before is None else delta(before, tree),
    )
    if plan.size > options.limits.size:
        raise FormatError(
            f"makes a tar of {plan.size:,} bytes, over {options.limits.size:,}; if "
            "that is right, allow more with --max-size",
            where=image.source,
        )
    return plan


def with_additions(image: Image, options: Options) -> Image:
    """Return the image with the host files to add as a layer on top.

    The layer is built when it is read. An image that has it already is returned as is.
    """
    if image.added or not options.edits.add:
        return image
    from .image.added import added_layer  # seldom needed

    layer = added_layer(options.edits.add, options.limits, image.resources)
    return replace(image, added=(layer,))


def _stack(
    image: Image, options: Options, stack: Stack | None
) -> tuple[Tree, Snapshot | None]:
    """Read and apply all layers; return the tree, and its names as of ``since``.

    Data that only stacking needs is freed with this frame, above all the paths of the
    last layer, which take as much memory as those that planning creates.
    """
    stack = stack or Stack(Tree(Members(limit=options.limits.members)))
    tree, start = stack.tree, stack.layers
    base = None if options.since is None else len(cut(image, options.since).layers)
    before = None if base is None else Snapshot(tree)
    layers = read_layers(image, tree.members, start=start, limits=options.limits)
    for count, layer in enumerate(layers, start + 1):
        tree.apply(layer)
        if count == base:
            before = Snapshot(tree)
    tree.warnings[:0] = image.warnings
    return tree, before


def _edit(tree: Tree, image: Image, options: Options) -> None:
    """Select and move names, add host files, change the owners, select xattrs."""
    edits = options.edits
    if options.since is not None:
        raise UsageError("a delta takes no selection and no edits: it is a layer")
    change_names(tree, edits)
    for layer in read_layers(image, tree.members, added=True, limits=options.limits):
        tree.apply(layer)
    if edits.owner_map is not None:
        map_owners(tree.members, edits.owner_map)
    if edits.xattrs is not None:
        select_xattrs(tree.members, edits.xattrs)


def _checking(
    image: Image, options: Options
) -> AbstractContextManager[DigestCheck | None]:
    """Check the layers that are read whole, unless the options forbid it."""
    return nullcontext() if options.verify is False else checking(read_whole(image))


def _write_sidecars(job: Job, options: Options) -> None:
    """Write the requested documents, before the output appears."""
    if options.config_out is not None or options.list_out is not None:
        from .sidecars import write_sidecars  # json, 5 ms

        write_sidecars(job, options)


def _stating(
    out: str | os.PathLike[str] | int, image: Image, options: Options, *, sync: bool
) -> AbstractContextManager[None]:
    """Write the statement, if one is asked for, when the output is complete."""
    if options.statement is None:
        return nullcontext()
    from .statement import stating  # json, hashlib; seldom needed

    return stating(out, image, options, options.statement, sync=sync)


def _documents(options: Options) -> Iterator[str | os.PathLike[str] | int | None]:
    """Yield the paths of what is written along with the output."""
    yield from (
        options.config_out, options.list_out, options.verity, options.statement,
    )  # fmt: skip
    if options.verity is not None:
        from .outputs.disks.verity import root_hash_path  # seldom needed

        yield root_hash_path(Path(options.verity))


def _refuse_same(out: str | os.PathLike[str] | int, options: Options) -> None:
    """Refuse two files under one name: the later would replace the other."""
    paths = [
        path
        for path in (out, *_documents(options))
        if path is not None and not isinstance(path, int)
    ]
    names = [os.path.realpath(path) for path in paths]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1 and (os.path.isfile(name) or not os.path.exists(name)):
            raise UsageError(f"{quoted(os.fspath(path))} is named for two outputs")


def refuse_image(out: str | os.PathLike[str] | int, image: Image) -> None:
    """Refuse an output that is the image itself or in the image's directory.

    Raises:
        UsageError: The output is the image or in its directory.
    """
    with suppress(OSError, ValueError):  # a missing path is neither
        source = os.stat(image.path)
        path = Path(
            os.readlink(f"/proc/self/fd/{out}") if isinstance(out, int) else out
        )
        folder = stat.S_ISDIR(source.st_mode)
        for place in path.resolve().parents if folder else [path]:
            if os.path.samestat(place.stat(), source):
                where = "in the image's directory" if folder else "the image"
                raise UsageError(f"{quoted(str(path))} is {where}; write elsewhere")
