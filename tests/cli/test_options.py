"""Arguments: unknown ones, those without effect, and those for standard output."""

import json
import os
import pty
import re
import shlex
import subprocess
import termios
from pathlib import Path

import pytest

from builders import archive, config, docker_archive, layers
from command import FLATTEN, run
from flatten.cli import registry
from listing import contents


@pytest.fixture
def image(tmp_path):
    """Return an image with one layer, ``app:1``, in the current directory's place."""
    path = tmp_path / "app.tar"
    path.write_bytes(docker_archive(layers(["a", "b/", "b/c"])))
    return path


UNKNOWN = {
    "a misspelt option": (["--verison"], "unknown option --verison; did you mean --version?"),
    "a misspelt option of a command": (
        ["ls", "IMAGE", "--hsah"], "unknown option --hsah; did you mean --hash?"
    ),
    "an option with a value": (
        ["IMAGE", "--exlcude=x"], "unknown option --exlcude; did you mean --exclude?"
    ),
    "an option like no other": (["IMAGE", "--zzzz"], "unknown option --zzzz ("),
    "a letter": (["IMAGE", "-x"], "unknown option -x ("),
    "a misspelt command": (["laers", "IMAGE"], "unknown command 'laers'; did you mean layers?"),
    "a misspelt command alone": (["verfy"], "unknown command 'verfy'; did you mean verify?"),
    "a command of docker's": (["inspect", "IMAGE"], "unknown command 'inspect'; flatten config IMAGE"),
    "a command of docker's for containers": (["export", "IMAGE"], "write flatten IMAGE -o OUT"),
    "an output without -o": (["IMAGE", "out.tar"], "'out.tar'; to write to it, use -o out.tar"),
    "two arguments too many": (["config", "IMAGE", "x", "y"], "unexpected argument 'x' ("),
    "no image": (["ls"], "the following arguments are required: IMAGE ("),
    "a command that help does not know": (["help", "nothing"], "unknown command 'nothing'"),
}  # fmt: skip


@pytest.mark.parametrize(("args", "why"), UNKNOWN.values(), ids=UNKNOWN)
@pytest.mark.usefixtures("image")
def test_an_unknown_argument_is_named(tmp_path, args, why):
    before = sorted(tmp_path.iterdir())

    got = run(*[arg.replace("IMAGE", "app.tar") for arg in args], cwd=tmp_path)

    assert (got.returncode, got.stdout) == (2, "")
    assert (got.stderr.count("\n"), got.stderr[:9]) == (1, "flatten: ")
    assert why in got.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_is_an_image_even_if_its_name_is_like_a_command(image, tmp_path):
    image.rename(tmp_path / "laers")

    assert run("laers", "-o", "o.tar", cwd=tmp_path).returncode == 0


@pytest.mark.usefixtures("image")
def test_a_shortened_option_is_taken(tmp_path):
    assert run("app.tar", "--verb", "-o", "o.tar", cwd=tmp_path).returncode == 0


NO_EFFECT = {
    "a size, of a tar": (["--size", "1G", "-o", "o.tar"], "--size", ".ext4, .qcow2"),
    "a size, on standard output": (["--size", "+1G"], "--size", ".ext4, .qcow2"),
    "a label, of a squashfs": (
        ["--label", "a", "-o", "o.sqfs"], "--label", ".erofs, .ext4, .qcow2",
    ),
    "a uuid, of a tar": (
        ["--uuid", "01234567-89ab-cdef-0123-456789abcdef", "-o", "o.tar"], "--uuid",
        ".erofs, .ext4, .qcow2",
    ),
    "a size of blocks, of an ext4": (
        ["--block-size", "1K", "-o", "o.ext4"], "--block-size", ".erofs",
    ),
    "force, for a tar": (["--force", "-o", "o.tar"], "--force", "DIR/"),
    "ownership, in a tar": (["--ownership", "current", "-o", "o.tar"], "--ownership", "DIR/"),
    "no check, of a tar": (
        ["--no-check", "-o", "o.tar"], "--no-check",
        "DIR/, .squashfs, .sqfs, .sqsh, .erofs, .ext4, .qcow2",
    ),
    "headers, in a directory": (["--format", "pax", "-o", "o/"], "--format", "a tar"),
    "headers, the default's": (["--format", "gnu", "-o", "o.squashfs"], "--format", "a tar"),
    "headers, of an image's layer": (["--format", "gnu", "--oci", "o.tar"], "--format", "a tar"),
    "shared blocks, in a cpio": (["--reflink", "always", "-o", "o.cpio"], "--reflink", "a tar"),
    "compression, of a directory": (
        ["--compress", "zstd", "-o", "o/"], "--compress",
        "a tar, .squashfs, .sqfs, .sqsh, .erofs, .ext4, .qcow2, .cpio, .cpio.gz, .cpio.zst",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("args", "option", "outputs"), NO_EFFECT.values(), ids=NO_EFFECT
)
def test_an_option_without_effect_is_an_error(image, tmp_path, args, option, outputs):
    got = run("app.tar", *args, cwd=tmp_path)

    assert (got.returncode, got.stderr) == (
        2, f"flatten: {option} has no effect on this output; it is for {outputs}\n",
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == [image]


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("count", ["-1", "x", "100000", "1.5"])
def test_a_number_of_components_that_is_none(tmp_path, count):
    got = run("app.tar", "--strip-components", count, "-o", "o.tar", cwd=tmp_path)

    assert got.returncode == 2
    assert f"'{count}' is not a number from 0 to 99999" in got.stderr


@pytest.mark.usefixtures("image")
def test_allow_setuid_needs_strict(tmp_path):
    got = run("app.tar", "--allow-setuid", "a", "-o", "o.tar", cwd=tmp_path)

    assert got.returncode == 2
    assert "--allow-setuid has no effect without --strict" in got.stderr


@pytest.mark.parametrize(
    "args", ["app.tar -o o.tar", "ls app.tar", "diff app.tar app.tar"]
)
def test_the_init_layer_of_an_image(image, tmp_path, args):
    got = run(*args.split(), "--with-init", cwd=tmp_path)

    assert (got.returncode, got.stdout) == (2, "")
    assert "--with-init has no effect on an image" in got.stderr
    assert list(tmp_path.iterdir()) == [image]


@pytest.mark.usefixtures("image")
def test_an_owner_map_has_an_effect_on_a_tar_in_both_spellings(tmp_path):
    (tmp_path / "map").write_text("0 7\n")

    for args in (["--owner-map", "map"], ["--ownership", "map:map"]):
        assert run("app.tar", *args, "-o", "o.tar", cwd=tmp_path).returncode == 0
    both = run("app.tar", "--owner-map", "map", "--ownership", "map:map", cwd=tmp_path)
    assert both.returncode == 2


@pytest.mark.parametrize("name", ["o.sqfs", "o.sqsh", "o.squashfs"])
@pytest.mark.usefixtures("image")
def test_all_suffixes_of_squashfs_make_one(tmp_path, name):
    got = run("app.tar", "-o", name, cwd=tmp_path)
    if "apt-get install squashfs-tools-ng" in got.stderr:
        pytest.skip("needs tar2sqfs or sqfstar")

    assert (tmp_path / name).read_bytes()[:4] == b"hsqs"


@pytest.mark.parametrize("suffix", [".img", ".raw", ".sfs", ".sqf", ".cramfs", ".dmg"])
def test_a_suffix_of_a_format_that_is_not_written_is_refused(image, tmp_path, suffix):
    got = run("app.tar", "-o", f"o{suffix}", cwd=tmp_path)

    assert (got.returncode, got.stderr.count("\n")) == (2, 1)
    assert ".ext4" in got.stderr
    assert list(tmp_path.iterdir()) == [image]


PAGES = ("cli.md", "outputs.md", "selecting.md")


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_in_the_documents_are_understood(page):
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    shown = re.findall(
        r"^    (?:.* \| )?flatten (.*?)(?:\s+# .*)?$", text, re.MULTILINE
    )
    known = [line for line in shown if "[options]" not in line]

    assert len(known) >= 2
    for line in known:
        name, arguments = registry.split(shlex.split(line))
        registry.parse(name, arguments)


# --- documents on standard output


def test_a_document_goes_to_standard_output(image, tmp_path):
    got = run("app.tar", "-o", "o.tar", "--config-out", "-", cwd=tmp_path)
    assert json.loads(got.stdout) == json.loads(run("config", image).stdout)

    got = run("app.tar", "-o", "o.tar", "--list-out", "-", cwd=tmp_path)
    rows = [json.loads(line) for line in got.stdout.splitlines()]
    assert [row["path"] for row in rows] == ["a", "b", "b/c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app.tar", "o.tar"]


@pytest.mark.usefixtures("image")
def test_a_document_is_appended_where_standard_output_stands(tmp_path):
    with (tmp_path / "log").open("ab") as log:
        log.write(b"before\n")
        log.flush()
        args = [*FLATTEN, "app.tar", "-o", "o.tar", "--list-out", "-"]
        subprocess.run(args, cwd=tmp_path, stdout=log, check=True)

    assert (tmp_path / "log").read_text().startswith('before\n{"path": "a"')


CROWDED = {
    "the tar and a document": (["--config-out", "-"], "the output and --config-out"),
    "two documents": (
        ["-o", "o.tar", "--config-out", "-", "--list-out", "-"], "--config-out and --list-out",
    ),
    "a document and the summary": (
        ["-o", "o.tar", "--list-out", "-", "--json"], "--list-out and --json",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("args", "names"), CROWDED.values(), ids=CROWDED)
def test_only_one_thing_goes_to_standard_output(image, tmp_path, args, names):
    got = run("app.tar", *args, cwd=tmp_path)

    assert (got.returncode, got.stdout) == (2, "")
    assert f"only one of {names} can go to standard output" in got.stderr
    assert list(tmp_path.iterdir()) == [image]


def test_a_full_standard_output_leaves_no_output(image, tmp_path):
    with open("/dev/full", "wb") as full:
        got = run("app.tar", "-o", "o.tar", "--list-out", "-", cwd=tmp_path, stdout=full,
                  stderr=subprocess.PIPE, capture_output=False)  # fmt: skip

    assert got.returncode == 1
    assert (
        got.stderr
        == "flatten: standard output: cannot write: No space left on device\n"
    )
    assert list(tmp_path.iterdir()) == [image]


# --- names of images


@pytest.fixture
def two(tmp_path):
    """Return an archive of two images, ``app:1`` and ``app:2``."""
    files, manifest = [], []
    for number in "12":
        (tar,) = layers([f"file{number}"])
        files += [
            (f"{number}.tar", tar),
            (f"{number}.json", json.dumps(config([tar])).encode()),
        ]
        manifest.append(
            {
                "Config": f"{number}.json",
                "RepoTags": [f"app:{number}"],
                "Layers": [f"{number}.tar"],
            }
        )
    path = tmp_path / "two.tar"
    path.write_bytes(
        archive([*files, ("manifest.json", json.dumps(manifest).encode())])
    )
    return path


def test_image_is_another_way_to_write_a_name(two, tmp_path):
    run(two, "--image", "app:2", "-o", tmp_path / "o.tar")
    assert contents(tmp_path / "o.tar") == {"file2": "0"}

    for command in (
        ["ls", "--no-cache"],
        ["config"],
        ["layers"],
        ["history", "-q", "--no-cache"],
    ):
        want = run(*command, f"{two}#app:2")
        assert (want.returncode, want.stderr) == (0, "")
        assert run(*command, two, "--image", "app:2").stdout == want.stdout
    assert "app:1" not in run("images", two, "--image", "app:2").stdout


def test_image_is_for_standard_input_too(two, tmp_path):
    with two.open("rb") as file:
        got = run("-", "--image", "app:1", "-o", tmp_path / "o.tar", stdin=file)

    assert got.returncode == 0, got.stderr
    assert contents(tmp_path / "o.tar") == {"file1": "0"}


def test_two_names_are_for_two_images(two):
    got = run("diff", two, two, "--image", "app:1", "--image", "app:2", "--no-cache")

    assert got.stdout.splitlines() == ["- file1", "+ file2"]


def test_a_name_too_many_is_refused(two):
    for args in (["--image", "a", "--image", "b"], ["--image", "app:1"]):
        reference = two if len(args) == 4 else f"{two}#app:1"
        got = run(reference, *args, "-o", "/dev/null")

        assert (got.returncode, got.stderr.startswith("flatten: --image: ")) == (
            2,
            True,
        )


def test_a_path_with_a_hash_sign_is_not_mistaken_for_a_name(two, tmp_path):
    (tmp_path / "two.tar#app:1").write_bytes(two.read_bytes())

    got = run(two, "--image", "app:1", "-o", "/dev/null")
    assert (got.returncode, "is ambiguous" in got.stderr) == (2, True)
    got = run(f"{two}#app:1", "--image", "app:2", "-o", "/dev/null")
    assert (got.returncode, "is ambiguous" in got.stderr) == (2, True)


# --- help, quiet, terminals


def test_help_and_version_are_commands_too():
    assert run("help").stdout == run("--help").stdout
    assert run("help", "ls").stdout == run("ls", "--help").stdout
    assert run("version").stdout == run("--version").stdout


READERS = sorted({registry.MAIN, *registry.COMMANDS} - {"help", "version"})


@pytest.mark.parametrize("name", READERS)
def test_every_command_takes_quiet_and_the_limits(name):
    options = registry.build_parser(name)._option_string_actions

    assert {
        "-q",
        "--memory",
        "--max-size",
        "--max-members",
        "--max-ratio",
    } <= set(options)
    assert ("--image" in options) == (name != "batch")  # its references have names


def test_quiet_suppresses_the_warnings_of_a_view(image):
    assert "warning: " in run("history", image).stderr

    quiet = run("history", image, "-q")
    assert (quiet.returncode, quiet.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ancestors", "no image was found that this image was built on"),
        ("derived", "no image was found that was built on this image"),
        ("layers", "EMPTY: the image has no layers"),
        ("history", "EMPTY: the image has no steps and no layers"),
    ],
)
def test_an_empty_table_is_a_sentence_on_standard_error(tmp_path, command, said):
    empty = tmp_path / "empty.tar"
    empty.write_bytes(docker_archive([]))

    got = run(command, empty)
    assert (got.returncode, got.stdout) == (0, "")
    assert got.stderr == f"flatten: {said.replace('EMPTY', str(empty))}\n"
    assert run(command, empty, "-q").stderr == ""


def on_terminal(*args, columns, **environment):
    """Run the command on a terminal of some width; return what it prints there."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    plain = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    with subprocess.Popen(
        [*FLATTEN, *map(str, args)], stdout=theirs, env=plain | environment
    ):
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    return shown.decode().splitlines()


def test_a_table_is_cut_at_the_width_of_the_terminal(image):
    whole = run("layers", image).stdout.splitlines()
    width = max(map(len, whole))
    assert width > 40

    assert on_terminal("layers", image, columns=30) == [
        line[:30].rstrip() for line in whole
    ]
    assert on_terminal("layers", image, columns=0) == whole
    assert on_terminal("layers", image, columns=30, COLUMNS="500") == whole
    narrow = on_terminal("layers", image, columns=0, COLUMNS="20")
    assert narrow == [line[:20].rstrip() for line in whole]
