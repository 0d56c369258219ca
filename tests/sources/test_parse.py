"""The JSON documents of images: read as Go reads them, or refused."""

import hashlib
import json

import pytest

import flatten
from builders import archive, config, digest, docker_archive, layer, layers, oci_files
from flatten.sources.open import open_source
from flatten.sources.parse import CONFIG, INDEX_OR_MANIFEST, Fields, parse_json
from listing import contents

ONE, OTHER = layers(["one"], ["other"])
DIGEST = Fields("digest")


def flat(tmp_path, data, name=None):
    (tmp_path / "image.tar").write_bytes(data)
    out = tmp_path / "out.tar"
    flatten.export(f"{tmp_path / 'image.tar'}{'#' + name if name else ''}", out)
    return contents(out.read_bytes())


def refusal(tmp_path, data):
    with pytest.raises(flatten.FormatError) as caught:
        flat(tmp_path, data)
    assert not (tmp_path / "out.tar").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def docker(manifest, config_bytes=None):
    """Return an archive of ``one.tar`` and ``other.tar`` with a manifest as text."""
    data = json.dumps(config([ONE])).encode() if config_bytes is None else config_bytes
    return archive([
        ("one.tar", ONE), ("other.tar", OTHER), ("c.json", data),
        ("manifest.json", manifest.encode()),
    ])  # fmt: skip


def oci(edit):
    """Return an OCI archive whose manifest is edited as text."""
    files = oci_files([ONE])
    files[f"blobs/sha256/{digest(OTHER)}"] = OTHER
    index = json.loads(files.pop("index.json"))
    (listed,) = index["manifests"]
    manifest = files.pop(f"blobs/sha256/{listed['digest'][7:]}").decode()
    manifest = edit(manifest).encode()
    files[f"blobs/sha256/{digest(manifest)}"] = manifest
    listed |= {"digest": f"sha256:{digest(manifest)}", "size": len(manifest)}
    return archive([*files.items(), ("index.json", json.dumps(index).encode())])


# --- keys


@pytest.mark.parametrize(
    "manifest",
    [
        '[{"config": "c.json", "repoTags": ["app:1"], "layers": ["one.tar"]}]',
        '[{"CONFIG": "c.json", "REPOTAGS": ["app:1"], "LAYERS": ["one.tar"]}]',
        '[{"Config": "c.json", "RepoTag\u017f": ["app:1"], "Layer\u017f": ["one.tar"]}]',
    ],
    ids=["small, as Jib before 2.3 wrote them", "capital", "of letters that fold to s"],
)
def test_keys_match_in_any_case(tmp_path, manifest):
    assert flat(tmp_path, docker(manifest), "app:1") == {"one": "0"}


def test_keys_of_a_config_match_in_any_case(tmp_path):
    document = {"OS": "linux", "Rootfs": {"Diff_IDs": [f"sha256:{digest(OTHER)}"]}}
    manifest = '[{"Config": "c.json", "Layers": ["one.tar"]}]'
    data = docker(manifest, json.dumps(document).encode())

    with pytest.raises(flatten.IntegrityError, match="digest mismatch"):
        flat(tmp_path, data)


TWICE = {
    "Layers, in two cases": docker(
        '[{"Config": "c.json", "Layers": ["one.tar"], "layers": ["other.tar"]}]'
    ),
    "Layers, in one case": docker(
        '[{"Config": "c.json", "Layers": ["one.tar"], "Layers": ["other.tar"]}]'
    ),
    "Config, null the second time": docker(
        '[{"Config": "c.json", "Layers": ["one.tar"], "config": null}]'
    ),
    "the layers of an OCI manifest": oci(
        lambda text: text[:-1] + ', "Layers": []}'
    ),
    "the digest of a layer": oci(
        lambda text: text.replace(
            '"layers": [{', f'"layers": [{{"DIGEST": "sha256:{digest(OTHER)}", '
        )
    ),
    "rootfs of the config": docker(
        '[{"Config": "c.json", "Layers": ["one.tar"]}]',
        b'{"os": "linux", "rootfs": {"diff_ids": []}, "RootFS": {"diff_ids": []}}',
    ),
    "diff_ids of the config": docker(
        '[{"Config": "c.json", "Layers": ["one.tar"]}]',
        b'{"os": "linux", "rootfs": {"diff_ids": [], "diff_ids": []}}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("data", TWICE.values(), ids=TWICE)
def test_a_field_that_is_there_twice_is_refused(tmp_path, data):
    assert "twice; tools differ in which to take" in refusal(tmp_path, data)


def test_keys_of_maps_are_exact():
    data = b'{"config": {"Labels": {"name": 1, "Name": 2, "config": 3, "CONFIG": 4}}}'

    assert parse_json(data, CONFIG) == json.loads(data)


def test_a_number_of_too_many_digits_is_refused(tmp_path):
    assert parse_json(b'{"x": %s}' % (b"9" * 1000)) == {"x": int("9" * 1000)}
    data = docker(MANIFEST_TEXT[:-2] + ', "x": ' + "9" * 5000 + "}]")

    assert "not JSON: it has a number of 5,000 digits" in refusal(tmp_path, data)


def test_the_order_of_keys_is_kept():
    data = b'{"z": 1, "OS": 2, "a": 3}'

    assert list(parse_json(data, CONFIG)) == ["z", "os", "a"]


def test_lists_of_objects_are_objects_each():
    data = b'{"Manifests": [{"Digest": "x", "unKnown": 1}, 7, null]}'

    assert parse_json(data, INDEX_OR_MANIFEST) == {
        "manifests": [{"digest": "x", "unKnown": 1}, 7, None]
    }


# --- encodings: docker decides

CONFIG_TEXT = json.dumps(config([ONE], author="Jürgen"), ensure_ascii=False)
MANIFEST_TEXT = '[{"Config": "c.json", "Layers": ["one.tar"]}]'

# The comments are what ``docker load`` of 28.5.2 says of these archives, with both of its
# image stores.
TAKEN = {
    # Loaded image ID: sha256:...
    "UTF-8": CONFIG_TEXT.encode(),
    # Loaded image ID: sha256:...
    "newlines after it": CONFIG_TEXT.encode() + b"\n\n",
    # Loaded image ID: sha256:...; each byte that is not UTF-8 is read as U+FFFD
    "Latin-1": CONFIG_TEXT.encode("latin-1"),
}
REFUSED = {
    # invalid character '\ufeff' looking for beginning of value
    "a byte-order mark": CONFIG_TEXT.encode("utf-8-sig"),
    # invalid character '\xff' looking for beginning of value
    "UTF-16 with a mark": CONFIG_TEXT.encode("utf-16"),
    # invalid character '\xfe' looking for beginning of value
    "UTF-16, big endian": b"\xfe\xff" + CONFIG_TEXT.encode("utf-16-be"),
    # invalid character '\x00' looking for beginning of object key string
    "UTF-16 without a mark": CONFIG_TEXT.encode("utf-16-le"),
    # invalid character '\xff' looking for beginning of value
    "UTF-32": CONFIG_TEXT.encode("utf-32"),
    # invalid character 'N' looking for beginning of value
    "NaN": CONFIG_TEXT.encode()[:-1] + b', "x": NaN}',
    # invalid character 'I' in numeric literal
    "Infinity": CONFIG_TEXT.encode()[:-1] + b', "x": -Infinity}',
    # invalid character 'x' after top-level value
    "something after it": CONFIG_TEXT.encode() + b"x",
}


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN)
def test_an_encoding_that_docker_takes(tmp_path, data):
    assert flat(tmp_path, docker(MANIFEST_TEXT, data)) == {"one": "0"}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_an_encoding_that_docker_refuses(tmp_path, data):
    assert "is not JSON: " in refusal(tmp_path, docker(MANIFEST_TEXT, data))


# invalid character '\ufeff', or '\xff', looking for beginning of value
@pytest.mark.parametrize("kind", ["utf-8-sig", "utf-16"])
def test_a_manifest_in_another_encoding_is_refused(tmp_path, kind):
    data = archive([
        ("one.tar", ONE), ("c.json", CONFIG_TEXT.encode()),
        ("manifest.json", MANIFEST_TEXT.encode(kind)),
    ])  # fmt: skip

    assert "is not JSON: " in refusal(tmp_path, data)


def test_each_byte_that_is_not_utf_8_is_one_replacement():
    assert parse_json(b'"\xe4\xb8\xfc\xed\xa0\x80"') == "\ufffd" * 6


# --- values: docker's containerd image store decides


def odd(**changes):
    """Return the config of ``one.tar`` with other values."""
    return json.dumps(config([ONE]) | changes).encode()


def diff_ids_are(*values):
    return odd(rootfs={"type": "layers", "diff_ids": list(values)})


def steps(*history):
    return odd(history=[{"created_by": "step", **step} for step in history])


DIFF_ID = f"sha256:{digest(ONE)}"
SHA512 = f"sha512:{hashlib.sha512(ONE).hexdigest()}"

# ``docker load`` of 28.5.2 takes these with both image stores ...
VALUES = {
    "created in the year 1": steps({"created": "0001-01-01T00:00:00Z"}),
    "created null": odd(created=None, history=None),
    "config null": odd(config=None, history=[]),
    "created with a time zone": odd(created="2023-01-01T00:00:00.123456789+02:00"),
    "created in the year 9999": odd(created="9999-12-31T23:59:59Z"),
    "nothing but diff_ids": json.dumps({"rootfs": {"diff_ids": [DIFF_ID]}}).encode(),
    "an empty platform": odd(os="", architecture=""),
    "a platform in capitals": odd(os="Linux", architecture="AMD64"),
    "a machine, not an architecture": odd(architecture="x86_64"),
    "a version of Windows": odd(**{"os.version": "10.0", "os.features": ["win32k"]}),
    "only empty steps": steps({"empty_layer": True}, {"empty_layer": True}),
    "half of a surrogate pair": odd(config={"Labels": {"\ud800": "half"}}),
    # ... and these with the containerd image store. The classic stores say:
    # parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006"
    "created is empty": odd(created=""),
    # parsing time ...: cannot parse " 00:00:00" as "T"
    "created without a T": odd(created="2023-01-01 00:00:00"),
    # parsing time "yesterday" ...: cannot parse "yesterday" as "2006"
    "created is a word": odd(created="yesterday"),
    # cannot unmarshal number into Go struct field Image.created of type time.Time
    "created is a number": odd(created=1_600_000_000),
    # too many non-empty layers in History section
    "more steps than layers": steps({}, {}),
    # cannot unmarshal array into Go struct field Image.config.Labels
    "values of another type": odd(config={"Env": None, "Cmd": "sh", "Labels": []}),
    # docker refuses these two: "invalid image JSON, no RootFS key", and "wrong diff id
    # calculated on extraction". Before 1.10 it wrote configs without rootfs, and the OCI
    # image-spec registers sha512.
    "no rootfs": json.dumps({"os": "linux"}).encode(),
    "a sha512 digest": diff_ids_are(SHA512),
}


@pytest.mark.parametrize("data", VALUES.values(), ids=VALUES)
def test_an_odd_config_that_changes_no_layer(tmp_path, data):
    assert flat(tmp_path, docker(MANIFEST_TEXT, data)) == {"one": "0"}


# Both stores refuse these: "invalid manifest, layers length mismatch", or "invalid diffID
# for layer 0"; "mismatched image rootfs and manifest layers", or "wrong diff id calculated
# on extraction".
WRONG_DIFF_IDS = {
    "none": (diff_ids_are(), "0 diff_ids, but the manifest lists 1"),
    "null": (odd(rootfs={"diff_ids": None}), "rootfs.diff_ids is not a list"),
    "twice": (diff_ids_are(DIFF_ID, DIFF_ID), "2 diff_ids, but the manifest lists 1"),
    "empty": (diff_ids_are(""), "rootfs.diff_ids is not a list of digests"),
    "in capitals": (
        diff_ids_are(f"sha256:{digest(ONE).upper()}"),
        "rootfs.diff_ids is not a list of digests",
    ),
}


@pytest.mark.parametrize(("data", "why"), WRONG_DIFF_IDS.values(), ids=WRONG_DIFF_IDS)
def test_diff_ids_that_docker_refuses(tmp_path, data, why):
    assert why in refusal(tmp_path, docker(MANIFEST_TEXT, data))


# --- one name, two members

SAME = b'[{"Config": "c.json", "Layers": ["one.tar"]}]'
DIFFERENT = b'[{"Config": "c.json", "Layers": ["other.tar"]}]'
FILES = [("one.tar", ONE), ("other.tar", OTHER), ("c.json", b'{"os": "linux"}')]
TWO_MEMBERS = {
    "manifest.json": [("manifest.json", SAME), ("manifest.json", DIFFERENT)],
    "./manifest.json": [("manifest.json", SAME), ("./manifest.json", DIFFERENT)],
    "./manifest.json first": [("./manifest.json", SAME), ("manifest.json", DIFFERENT)],
    "x/../manifest.json": [("x/../manifest.json", SAME), ("manifest.json", DIFFERENT)],
    "the config": [("manifest.json", SAME), ("c.json", b'{"os": "plan9"}')],
    "the layer": [("manifest.json", SAME), ("one.tar", OTHER)],
    "a layer of the same size": [("manifest.json", SAME), ("one.tar", layer("eno"))],
}


@pytest.mark.parametrize("members", TWO_MEMBERS.values(), ids=TWO_MEMBERS)
def test_two_members_of_one_name_that_differ_are_refused(tmp_path, members):
    for files in ([*FILES, *members], [*members, *FILES]):
        assert "in the archive twice" in refusal(tmp_path, archive(files))


def test_two_members_of_one_name_that_differ_are_refused_each_time(tmp_path):
    members = [*FILES, ("manifest.json", SAME), ("one.tar", OTHER)]
    (tmp_path / "image.tar").write_bytes(archive(members))

    with open_source(str(tmp_path / "image.tar")) as opened:
        for _ in range(2):
            images, (error,) = opened.load()
            assert not images
            assert "differ; tools differ in which to take" in str(error)


def test_two_members_of_one_name_that_are_equal_are_one(tmp_path):
    manifest = ("manifest.json", SAME)

    assert flat(tmp_path, archive([*FILES, manifest, *FILES, manifest])) == {"one": "0"}


def test_a_config_of_another_size_than_the_manifest_says(tmp_path):
    data = oci(lambda text: text.replace('"size": ', '"size": 1', 1))

    assert "the manifest says 1" in refusal(tmp_path, data)


def test_all_of_an_unchanged_image_is_accepted(tmp_path):
    assert flat(tmp_path, oci(str)) == {"one": "0"}
    assert flat(tmp_path, docker_archive([ONE])) == {"one": "0"}


def test_keys_are_folded_as_go_folds_them():
    """One character for one: a ligature is not the letters that it shows."""
    assert parse_json('{"CON\u017fIG": 1}'.encode(), CONFIG) != {"config": 1}
    assert parse_json('{"con\ufb01g": {}}'.encode(), CONFIG) == {"con\ufb01g": {}}
    assert parse_json(b'{"CONFIG": {}}', CONFIG) == {"config": {}}
