"""Laws of downloads, tried against a server on loopback that honours ranges and misbehaves."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato import download
from ostinato.download import Lines, Part, Whole, fetch_all
from ostinato.errors import DownloadError, UnreachableError
from tests.servers import Site, closed_port, serve

LINES = b"".join(b"%06d " % i + b"x" * (i * 37 % 190) + b"\n" for i in range(20_000))


def first(count: int) -> bytes:
    return b"".join(LINES.splitlines(keepends=True)[:count])


@pytest.fixture
def site() -> Iterator[Site]:
    with serve({"lines": LINES, "empty": b"", "one": b"1"}) as site:
        yield site


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "LONGEST_WAIT", 0.01)


def get(
    site: Site, folder: Path, part: type[Whole] | int, name: str = "lines", retries: int = 2
) -> bytes:
    path = folder / name

    def wanted() -> Part:
        return Lines(part, typical=100) if isinstance(part, int) else part()

    fetch_all({path: f"{site.url}/{name}"}, wanted, max_concurrency=1, timeout=5, retries=retries)
    assert [p.name for p in folder.iterdir()] == [name], "nothing is left beside the file"
    return path.read_bytes()


@given(content=st.binary(max_size=60), count=st.integers(1, 8), cuts=st.lists(st.integers(0, 60)))
def test_the_first_lines_end_at_the_same_byte_however_they_are_cut(
    content: bytes, count: int, cuts: list[int]
) -> None:
    content = content.replace(b"a", b"\n").replace(b"\x00", b"\n")
    part, taken = Lines(count, typical=1), b""
    edges = [0, *sorted(cuts), len(content)]
    for start, stop in itertools.pairwise(edges):
        end = part.take(content[start:stop])
        taken += content[start:stop][:end]
        if end is not None:
            break
    assert content.startswith(taken)
    assert taken.count(b"\n") == min(count, content.count(b"\n"))
    assert taken == content or taken.endswith(b"\n")


@pytest.mark.parametrize("name", ["lines", "empty", "one"])
def test_the_whole_file_comes_as_it_is(site: Site, tmp_path: Path, name: str) -> None:
    assert isinstance(site.files, dict)
    assert get(site, tmp_path, Whole, name) == site.files[name]
    assert site.sent == len(site.files[name])


@pytest.mark.parametrize("count", [1, 40, 1_000, 19_999])
def test_the_first_lines_move_about_as_many_bytes_as_they_have(
    site: Site, tmp_path: Path, count: int
) -> None:
    assert get(site, tmp_path, count) == first(count)
    assert site.sent <= max(4096, 1.3 * len(first(count)))
    assert len(site.gets) <= 4


def test_more_lines_than_there_are_is_the_whole_file(site: Site, tmp_path: Path) -> None:
    assert get(site, tmp_path, 10**6) == LINES


def test_a_server_that_ignores_ranges_is_read_no_further_than_needed(
    site: Site, tmp_path: Path
) -> None:
    site.ranges, site.files = False, {"lines": LINES * 20}
    assert get(site, tmp_path, 1_000) == first(1_000)
    assert site.sent < len(LINES * 20) / 4  # the rest of it is what the kernel buffers


def test_a_server_without_validators_still_gives_the_first_lines(
    site: Site, tmp_path: Path
) -> None:
    site.validators = False
    assert get(site, tmp_path, 5_000) == first(5_000)


def test_a_transfer_cut_short_is_never_taken_as_whole(site: Site, tmp_path: Path) -> None:
    site.drop_after, site.ranges = len(LINES) - 1, False
    with pytest.raises(DownloadError, match=r"/lines: .*gave up after 3 attempts"):
        get(site, tmp_path, Whole)
    assert not (tmp_path / "lines").exists()
    assert len(site.gets) == 3


def test_a_body_without_a_length_is_refused(site: Site, tmp_path: Path) -> None:
    site.lengths, site.ranges = False, False
    with pytest.raises(DownloadError, match="without a length"):
        get(site, tmp_path, Whole)
    assert not (tmp_path / "lines").exists()


def test_dropped_connections_go_on_where_they_broke(site: Site, tmp_path: Path) -> None:
    site.drop_after, site.drops = 700_000, 2
    assert get(site, tmp_path, Whole) == LINES
    assert site.sent == len(LINES), "no byte is moved twice"
    assert [asked for _, asked in site.gets] == ["bytes=0-", "bytes=700000-", "bytes=1400000-"]


def test_headway_is_not_counted_as_failure(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "HEADWAY", 100_000)
    site.drop_after = 200_000
    assert get(site, tmp_path, Whole, retries=0) == LINES


def test_a_later_call_goes_on_where_a_failed_one_ended(site: Site, tmp_path: Path) -> None:
    site.drop_after = 300_000
    with pytest.raises(DownloadError):
        get(site, tmp_path, Whole, retries=1)
    site.drop_after, before = None, site.sent
    assert get(site, tmp_path, Whole) == LINES
    assert before == 600_000
    assert site.sent == len(LINES)


@pytest.mark.parametrize(("conditional", "requests"), [(True, 1), (False, 2)])
def test_a_file_that_has_changed_is_begun_anew(
    site: Site, tmp_path: Path, conditional: bool, requests: int
) -> None:
    site.drop_after = 300_000
    with pytest.raises(DownloadError):
        get(site, tmp_path, Whole, retries=0)
    site.drop_after, site.files, site.conditional = None, {"lines": LINES[::-1]}, conditional
    assert get(site, tmp_path, Whole) == LINES[::-1]
    assert len(site.gets) == 1 + requests


def test_without_a_validator_nothing_is_gone_on_from(site: Site, tmp_path: Path) -> None:
    site.drop_after, site.validators = 300_000, False
    with pytest.raises(DownloadError):
        get(site, tmp_path, Whole, retries=0)
    site.drop_after = None
    assert get(site, tmp_path, Whole) == LINES
    assert site.sent == 300_000 + len(LINES)


def test_unavailable_is_tried_again(site: Site, tmp_path: Path) -> None:
    site.unavailable = 2
    assert get(site, tmp_path, 100) == first(100)
    assert len(site.gets) == 3


def test_a_missing_file_is_an_error_at_once(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=rf"{site.url}/absent: HTTP 404"):
        get(site, tmp_path, Whole, "absent")
    assert len(site.gets) == 1


def test_every_failure_is_named_and_the_rest_is_there(site: Site, tmp_path: Path) -> None:
    files = {tmp_path / name: f"{site.url}/{name}" for name in ["gone", "one", "lost", "lines"]}
    with pytest.raises(DownloadError) as raised:
        fetch_all(files, Whole, max_concurrency=2, timeout=5, retries=0)
    assert "2 of 4" in str(raised.value)
    assert "/gone: HTTP 404" in str(raised.value)
    assert "/lost: HTTP 404" in str(raised.value)
    assert (tmp_path / "lines").read_bytes() == LINES
    assert (tmp_path / "one").read_bytes() == b"1"


def test_files_that_are_there_are_not_fetched_again(site: Site, tmp_path: Path) -> None:
    get(site, tmp_path, Whole)
    get(site, tmp_path, Whole)
    assert len(site.gets) == 1


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "no-such-host.invalid"])
def test_no_network_is_an_error_within_seconds(tmp_path: Path, host: str) -> None:
    url = f"http://{host.format(port=closed_port())}/x"
    files = {tmp_path / str(i): url for i in range(300)}
    start = time.monotonic()
    with pytest.raises(UnreachableError, match="cannot reach"):
        fetch_all(files, Whole, max_concurrency=4, timeout=60, retries=8)
    assert time.monotonic() - start < 2 * download.CONNECT + 1


def test_a_name_that_takes_forever_to_look_up_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "CONNECT", 0.1)
    monkeypatch.setattr(httpx.Client, "head", lambda *_, **__: time.sleep(1))
    with pytest.raises(UnreachableError, match="no answer"):
        fetch_all(
            {tmp_path / "x": "http://example.org/x"}, Whole, max_concurrency=1, timeout=9, retries=0
        )


def test_a_silent_server_is_given_up_after_the_timeout(site: Site, tmp_path: Path) -> None:
    site.pause, start = 3.0, time.monotonic()
    files = {tmp_path / "lines": f"{site.url}/lines"}
    with pytest.raises(DownloadError, match=r"lines: .*timed out"):
        fetch_all(files, Whole, max_concurrency=1, timeout=0.2, retries=1)
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("url", ["ftp://h/x", "file:///etc/hostname", "http://", "gopher://h/x"])
def test_only_http_is_read(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="only http"):
        fetch_all({tmp_path / "x": url}, Whole, max_concurrency=1, timeout=1, retries=0)


def test_redirects_are_followed_but_neither_forever_nor_elsewhere(
    site: Site, tmp_path: Path
) -> None:
    site.moved = {"old": "/lines", "round": "/round", "out": "file:///etc/hostname"}
    files = {tmp_path / name: f"{site.url}/{name}" for name in site.moved}
    with pytest.raises(DownloadError) as raised:
        fetch_all(files, Whole, max_concurrency=1, timeout=5, retries=0)
    assert "2 of 3" in str(raised.value)
    assert "round: Exceeded maximum" in str(raised.value)
    assert (tmp_path / "old").read_bytes() == LINES


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a/b", "a\\b", "c:x", "a\nb", "\0"])
def test_a_name_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(DownloadError, match="not a plain file name"):
        download.inside(tmp_path, name)


def test_local_files_are_copied_by_the_same_rule(tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(LINES)
    files = {tmp_path / "to": str(tmp_path / "from"), tmp_path / "x": str(tmp_path / "absent")}
    with pytest.raises(DownloadError, match="absent: No such file"):
        fetch_all(files, lambda: Lines(30, typical=1), max_concurrency=1, timeout=1, retries=0)
    assert (tmp_path / "to").read_bytes() == first(30)


def test_a_killed_download_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    site.pause = 0.02
    code = (
        "import sys, pathlib; from ostinato.download import Whole, fetch_all\n"
        "fetch_all({pathlib.Path(sys.argv[1]): sys.argv[2]}, Whole,"
        " max_concurrency=1, timeout=9, retries=0)"
    )
    path, root = tmp_path / "lines", Path(__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path), f"{site.url}/lines"], cwd=root
    ) as process:
        deadline = time.monotonic() + 20
        while site.sent < 500_000 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert not path.exists()
    came = (tmp_path / "lines.partial").stat().st_size
    assert came > 100_000
    site.pause = 0
    assert get(site, tmp_path, Whole) == LINES
    assert site.gets[-1] == ("lines", f"bytes={came}-")
