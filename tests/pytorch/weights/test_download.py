from __future__ import annotations

import errno
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from effdet_deploy.cache import cache_directory
from effdet_deploy.errors import DownloadError, ResourceError, UsageError
from effdet_deploy.pytorch.network import get_config, list_models
from effdet_deploy.pytorch.weights import download
from effdet_deploy.pytorch.weights.download import cached_path, fetch
from tests.loopback import Site, serving

CONTENT = bytes(range(256)) * 2000
NAME = f"weights-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EFFDET_DEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def site():
    with serving(Site({NAME: CONTENT, "latest.pth": CONTENT})) as served:
        yield served


def entries(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


def test_a_file_is_downloaded_once_and_kept_under_its_name(site, cache):
    path = fetch(site.url(NAME))
    assert (path, path.read_bytes()) == (cache / NAME, CONTENT)
    assert fetch(site.url(NAME)) == path
    assert site.ranges == [None]
    assert entries(cache) == [NAME]


def test_a_file_put_there_by_hand_needs_no_network(cache):
    cache.mkdir()
    (cache / NAME).write_bytes(CONTENT)
    assert fetch(f"http://127.0.0.1:9/{NAME}") == cache / NAME


def test_a_cached_file_that_was_damaged_is_downloaded_again(site, cache):
    cache.mkdir()
    (cache / NAME).write_bytes(CONTENT[:-1])
    assert fetch(site.url(NAME)).read_bytes() == CONTENT


def test_progress_counts_up_to_the_total(site):
    told = []
    fetch(site.url(NAME), lambda received, total: told.append((received, total)))
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)


def test_a_server_that_hides_the_length_is_no_obstacle(site):
    site.tells_length = False
    told = []
    assert fetch(site.url(NAME), lambda *each: told.append(each)).read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), None)


def test_a_broken_transfer_goes_on_where_it_stopped(site, cache):
    site.breaks_after = 1000
    with pytest.raises(DownloadError, match=f"stopped after 1000 of {len(CONTENT)} bytes"):
        fetch(site.url(NAME))
    assert entries(cache) == [f"{NAME}.part"]
    site.breaks_after = None
    told = []
    path = fetch(site.url(NAME), lambda *each: told.append(each))
    assert path.read_bytes() == CONTENT
    assert told[0] == (1000, len(CONTENT))
    assert site.ranges == [None, "bytes=1000-"]
    assert entries(cache) == [NAME]


def test_a_server_that_ignores_ranges_sends_it_all_again(site, cache):
    site.breaks_after = 1000
    with pytest.raises(DownloadError):
        fetch(site.url(NAME))
    site.breaks_after, site.takes_ranges = None, False
    assert fetch(site.url(NAME)).read_bytes() == CONTENT


def test_a_partial_file_that_is_complete_is_only_checked_and_renamed(site, cache):
    cache.mkdir()
    (cache / f"{NAME}.part").write_bytes(CONTENT)
    assert fetch(site.url(NAME)).read_bytes() == CONTENT
    assert entries(cache) == [NAME]


def test_a_partial_file_that_is_longer_than_the_file_is_thrown_away(site, cache):
    cache.mkdir()
    (cache / f"{NAME}.part").write_bytes(CONTENT + b"more")
    assert fetch(site.url(NAME)).read_bytes() == CONTENT
    assert entries(cache) == [NAME]


def test_a_partial_file_of_another_file_is_noticed_by_the_hash_and_removed(site, cache):
    cache.mkdir()
    (cache / f"{NAME}.part").write_bytes(b"other" * 100)
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch(site.url(NAME))
    assert entries(cache) == []
    assert fetch(site.url(NAME)).read_bytes() == CONTENT


def test_a_name_without_a_hash_is_downloaded_each_time_and_kept_by_its_url(site, cache):
    first = fetch(site.url("latest.pth"))
    site.files["latest.pth"] = b"newer"
    second = fetch(site.url("latest.pth"))
    assert first == second == cached_path(site.url("latest.pth"))
    assert second.read_bytes() == b"newer"
    assert cached_path("http://elsewhere/latest.pth") != first
    assert entries(cache) == ["latest.pth"]


def test_a_broken_transfer_without_a_hash_leaves_nothing_and_keeps_the_old_file(site, cache):
    path = fetch(site.url("latest.pth"))
    site.breaks_after = 1000
    with pytest.raises(DownloadError):
        fetch(site.url("latest.pth"))
    assert path.read_bytes() == CONTENT
    assert entries(cache) == ["latest.pth"]


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_the_servers_answer_is_in_the_error(site, status):
    site.status = status
    with pytest.raises(DownloadError, match=f"HTTP {status}") as caught:
        fetch(site.url(NAME))
    assert "--weights PATH" in caught.value.remedy


def test_without_a_network_it_says_what_to_pass_and_where_the_file_would_go(cache):
    with pytest.raises(DownloadError) as caught:
        # No program listens on port 9 (discard).
        fetch(f"http://127.0.0.1:9/{NAME}")
    assert f"http://127.0.0.1:9/{NAME}" in caught.value.cause
    assert str(cache / NAME) in caught.value.remedy
    assert "--weights PATH" in caught.value.remedy
    assert entries(cache) == []


def test_without_a_network_no_place_is_offered_in_which_the_file_would_not_be_looked_for(cache):
    with pytest.raises(DownloadError) as caught:
        fetch("http://127.0.0.1:9/latest.pth")
    assert str(cache) not in caught.value.remedy
    assert "--weights PATH" in caught.value.remedy


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/w.pth", "data://x", "://x", "http://[x"]
)
def test_only_http_is_fetched(url):
    with pytest.raises(UsageError, match="not an http or https URL"):
        fetch(url)


@pytest.mark.parametrize("elsewhere", ["file:///etc/passwd", "ftp://127.0.0.1/w.pth"])
def test_no_redirect_leads_to_another_protocol(site, cache, elsewhere):
    site.redirect = elsewhere
    with pytest.raises(DownloadError):
        fetch(site.url(NAME))
    assert entries(cache) == []


def test_a_redirect_to_http_is_followed(site):
    with serving(Site(redirect=site.url(NAME))) as first:
        assert fetch(first.url(NAME)).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_names_the_variable(site, cache):
    cache.write_bytes(b"a file where the directory should be")
    said = r"is a file\. Move '.*' away, or set EFFDET_DEPLOY_CACHE"
    with pytest.raises(ResourceError, match=said):
        fetch(site.url(NAME))


def test_a_full_disk_is_reported_as_full(site, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_receive", fail)
    with pytest.raises(ResourceError, match="disk was full"):
        fetch(site.url(NAME))


@pytest.mark.parametrize(
    "name", ["effdet-20240115.pth", "step-00012000.pth", "time-1712345678.pth"]
)
def test_a_date_or_a_step_is_not_taken_for_a_hash(name):
    with serving(Site({name: CONTENT})) as served:
        assert fetch(served.url(name)).read_bytes() == CONTENT


def test_every_published_name_carries_a_hash():
    urls = [get_config(name).url for name in list_models()]
    assert all(download._NAMED_HASH.search(url) for url in urls if url)


def test_two_downloads_of_a_file_at_the_same_time_both_give_the_file(site):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fetch, [site.url(NAME)] * 4))
    assert {path.read_bytes() for path in found} == {CONTENT}
    assert site.ranges == [None]


def test_a_name_that_is_not_ascii_is_escaped():
    with serving(Site({"mod%C3%A8le%20un.pth": CONTENT})) as served:
        assert fetch(served.url("modèle un.pth")).read_bytes() == CONTENT
        assert fetch(served.url("mod%C3%A8le%20un.pth")).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://h/a/w-8107aa99.pth?x=1#y", "w-8107aa99.pth"),
        ("http://h/a%2F..%2Fw-8107aa99.pth", "w-8107aa99.pth"),
        ("http://h/", "weights"),
        ("http://h/..", "weights"),
        ("http://h/a%00b%5Cc.pth", "a_b_c.pth"),
    ],
)
def test_a_url_names_a_plain_file_in_the_cache(url, name, cache):
    path = cached_path(url)
    assert path.name == name
    assert cache in path.parents


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.cache/effdet-deploy"),
        ("linux", {"XDG_CACHE_HOME": "xdg"}, "xdg/effdet-deploy"),
        ("darwin", {}, "home/Library/Caches/effdet-deploy"),
        ("win32", {"LOCALAPPDATA": "local"}, "local/effdet-deploy"),
        ("linux", {"EFFDET_DEPLOY_CACHE": "mine"}, "mine"),
    ],
)
def test_the_cache_is_in_the_platforms_folder_for_caches(
    monkeypatch, platform, variables, expected
):
    for name in ("EFFDET_DEPLOY_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "home", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    assert cache_directory() == Path(expected)
