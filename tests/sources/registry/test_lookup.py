"""Questions to a registry that need no image: digests by HEAD, and pages of tags."""

import pytest

from flatten.errors import FormatError, SourceError
from flatten.options import Access
from flatten.sources.registry.lookup import find_digest, list_tags
from registries import Proxy, digest_of, need_registry

pytestmark = need_registry


def methods(proxy):
    """Let a proxy note the methods of requests."""
    found = []

    def trouble(handler):
        found.append(handler.command)
        return False

    proxy.trouble = trouble
    return found


def test_a_digest_is_asked_for_by_head(proxy, host):
    found = methods(proxy)

    assert find_digest(f"{proxy.address}/a/gzip:1", Access()) == digest_of(
        f"{host}/a/gzip:1"
    )
    assert found == ["HEAD"]


def test_a_digest_in_the_reference_needs_no_request(proxy):
    digest = "sha256:" + "1" * 64

    assert find_digest(f"{proxy.address}/a/gzip@{digest}", Access()) == digest
    assert proxy.seen == []


def without_head(handler):
    return handler.command == "HEAD" and handler.say(405)


def without_digest(_handler, status, headers, body):
    return status, {k: v for k, v in headers.items() if "Digest" not in k}, body


@pytest.mark.parametrize(
    "bad",
    [{"trouble": without_head}, {"spoil": without_digest}],
    ids=["no HEAD", "no digest in it"],
)
def test_without_an_answer_to_head_the_manifest_is_fetched(bad, host):
    with Proxy(host, **bad) as proxy:
        got = find_digest(f"{proxy.address}/a/gzip:1", Access())

    assert got == digest_of(f"{host}/a/gzip:1")


def test_a_tag_that_is_not_there_is_an_error_with_those_that_are(host):
    with pytest.raises(SourceError, match="no such tag; it has 1"):
        find_digest(f"{host}/a/gzip:none", Access())


def test_tags_are_listed(host):
    assert "1" in list_tags(f"{host}/a/gzip", Access())


@pytest.mark.parametrize(
    "link", ['</v2/a/gzip/tags/list?last=b&n=2>; rel="next"', "<?last=b>; rel=next"]
)
def test_pages_of_tags_follow_each_other(link, host):
    def trouble(handler):
        if "last=b" in handler.path:
            return handler.say(200, {"tags": ["c"]})
        return handler.say(200, {"tags": ["a", "b"]}, Link=link)

    with Proxy(host, trouble=trouble) as proxy:
        assert list(list_tags(f"{proxy.address}/a/gzip", Access())) == ["a", "b", "c"]


def test_a_repository_that_is_not_there_is_an_error(host):
    with pytest.raises(SourceError, match="cannot list the tags"):
        list(list_tags(f"{host}/a/none", Access()))


@pytest.mark.parametrize("document", [{}, {"tags": 1}, []], ids=str)
def test_a_list_of_another_form_is_an_error(document, host):
    def trouble(handler):
        return handler.say(200, document or {"x": 1})

    with (
        Proxy(host, trouble=trouble) as proxy,
        pytest.raises(FormatError, match="list of tags"),
    ):
        list(list_tags(f"{proxy.address}/a/gzip", Access()))
