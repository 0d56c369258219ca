"""Who is trusted with what: TLS, credentials, mirrors, redirects."""

import base64
import json
import shutil
import stat
import subprocess

import pytest

import flatten
from registries import (
    Proxy,
    authfile,
    basic,
    exported,
    need_registry,
    push,
    registry,
)

pytestmark = need_registry


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Make an authority, and certificates of it for localhost and for a client."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run(
            ["openssl", *arguments], cwd=folder, check=True, capture_output=True
        )

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=an authority of tests", "-keyout", "ca.key", "-out", "ca.crt")  # fmt: skip
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    for name in ("localhost", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", "2", "-extfile", "names",
                "-out", f"{name}.crt")  # fmt: skip
    return folder


def tls(folder, more=""):
    return (
        f"  tls:\n    certificate: {folder}/localhost.crt\n"
        f"    key: {folder}/localhost.key\n{more}"
    )


@pytest.fixture(scope="module")
def secure(tmp_path_factory, archive, certificates):
    with registry(tmp_path_factory.mktemp("tls"), tls=tls(certificates)) as host:
        push(f"docker-archive:{archive}", f"{host}/a:1")
        yield host


@pytest.fixture(scope="module")
def mutual(tmp_path_factory, archive, certificates):
    """A registry that talks only to clients with a certificate."""
    settings = tls(certificates, f"    clientcas: [{certificates}/ca.crt]\n")
    folder = tmp_path_factory.mktemp("mutual")
    (folder / "certs").mkdir()
    shutil.copy(certificates / "client.crt", folder / "certs" / "client.cert")
    shutil.copy(certificates / "client.key", folder / "certs" / "client.key")
    with registry(folder, tls=settings) as host:
        push(f"docker-archive:{archive}", f"{host}/a:1",
             "--dest-cert-dir", folder / "certs")  # fmt: skip
        yield host


def certs_d(home, host):
    folder = home / ".config" / "containers" / "certs.d" / host
    folder.mkdir(parents=True)
    return folder


# --- TLS


def test_an_authority_that_nobody_knows(secure, tmp_path):
    with pytest.raises(flatten.FlattenError, match=r"TLS: .*certificate.*--cacert"):
        exported(f"docker://{secure}/a:1", tmp_path)


def test_cacert(secure, certificates, want, tmp_path):
    access = flatten.Access(cacert=str(certificates / "ca.crt"))
    assert exported(f"docker://{secure}/a:1", tmp_path, access=access) == want


def test_insecure(secure, want, tmp_path):
    access = flatten.Access(insecure=True)
    assert exported(f"docker://{secure}/a:1", tmp_path, access=access) == want


def test_certs_d(secure, certificates, want, tmp_path):
    shutil.copy(certificates / "ca.crt", certs_d(tmp_path / "home", secure))
    assert exported(f"docker://{secure}/a:1", tmp_path) == want


def test_a_certificate_for_another_name(secure, certificates, tmp_path):
    access = flatten.Access(cacert=str(certificates / "ca.crt"))
    port = secure.rpartition(":")[2]
    with pytest.raises(flatten.FlattenError, match=r"TLS: .*127\.0\.0\.1"):
        exported(f"docker://127.0.0.1:{port}/a:1", tmp_path, access=access)


def test_a_certificate_of_the_client(mutual, certificates, want, tmp_path):
    access = flatten.Access(cacert=str(certificates / "ca.crt"))
    with pytest.raises(
        flatten.FlattenError, match=r"refuses the connection.*a client's"
    ):
        exported(f"docker://{mutual}/a:1", tmp_path, access=access)

    folder = certs_d(tmp_path / "home", mutual)
    shutil.copy(certificates / "client.crt", folder / "client.cert")
    shutil.copy(certificates / "client.key", folder / "client.key")
    assert exported(f"docker://{mutual}/a:1", tmp_path, access=access) == want


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_of_authorities_that_is_none(secure, tmp_path, content):
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_bytes(content)
    access = flatten.Access(cacert=str(path))
    with pytest.raises(
        flatten.SourceError, match=r"ca\.crt: (No such file|not a certificate)"
    ):
        exported(f"docker://{secure}/a:1", tmp_path, access=access)


def test_plain_http_is_for_this_machine(tmp_path):
    """The address is one of documentation: nobody is there, and nobody is asked."""
    with pytest.raises(flatten.FlattenError, match=r"192\.0\.2\.1"):
        exported("docker://192.0.2.1:1/a:1", tmp_path)


# --- credentials


def program(folder, name, text):
    folder.mkdir(exist_ok=True)
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def configured(folder, **document):
    path = folder / "config.json"
    path.write_text(json.dumps(document))
    return flatten.Access(authfile=str(path))


@pytest.fixture
def bin(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    return tmp_path / "bin"


ANSWERS = """
read host
echo "$1 $host" >> "${0%/*}/asked"
if [ "$host" = "KNOWN" ]; then
  echo '{"ServerURL": "x", "Username": "me", "Secret": "secret"}'
else
  echo "credentials not found in native keychain"; exit 1
fi
"""


@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
def test_a_program_that_keeps_the_secret(tokens, bin, want, tmp_path, key):
    address = tokens.proxy.address
    program(bin, "test", ANSWERS.replace("KNOWN", address))
    names = {address: "test"} if key == "credHelpers" else "test"
    access = configured(tmp_path, **{key: names})

    assert exported(f"docker://{address}/a/gzip:1", tmp_path, access=access) == want
    asked = (bin / "asked").read_text().splitlines()
    assert asked[-1] == f"get {address}"
    if key == "credHelpers":
        assert len(asked) == 1


def test_a_program_comes_before_a_more_specific_entry(tokens, bin, want, tmp_path):
    address = tokens.proxy.address
    program(bin, "test", ANSWERS.replace("KNOWN", address))
    pair = base64.b64encode(b"me:wrong").decode()
    access = configured(
        tmp_path, credHelpers={address: "test"},
        auths={f"{address}/a/gzip": {"auth": pair}},
    )  # fmt: skip

    assert exported(f"docker://{address}/a/gzip:1", tmp_path, access=access) == want


def test_a_program_that_knows_nothing(tokens, bin, tmp_path):
    program(bin, "test", ANSWERS)
    access = configured(tmp_path, credsStore="test")
    with pytest.raises(flatten.SourceError, match="unauthorized"):
        exported(f"docker://{tokens.proxy.address}/a/gzip:1", tmp_path, access=access)


BROKEN = {
    "missing": (None, "No such file or directory"),
    "fails": ("echo hunter2; exit 3", "get: exit code 3"),
    "says nothing": ("true", "no Username and Secret"),
    "says something endless": (
        "head -c 200000 /dev/zero | tr '\\0' '['",
        "no Username and Secret",
    ),
    "says something else": ("echo '[\"hunter2\"]'", "no Username and Secret"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_program_that_does_not_work(tokens, bin, tmp_path, broken):
    text, why = BROKEN[broken]
    if text is not None:
        program(bin, "test", text)
    address = tokens.proxy.address
    access = configured(tmp_path, credHelpers={address: "test"})
    with pytest.raises(
        flatten.FlattenError, match=f"docker-credential-test.*{why}"
    ) as e:
        exported(f"docker://{address}/a/gzip:1", tmp_path, access=access)
    assert "hunter2" not in str(e.value)


def test_a_program_outside_the_path(tokens, tmp_path):
    address = tokens.proxy.address
    access = configured(tmp_path, credHelpers={address: "/../../evil"})
    with pytest.raises(
        flatten.FlattenError, match="not the name of a credential helper"
    ):
        exported(f"docker://{address}/a/gzip:1", tmp_path, access=access)


@pytest.mark.parametrize("place", ["authfile", "program"])
def test_an_identity_token(tokens, bin, want, tmp_path, place):
    asked = []

    def give(handler):
        size = int(handler.headers.get("Content-Length", 0))
        asked.append((handler.command, handler.rfile.read(size).decode()))
        return handler.say(200, {"access_token": "good"})

    tokens.server.trouble = give
    address = tokens.proxy.address
    if place == "program":
        program(bin, "t", """echo '{"Username": "<token>", "Secret": "refresh+me"}'""")
        access = configured(tmp_path, credHelpers={address: "t"})
    else:
        pair = base64.b64encode(b"00000000:").decode()
        entry = {"auth": pair, "identitytoken": "refresh+me"}
        access = configured(tmp_path, auths={address: entry})

    assert exported(f"docker://{address}/a/gzip:1", tmp_path, access=access) == want
    ((method, form),) = asked
    assert method == "POST"
    assert "refresh_token=refresh%2Bme" in form
    assert "grant_type=refresh_token" in form
    assert "scope=repository%3Aa%2Fgzip%3Apull" in form


FILES = {
    "not JSON": ("{", "not JSON"),
    "a list": ("[]", "not a JSON object"),
    "auths that is a list": ('{"auths": [1]}', "auths is not an object"),
    "auth that is not base64": ('{"auths": {"HOST": {"auth": "%"}}}', "not base64"),
}


@pytest.mark.parametrize("broken", FILES)
def test_a_file_of_credentials_that_is_none(tokens, tmp_path, broken):
    text, why = FILES[broken]
    address = tokens.proxy.address
    (tmp_path / "auth.json").write_text(text.replace("HOST", address))
    access = flatten.Access(authfile=str(tmp_path / "auth.json"))
    with pytest.raises(flatten.FormatError, match=why):
        exported(f"docker://{address}/a/gzip:1", tmp_path, access=access)

    access = flatten.Access(authfile=str(tmp_path / "missing.json"))
    with pytest.raises(flatten.SourceError, match=r"missing\.json: No such file"):
        exported(f"docker://{address}/a/gzip:1", tmp_path, access=access)


def test_the_most_specific_key_wins(tokens, want, tmp_path):
    address = tokens.proxy.address
    right, wrong = (
        {"auth": base64.b64encode(pair).decode()} for pair in (b"me:secret", b"me:no")
    )
    access = configured(tmp_path, auths={address: wrong, f"{address}/a": right})
    assert exported(f"docker://{address}/a/gzip:1", tmp_path, access=access) == want


# --- what reaches other hosts


def sent(server):
    return {headers.get("Authorization") for _, headers in server.seen}


def conf(folder, monkeypatch, text):
    path = folder / "registries.conf"
    path.write_text(text)
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(path))


@pytest.mark.parametrize("path", ["manifests", "blobs", "token"])
def test_a_redirect_to_another_port_gets_no_authorization(tokens, want, tmp_path, path):
    """Not even that of the same host: another port is another server."""
    address = tokens.proxy.address
    access = flatten.Access(authfile=authfile(tmp_path, address))
    challenge = tokens.proxy.trouble

    def trouble(handler):
        answered = challenge(handler)
        if not answered and f"/{path}/" in handler.path:
            there = f"http://{tokens.storage.address}{handler.path}"
            return handler.say(302, Location=there)
        return answered

    tokens.proxy.trouble = trouble
    reference = f"docker://{address}/a/gzip:1"
    if path != "token":
        assert exported(reference, tmp_path, access=access) == want
    else:
        there = f"http://{tokens.storage.address}/token"
        tokens.server.trouble = lambda handler: handler.say(302, Location=there)
        with pytest.raises(flatten.SourceError, match="no token: HTTP 302"):
            exported(reference, tmp_path, access=access)
    assert sent(tokens.storage) <= {None}


def test_a_mirror_gets_its_own_credentials(host, tokens, want, tmp_path, monkeypatch):
    """The registry's are not for it, though it is asked for the registry's image."""
    address = tokens.proxy.address
    conf(
        tmp_path,
        monkeypatch,
        f"""
[[registry]]
location = "{address}"
[[registry.mirror]]
location = "MIRROR"
""",
    )
    text = (tmp_path / "registries.conf").read_text()
    access = flatten.Access(authfile=authfile(tmp_path, address))

    def challenge(handler):
        if handler.headers.get("Authorization") != basic("mirror", "own"):
            return handler.say(401, WWW_Authenticate='Basic realm="mirror"')
        return False

    with Proxy(host, challenge) as mirror:
        conf(tmp_path, monkeypatch, text.replace("MIRROR", mirror.address))
        assert exported(f"docker://{address}/a/gzip:1", tmp_path, access=access) == want
        assert mirror.seen
        assert sent(mirror) == {None}
        assert tokens.proxy.seen, "which has the image too, if the mirror refuses"

        tokens.proxy.seen.clear()
        access = configured(tmp_path, auths={
            mirror.address: {"auth": base64.b64encode(b"mirror:own").decode()},
        })  # fmt: skip
        assert exported(f"docker://{address}/a/gzip:1", tmp_path, access=access) == want
        assert sent(mirror) == {None, basic("mirror", "own")}
        assert not tokens.proxy.seen


# --- registries.conf


def test_a_mirror_without_the_image(host, want, tmp_path, monkeypatch):
    with Proxy(host, lambda handler: handler.say(404)) as mirror:
        conf(
            tmp_path,
            monkeypatch,
            f"""
[[registry]]
location = "{host}"
[[registry.mirror]]
location = "{mirror.address}"
[[registry.mirror]]
location = "localhost:1"
""",
        )
        assert exported(f"docker://{host}/a/gzip:1", tmp_path) == want
        assert mirror.seen


@pytest.mark.parametrize(
    ("pull", "asked"), {"digest-only": False, "tag-only": True}.items()
)
def test_a_mirror_for_tags_or_digests_only(host, tmp_path, monkeypatch, pull, asked):
    with Proxy(host) as mirror:
        conf(
            tmp_path,
            monkeypatch,
            f"""
[[registry]]
location = "{host}"
[[registry.mirror]]
location = "{mirror.address}"
pull-from-mirror = "{pull}"
""",
        )
        exported(f"docker://{host}/a/gzip:1", tmp_path)
        assert bool(mirror.seen) is asked


def test_names_that_are_listed(host, want, tmp_path, monkeypatch):
    conf(
        tmp_path,
        monkeypatch,
        f"""
[aliases]
"short" = "{host}/a/gzip"
[[registry]]
prefix = "*.example.org/team"
location = "{host}/a"
[[registry]]
prefix = "other.example.org"
location = "{host}"
[[registry]]
prefix = "other.example.org/a/zstd"
blocked = true
""",
    )
    for name in ("short:1", "x.example.org/team/gzip:1", "other.example.org/a/gzip:1"):
        assert exported(f"docker://{name}", tmp_path) == want
    with pytest.raises(
        flatten.SourceError, match=r"zstd' is blocked in registries\.conf"
    ):
        exported("docker://other.example.org/a/zstd:1", tmp_path)


def test_a_registry_that_is_insecure(secure, want, tmp_path, monkeypatch):
    conf(
        tmp_path, monkeypatch, f'[[registry]]\nlocation = "{secure}"\ninsecure = true\n'
    )
    assert exported(f"docker://{secure}/a:1", tmp_path) == want


CONFS = {
    "not TOML": ("[[registry", "not TOML"),
    "version 1": ("[registries.search]\nregistries = ['a']", "not version 2"),
    "a table instead of tables": ("registry = 1", "not version 2"),
    "a number instead of a table": ("registry = [1]", "not version 2"),
    "mirrors that are none": (
        '[[registry]]\nlocation = "HOST"\nmirror = [1]', "not version 2",
    ),
    "without a name": ("[[registry]]\nblocked = true", "without a prefix or location"),
}  # fmt: skip


@pytest.mark.parametrize("broken", CONFS)
def test_a_registries_conf_that_is_none(host, tmp_path, monkeypatch, broken):
    text, why = CONFS[broken]
    conf(tmp_path, monkeypatch, text.replace("HOST", host))
    with pytest.raises(flatten.FormatError, match=rf"registries\.conf.*{why}"):
        exported(f"docker://{host}/a/gzip:1", tmp_path)
