"""``flatten batch``: the outputs of single runs, made together."""

import json
import os
import shutil
import subprocess
import tarfile

import pytest

from builders import digest, docker_archive, layer, member
from command import run
from flatten.batch.storage import replacing
from fleets import fleet, layers_of, oci_archive, singly


def batch(*arguments, code=0, **options):
    """Run a batch; return what it says."""
    done = run("batch", *arguments, **options)
    assert done.returncode == code, done.stderr
    return done.stderr


def results(path):
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return {(result["reference"], result["output"]): result for result in found}


def states(path):
    return sorted(result["state"] for result in results(path).values())


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".tar", ()),
        (".tar.gz", ("--format", "pax")),
        (".tar", ("--exclude", "bin", "--mtime", "0", "--prefix", "srv")),
        (".tar", ("--no-verify", "--jobs", "3")),
        (".tar", ("--at-layer", "2")),
        (".tar", ("--memory", "0")),
        (".erofs", ()),
        (".cpio", ()),
    ],
    ids=" ".join,
)
def test_outputs_are_those_of_single_runs(suffix, options, tmp_path):
    paths = fleet(tmp_path / "in")
    batch(tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}{suffix}", *options)

    single = [option for option in options if option not in ("--jobs", "3")]
    for path in paths:
        got = (tmp_path / "out" / f"{path.stem}{suffix}").read_bytes()
        assert got == singly(path, tmp_path / f"single{suffix}", *single)


def test_directories_are_those_of_single_runs(tmp_path):
    paths = fleet(tmp_path / "in", 3)
    how = ("--ownership", "current")
    batch(tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}/", *how)

    (tmp_path / "single").mkdir()
    for path in paths:
        run(path, "-o", f"{tmp_path}/single/{path.stem}/", *how)
    readable = ("chmod", "-R", "u+rwX", "out", "single")
    subprocess.run(readable, cwd=tmp_path, check=True)
    left = ("diff", "-r", "-x", "*.json", "--no-dereference", "out", "single")
    assert subprocess.run(left, cwd=tmp_path, check=False).returncode == 0


def test_images_are_those_of_single_runs(tmp_path):
    paths = fleet(tmp_path / "in", 3)
    batch(tmp_path / "in", "--oci", f"{tmp_path}/out/{{name}}.tar")

    for path in paths:
        run(path, "--oci", tmp_path / "single.tar")
        got = (tmp_path / "out" / path.name).read_bytes()
        assert got == (tmp_path / "single.tar").read_bytes()


def test_bytes_of_the_base_are_read_for_one_image_only(tmp_path):
    fleet(tmp_path / "in")
    batch(
        tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}.tar",
        "--results", tmp_path / "r.jsonl",
    )  # fmt: skip

    base = sum(map(len, layers_of(1)[:2]))
    assert all(
        r["shared_bytes"] >= base for r in results(tmp_path / "r.jsonl").values()
    )


def test_indexes_share_the_layers_that_a_directory_keeps(tmp_path):
    paths = fleet(tmp_path / "in")
    layers = tmp_path / "layers"
    how = ("--index", "--layers", layers)
    said = batch(
        tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}.erofs", *how,
        "--results", tmp_path / "r.jsonl",
    )  # fmt: skip

    assert "6 done" in said
    stored = {path.name for path in (layers / "sha256").iterdir()}
    packed = [at for at in range(6) if at % 4 != 3]  # the others are plain in archives
    assert stored == {digest(tar) for at in packed for tar in layers_of(at)}
    for result in results(tmp_path / "r.jsonl").values():
        assert all(map(os.path.exists, result["devices"]))
    for path in paths:
        got = (tmp_path / "out" / f"{path.stem}.erofs").read_bytes()
        assert got == singly(path, tmp_path / "single.erofs", *how)


def test_layers_that_a_directory_keeps_are_not_read_again(tmp_path):
    (path,) = fleet(tmp_path / "in", 1)
    how = ("--layers", tmp_path / "layers", "--force")
    batch(path, "-o", tmp_path / "a.tar", *how)
    inode = {file.stat().st_ino for file in (tmp_path / "layers/sha256").iterdir()}
    batch(path, "-o", tmp_path / "a.tar", *how)

    assert inode == {f.stat().st_ino for f in (tmp_path / "layers/sha256").iterdir()}


def test_documents_are_named_like_outputs(tmp_path):
    fleet(tmp_path / "in", 2)
    batch(
        "in", "-o", "out/{name}.tar", "--list-out", "lists/{name}.jsonl",
        "--config-out", "out/{name}.config", "--statement", "out/{name}.statement",
        cwd=tmp_path,
    )  # fmt: skip

    for name in ("app0", "app1"):
        run(
            f"in/{name}.tar", "-o", "single.tar", "--list-out", "list",
            "--config-out", "config", cwd=tmp_path,
        )  # fmt: skip
        one = (tmp_path / f"lists/{name}.jsonl").read_text()
        assert one == (tmp_path / "list").read_text()
        one = (tmp_path / f"out/{name}.config").read_text()
        assert one == (tmp_path / "config").read_text()
        statement = json.loads((tmp_path / f"out/{name}.statement").read_text())
        assert statement["subject"][0]["name"] == f"{name}.tar"


@pytest.mark.parametrize("document", ["lists/all.jsonl", "out/{name}.tar", "-"])
def test_documents_of_two_images_cannot_have_one_name(document, tmp_path):
    fleet(tmp_path / "in", 2)
    how = ("in", "-o", "out/{name}.tar", "--list-out", document)
    batch(*how, code=2, cwd=tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_result_says_what_was_made(tmp_path):
    (path,) = fleet(tmp_path / "in", 1)
    out = tmp_path / "out" / "app0-latest.tar"
    batch(
        path, "-o", f"{tmp_path}/out/{{name}}-{{tag}}.tar",
        "--results", tmp_path / "r.jsonl",
    )  # fmt: skip

    (result,) = results(tmp_path / "r.jsonl").values()
    document = json.loads((tmp_path / "out" / "app0-latest.tar.json").read_text())
    summary = json.loads(run(path, "-o", tmp_path / "x.tar", "--json").stdout)
    assert result["output"] == str(out)
    assert result["state"] == "done"
    assert result["exit_code"] == 0
    assert result["sha256"] == summary["output"]["sha256"] == document["sha256"]
    assert result["bytes"] == out.stat().st_size == document["bytes"]
    assert result["digest"] == summary["image"]["manifest"] == document["digest"]
    assert result["members"] == summary["members"]
    assert result["layers"] == 4
    assert document["output"] == out.name


def test_results_can_go_to_standard_output(tmp_path):
    (path,) = fleet(tmp_path / "in", 1)
    done = run("batch", path, "-o", f"{tmp_path}/{{name}}.tar", "--results", "-")

    assert json.loads(done.stdout)["state"] == "done"


# --- which job is done


def test_a_second_batch_makes_what_is_missing(tmp_path):
    fleet(tmp_path / "in", 4)
    lines, out = tmp_path / "r.jsonl", tmp_path / "out"
    how = (tmp_path / "in", "-o", f"{out}/{{name}}.tar", "--results", lines)
    batch(*how)
    kept = (out / "app0.tar").stat().st_mtime_ns
    (out / "app1.tar").unlink()
    (out / "app2.tar.json").unlink()
    (out / "app3.tar").write_bytes(b"cut off")

    said = batch(*how)

    assert "3 done, 1 unchanged, 0 failed" in said
    assert states(lines) == ["done"] * 3 + ["unchanged"]
    assert (out / "app0.tar").stat().st_mtime_ns == kept
    assert len((out / "app3.tar").read_bytes()) > 10_000


@pytest.mark.parametrize(
    ("more", "summary"),
    [
        ((), "0 done, 2 unchanged"),
        (("--jobs", "1"), "0 done, 2 unchanged"),
        (("--memory", "1M"), "0 done, 2 unchanged"),
        (("--mtime", "0"), "2 done, 0 unchanged"),
        (("--force",), "2 done, 0 unchanged"),
    ],
    ids=str,
)
def test_outputs_with_the_same_options_are_done(more, summary, tmp_path):
    fleet(tmp_path / "in", 2)
    how = (tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}.tar")
    batch(*how)

    assert summary in batch(*how, *more)


def test_another_image_of_the_same_name_is_made_again(tmp_path):
    one, two = fleet(tmp_path / "in", 2)
    how = (tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}.tar")
    batch(*how)
    shutil.copy(two, one)

    assert "1 done, 1 unchanged" in batch(*how)
    out = tmp_path / "out"
    assert (out / "app0.tar").read_bytes() == (out / "app1.tar").read_bytes()


def test_a_directory_that_a_batch_made_and_did_not_record_is_replaced(tmp_path):
    fleet(tmp_path / "in", 1)
    how = (tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}/", "--ownership", "current")
    batch(*how)
    (tmp_path / "out/app0.json").write_text('{"format": 1}')
    (tmp_path / "out/app0/stale").write_text("")

    assert "1 done" in batch(*how)
    assert not (tmp_path / "out/app0/stale").exists()
    assert "0 done, 1 unchanged" in batch(*how)


def test_equal_images_are_made_once_for_all_their_names(tmp_path):
    one, _ = fleet(tmp_path / "in", 2)
    shutil.copy(one, tmp_path / "in" / "copy.tar")
    lines = tmp_path / "r.jsonl"
    said = batch(
        tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}.tar", "--results", lines
    )

    assert "3 done" in said
    one, two = (tmp_path / "out" / name for name in ("app0.tar", "copy.tar"))
    assert one.read_bytes() == two.read_bytes()
    assert (tmp_path / "out/copy.tar.json").exists()
    assert states(lines) == ["done"] * 3


# --- what goes wrong


def test_a_bad_image_fails_alone(tmp_path):
    fleet(tmp_path / "in", 2)
    (tmp_path / "in" / "bad.tar").write_bytes(b"no image" * 1000)
    twice = layer(member("a", b"1"), member("a/b", b"2"))
    (tmp_path / "in" / "worse.tar").write_bytes(docker_archive([twice]))
    wrong = oci_archive(layers_of(0), documents={
        "config": {"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64] * 4}}
    })  # fmt: skip
    (tmp_path / "in" / "wrong.tar").write_bytes(wrong)
    lines = tmp_path / "r.jsonl"
    said = batch(
        tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}.tar",
        "--results", lines, code=1,
    )  # fmt: skip

    found = {key[0].rpartition("/")[2]: r for key, r in results(lines).items()}
    assert {name: r["exit_code"] for name, r in found.items()} == {
        "app0.tar": 0, "app1.tar": 0, "bad.tar": 3, "worse.tar": 4, "wrong.tar": 5,
    }  # fmt: skip
    assert {r["attempts"] for r in found.values()} == {1}
    for name in ("bad.tar", "worse.tar", "wrong.tar"):
        assert found[name]["message"] in said
        assert not list((tmp_path / "out").glob(f"*{name}*"))
    assert "2 done, 0 unchanged, 3 failed" in said


def test_errors_of_the_machine_are_tried_again(tmp_path):
    fleet(tmp_path / "in", 1)
    (tmp_path / "out").write_text("a file where a directory is needed")
    lines = tmp_path / "r.jsonl"
    batch(
        tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}.tar",
        "--results", lines, "--retries", "1", code=1,
    )  # fmt: skip

    (result,) = results(lines).values()
    assert result["attempts"] == 2
    assert result["exit_code"] == 1
    assert "out" in result["message"]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("out/all.tar", "would both be written to"),
        ("out/{tag}.tar", "would both be written to"),
        ("out/{id}.tar", "{id} is not a field"),
        ("{name}.zip", "cannot write this format"),
    ],
)
def test_bad_names_are_errors_before_anything_is_done(template, words, tmp_path):
    fleet(tmp_path / "in", 2)
    said = batch("in", "-o", template, code=2, cwd=tmp_path)

    assert words in said
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_shards_together_make_all(tmp_path):
    fleet(tmp_path / "in", 6)
    how = (tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}.tar")
    for shard in ("0/2", "1/2"):
        batch(*how, "--shard", shard)

    assert "0 done, 6 unchanged" in batch(*how)


@pytest.mark.parametrize("shard", ["2/2", "1", "-1/2", "a/b"])
def test_a_shard_that_is_none_is_refused(shard, tmp_path):
    batch("x", "-o", "y", f"--shard={shard}", code=2, cwd=tmp_path)


def test_an_option_without_effect_is_refused(tmp_path):
    said = batch("x", "-o", "{name}.tar", "--size", "1G", code=2, cwd=tmp_path)

    assert "--size has no effect" in said


def test_a_list_names_images(tmp_path):
    fleet(tmp_path / "in", 3)
    (tmp_path / "list").write_text("in/app0.tar\n# not app1\nin/app2.tar\n")
    batch("list", "-o", "{name}.tar", cwd=tmp_path)

    assert tarfile.is_tarfile(tmp_path / "app2.tar")
    assert not (tmp_path / "app1.tar").exists()


def test_a_directory_that_no_batch_made_is_kept(tmp_path):
    fleet(tmp_path / "in", 1)
    mine = tmp_path / "out" / "app0" / "mine"
    mine.parent.mkdir(parents=True)
    mine.write_text("keep")
    how = (tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}/", "--ownership", "current")

    assert "--force" in batch(*how, code=1)
    assert "--force" in batch(*how, code=1)
    assert [*mine.parent.iterdir()] == [mine]
    assert [*mine.parent.parent.iterdir()] == [mine.parent]

    batch(*how, "--force")
    assert not mine.exists()
    batch(*how, "--mtime", "0")  # the batch's own: needs no --force
    assert (mine.parent / "app").stat().st_mtime == 0


def test_a_failed_directory_leaves_no_document(tmp_path):
    fleet(tmp_path / "in", 1)
    batch(
        tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}/", "--max-size", "1K", code=1
    )
    assert [*(tmp_path / "out").iterdir()] == []


def test_an_output_that_is_being_replaced_is_not_complete(tmp_path):
    paths = fleet(tmp_path / "in", 1)
    how = (tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}.tar")
    batch(*how, "--mtime", "1")
    with replacing(f"{tmp_path}/out/app0.tar", force=False) as force:
        assert force
        other = singly(paths[0], tmp_path / "other.tar", "--mtime", "2")
        (tmp_path / "out/app0.tar").write_bytes(other)  # and is killed here

    assert "1 done, 0 unchanged" in batch(*how, "--mtime", "1")
    right = singly(paths[0], tmp_path / "right.tar", "--mtime", "1")
    assert (tmp_path / "out/app0.tar").read_bytes() == right


@pytest.mark.parametrize("lost", ["list", "layer"])
def test_an_output_without_its_other_files_is_made_again(lost, tmp_path):
    fleet(tmp_path / "in", 1)
    how = (
        *(tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}.erofs", "--index"),
        *("--layers", tmp_path / "layers", "--list-out", f"{tmp_path}/{{name}}.list"),
    )
    batch(*how)
    assert "0 done, 1 unchanged" in batch(*how)
    files = [tmp_path / "app0.list", *(tmp_path / "layers/sha256").iterdir()]
    file = files[lost == "layer"]
    file.unlink()

    assert "1 done, 0 unchanged" in batch(*how)
    assert file.exists()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": 1}', "\0", "[]"])
def test_a_document_that_says_nothing_is_replaced(text, tmp_path):
    fleet(tmp_path / "in", 1)
    how = (tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}.tar")
    batch(*how)
    document = tmp_path / "out/app0.tar.json"
    document.write_text(text)
    assert "1 done, 0 unchanged" in batch(*how)
    assert json.loads(document.read_text())["output"] == "app0.tar"


def test_results_on_a_full_disk_are_an_error_that_names_the_file(tmp_path):
    fleet(tmp_path / "in", 1)
    how = (tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}.tar")
    said = batch(*how, "--results", "/dev/full", code=1)
    assert said == "flatten: /dev/full: cannot write: No space left on device\n"
