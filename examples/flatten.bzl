"""A Bazel rule that makes a root filesystem or a disk from an image archive.

Use it in a BUILD file, with `flatten` installed where actions run:

    load("//tools:flatten.bzl", "rootfs")

    rootfs(
        name = "app_disk",
        image = ":app_image.tar",      # docker save, an OCI archive, a tarball of oci_load
        out = "app.ext4",              # the suffix selects the format
        flags = ["--size", "2G"],
    )
"""

def _rootfs_impl(ctx):
    out = ctx.actions.declare_file(ctx.attr.out or ctx.label.name + ".tar")
    args = ctx.actions.args()
    args.add(ctx.file.image)
    args.add("-o", out)
    args.add_all(ctx.attr.flags)
    ctx.actions.run(
        executable = ctx.attr.flatten,
        arguments = [args],
        inputs = [ctx.file.image],
        outputs = [out],
        env = {"SOURCE_DATE_EPOCH": ctx.attr.source_date_epoch} if ctx.attr.source_date_epoch else {},
        use_default_shell_env = True,
        mnemonic = "Flatten",
        progress_message = "Flattening " + ctx.file.image.short_path,
    )
    return [DefaultInfo(files = depset([out]))]

rootfs = rule(
    implementation = _rootfs_impl,
    attrs = {
        "image": attr.label(allow_single_file = True, mandatory = True),
        "out": attr.string(doc = "a file name; default: NAME.tar"),
        "flags": attr.string_list(doc = "options of flatten"),
        "flatten": attr.string(default = "flatten", doc = "the program; searched in PATH"),
        "source_date_epoch": attr.string(doc = "later mtimes are set to this time"),
    },
)
