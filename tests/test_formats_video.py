"""The table of docs/formats.md, section Videos: each row is a test of this name."""

import base64
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ostinato.errors import DataError, RejectedVideoError, RequestError, SourceError
from ostinato.params import bind
from ostinato.video import dataset, serving, sources
from ostinato.video.formats import frames, reading
from ostinato.video.formats.container import VIDEO_SUFFIXES
from ostinato.video.formats.images import series_of
from ostinato.video.formats.reading import REJECT_REASONS, Sampling
from ostinato.video.sources.split_list import SplitList, read_split_list
from tests import videos

DOCS = Path(__file__).parent.parent / "docs" / "formats.md"
PREPARE: dict[str, Any] = {
    "tolerated_rejects": 0.0,
    "validation": 0.3,
    "test": 0.3,
    "group": None,
    "frames": 4,
    "frame_rate": None,
    "frame_sampling": "uniform",
    "clips": 1,
    "height": 6,
    "width": 8,
    "colour": "grey",
    "max_pixels": 10**6,
    "augment": {"flip": False, "crop": 0.0, "jitter": 0.0, "brightness": 0.0},
    "shard_size": 10,
    "workers": 1,
}
INK = np.zeros((4, 24, 32, 4), np.uint8)
"""A black line that grows over four frames, on a transparent black sheet."""
for number, picture in enumerate(INK):
    picture[:, : 8 * number + 4, 3] = 255
INK_ON_WHITE = [223, 159, 96, 32]

Log = pytest.LogCaptureFixture
Case = Callable[[Path, Log], None]
CASES: dict[str, Case] = {}


def case(row: str) -> Callable[[Case], Case]:
    """Register the test of a row."""

    def register(function: Case) -> Case:
        CASES[row] = function
        return function

    return register


def greys(video: Path | bytes, **changes: Any) -> list[int]:
    """The grey value of each frame of a clip of up to 64 frames."""
    sampling = Sampling(64, None, "uniform", 1, 24, 32, "grey", 10**6)._replace(**changes)
    (clip,) = reading.read(video, sampling, np.random.default_rng(0))
    return [int(grey) for grey in clip.pixels.mean(axis=(1, 2, 3)).round()]


def numbers(video: Path | bytes, **changes: Any) -> list[int]:
    """The numbers of the frames of `videos.counting`; lossy codecs change grey values."""
    return [round(grey / 10) for grey in greys(video, **changes)]


def rejected(video: Path | bytes, **changes: Any) -> str:
    with pytest.raises(RejectedVideoError) as raised:
        greys(video, **changes)
    assert raised.value.reason in REJECT_REASONS
    return str(raised.value)


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def fetched(
    root: Path, *, ignore: list[str] | None = None, test: Path | str | None = None
) -> dict[str, Any]:
    """The manifest of the source ``folder``."""
    raw = root.parent / "raw"
    raw.mkdir()
    block = {"path": str(root), "ignore": ignore or [], "test": None if test is None else str(test)}
    bind(sources.folder, block)(raw, root.parent, 0)
    manifest: dict[str, Any] = json.loads((raw / "manifest.json").read_text())
    return manifest


def paths(manifest: dict[str, Any], split: str | None = None) -> list[str]:
    return [video["path"] for video in manifest["videos"] if split in (None, video["split"])]


def refused(root: Path, **options: Any) -> str:
    with pytest.raises(SourceError) as raised:
        fetched(root, **options)
    return str(raised.value)


def prepared(raw: Path, **changes: Any) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The manifest and the rejects of a data set."""
    data = raw.parent / "data"
    data.mkdir()
    bind(dataset.prepare, {**PREPARE, **changes})(raw, data)
    rejects = (data / "rejects.ndjson").read_text().splitlines()
    return json.loads((data / "manifest.json").read_text()), [json.loads(x) for x in rejects]


@case("endings of all supported containers, in upper or lower case")
def _(tmp: Path, log: Log) -> None:
    codec = ("mpeg4", "yuv420p")
    names = ["a.WMV", "b.3gp", "c.flv", "d.ts", "e.MTS", "f.m4v", "g.divx", "h.AVI", "i.ogv"]
    for name in names:
        film = videos.counting(5)
        encoder = {".flv": ("flv", "yuv420p"), ".ogv": ("libvpx", "yuv420p")}.get(name[1:], codec)
        muxer = {".divx": "avi", ".mts": "mpegts", ".wmv": "asf"}.get(name[1:].lower(), "")
        path = tmp / "own" / "Run" / name
        videos.write(path, film, codec=encoder, muxer=muxer or None)
        assert numbers(path) == [1, 2, 3, 4, 5], name
    manifest = fetched(tmp / "own")
    assert paths(manifest) == [f"Run/{name}" for name in names]
    assert "skipped" not in manifest


@case("videos in subfolders of a class")
def _(tmp: Path, log: Log) -> None:
    names = ["Run/v.avi", "Swim/subject0/v.avi", "Swim/subject1/a/v.avi"]
    touch(tmp / "own", *names)
    videos.write_image(tmp / "own" / "Swim/subject2/clip/1.png", INK[0])
    manifest = fetched(tmp / "own")
    assert paths(manifest) == [*names, "Swim/subject2/clip"]
    assert [video["class"] for video in manifest["videos"]] == ["Run", "Swim", "Swim", "Swim"]


@case("names with spaces, signs, other alphabets")
def _(tmp: Path, log: Log) -> None:
    names = [
        *("Ride & jump, 100%/ lead.mp4", "Ride & jump, 100%/#437_How_To;_&_!_ride's.mp4"),
        *("Ride & jump, 100%/-dash.mp4", "Ride & jump, 100%/50%_%03d.mp4"),
        *(
            'Ride & jump, 100%/a:b?"[0-9].mp4',
            "Ride & jump, 100%/ünï 猫.MP4",
            "走る/line\nfeed.mp4",
        ),
    ]
    for name in names:
        videos.write(tmp / "film.mp4", videos.counting(3))
        path = tmp / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (tmp / "film.mp4").rename(path)
        assert numbers(path) == [1, 2, 3]
    manifest = fetched(tmp / "own")
    assert paths(manifest) == names
    assert manifest["classes"] == ["Ride & jump, 100%", "走る"]


@case("a folder of numbered images: BMP, JPEG, PNG, TIFF, WebP")
def _(tmp: Path, log: Log) -> None:
    for ending in (".bmp", ".jpg", ".png", ".tif", ".webp"):
        folder = tmp / "own" / "Run" / ending[1:]
        for number in (1, 2, 10, 9):
            grey = np.full((24, 32), 10 * number, np.uint8)
            videos.write_image(folder / f"frame{number}{ending}", grey)
        assert numbers(folder) == [1, 2, 9, 10]
        videos.write_image(folder / f"cover{ending}", INK[0])
        touch(folder, f"._frame3{ending}")
    manifest = fetched(tmp / "own")
    assert paths(manifest) == [f"Run/{name}" for name in ("bmp", "jpg", "png", "tif", "webp")]
    assert manifest["skipped"] == {"hidden": 5, "images without a number": 5}
    assert numbers(tmp / "raw/Run/png") == [1, 2, 9, 10]


@case("images named by date and time, or by several numbers of which one counts")
def _(tmp: Path, log: Log) -> None:
    for names in (
        ["IMG_20221231_235959", "IMG_20230101_000000", "IMG_20230101_000100"],
        ["2023-01-01T09-59-59", "2023-01-01T10-00-00", "2023-01-02T10-00-00"],
        ["v_2_frame9", "v_2_frame10", "v_2_frame11"],
        ["f1_t0.5", "f2_t1.0", "f3_t1.5", "f10_t2.0"],
        ["cover"],
    ):
        images = [Path(f"{name}.jpg") for name in names]
        assert series_of(reversed(images)) == images


@case("several series of images in one folder, images without numbers")
def _(tmp: Path, log: Log) -> None:
    for names, message in {
        ("left_1.png", "left_2.png", "right_1.png"): "left_1.png and right_1.png",
        ("cam1_1.png", "cam1_2.png", "cam2_1.png"): "cam1_1.png and cam2_1.png",
        ("1.png", "1 (1).png", "2.png"): "1 (1).png and 1.png",
        ("1.jpg", "1.png", "2.png"): "1.jpg and 1.png",
        ("01.png", "1.png"): "01.png and 1.png",
        ("a.png", "b.png"): "images without numbers, such as a.png and b.png",
    }.items():
        with pytest.raises(RejectedVideoError, match=re.escape(message)):
            series_of(map(Path, names))
    touch(tmp / "own", "Run/two/left_1.png", "Run/two/right_1.png", "Run/v.avi")
    assert paths(fetched(tmp / "own")) == ["Run/two", "Run/v.avi"]
    assert "several series of images, such as left_1.png and right_1.png; move each into" in (
        rejected(tmp / "raw/Run/two")
    )


@case("EXIF in pictures and in motion JPEG")
def _(tmp: Path, log: Log) -> None:
    picture = np.zeros((48, 64), np.uint8)
    picture[:24, :32], picture[24:, :32] = 240, 120
    square = picture[:, 8:56]
    shown = {
        1: square,
        2: square[:, ::-1],
        3: square[::-1, ::-1],
        4: square[::-1],
        5: square.T,
        6: square.T[:, ::-1],
        7: square.T[::-1, ::-1],
        8: square.T[::-1],
    }
    for ending in (".jpg", ".png"):
        for orientation, expected in shown.items():
            folder = tmp / f"{orientation}{ending}"
            videos.write_image(folder / f"1{ending}", picture, orientation)
            sampling = Sampling(1, None, "uniform", 1, 48, 48, "grey", 10**6)
            (clip,) = reading.read(folder, sampling, np.random.default_rng(0))
            assert np.abs(clip.pixels[0, ..., 0] - expected.astype(float)).mean() < 4
    jpeg = [(tmp / "1.jpg" / "1.jpg").read_bytes()] * 3
    assert len(greys(videos.motion_jpeg(tmp / "v.avi", jpeg))) == 3


@case("a video trimmed without encoding (edit list)")
def _(tmp: Path, log: Log) -> None:
    for b_frames in ("0", "2"):
        options = {"bf": b_frames, "g": "12"}
        path = videos.write(tmp / "whole.mp4", videos.counting(12), options=options)
        whole = path.read_bytes()
        for start, duration in ((0, 1200), (500, 700), (300, 400), (0, 400), (1000, 200)):
            film = videos.trimmed(whole, start, duration)
            expected = list(range(1 + start // 100, 1 + (start + duration) // 100))
            assert numbers(film) == expected, (b_frames, start, duration)
        film = videos.trimmed(whole, 500, 700)
        assert numbers(film, frames=3, frame_sampling="centred") == [8, 9, 10]
        assert numbers(film, frame_rate=5.0) == [6, 8, 10, 12]


@case("sound that is longer than the picture, or begins before it")
def _(tmp: Path, log: Log) -> None:
    for ending in (".mkv", ".mp4", ".webm"):
        path = videos.write(tmp / f"long{ending}", videos.counting(5), sound=3.0)
        assert numbers(path) == [1, 2, 3, 4, 5]
        times = [2000, 2100, 2200, 2300]
        path = videos.write(tmp / f"late{ending}", videos.counting(4), times=times, sound=2.4)
        assert numbers(path) == [1, 2, 3, 4]


@case("timestamps that do not begin at 0")
def _(tmp: Path, log: Log) -> None:
    for ending in (".mkv", ".mp4", ".webm", ".avi"):
        times = [20_000, 20_100, 20_200, 20_300]
        path = videos.write(tmp / f"v{ending}", videos.counting(4), times=times)
        assert set(numbers(path)) == {1, 2, 3, 4}
    path = videos.write(
        tmp / "half.mkv", videos.counting(20), times=[20_000 + 100 * i for i in range(20)]
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "truncated: " in rejected(path)


@case("AV1")
def _(tmp: Path, log: Log) -> None:
    codec = ("libsvtav1", "yuv420p")
    for ending in (".mp4", ".webm", ".mkv"):
        path = videos.write(tmp / f"v{ending}", videos.counting(20), codec=codec)
        assert numbers(path, frames=10) == list(range(2, 21, 2))
        assert numbers(path, frames=4, frame_sampling="centred") == [9, 10, 11, 12]


@case("transparency: PNG, WebP, GIF, MOV, WebM")
def _(tmp: Path, log: Log) -> None:
    folders = []
    for ending in (".png", ".webp"):
        for number, picture in enumerate(INK):
            videos.write_image(tmp / ending[1:] / f"{number}{ending}", picture)
        folders.append(tmp / ending[1:])
    encoders = {
        "v.mov": ("qtrle", "argb"),
        "v9.webm": ("libvpx-vp9", "yuva420p"),
        "p.mov": ("prores_ks", "yuva444p10le"),
        "v.apng": ("apng", "rgba"),
    }
    files = [videos.write(tmp / name, INK, codec=codec) for name, codec in encoders.items()]
    for video in (*folders, *files):
        assert np.abs(np.subtract(greys(video), INK_ON_WHITE)).max() <= 2, video
    assert greys(gif(ink=(0, 0, 0))) == [128]  # a transparent pixel and a black one
    assert greys(gif(ink=(255, 0, 0)), colour="rgb") == [170]


def gif(ink: tuple[int, int, int]) -> bytes:
    """Two pixels: a transparent black one, and one of a colour."""
    palette = bytes([0, 0, 0, *ink])
    head = b"GIF89a\x02\x00\x01\x00\x80\x00\x00" + palette + b"\x21\xf9\x04\x01\x00\x00\x00\x00"
    return head + b"\x2c\x00\x00\x00\x00\x02\x00\x01\x00\x00\x02\x02\x44\x0a\x00\x3b"


@case("white ink on transparency")
def _(tmp: Path, log: Log) -> None:
    white = np.concatenate([np.full_like(INK[..., :3], 255), INK[..., 3:]], axis=3)
    for number, picture in enumerate(white):
        videos.write_image(tmp / "film" / f"{number}.png", picture)
    for video in (tmp / "film", gif(ink=(255, 255, 255))):
        assert "as white as the sheet" in rejected(video)
    nothing = np.zeros((2, 24, 32, 4), np.uint8)
    assert greys(videos.write(tmp / "v.apng", nothing, codec=("apng", "rgba"))) == [255, 255]


@case("pixels that are not square")
def _(tmp: Path, log: Log) -> None:
    film = np.zeros((2, 48, 64), np.uint8)
    film[:, :, 16:32] = 255  # of 128x48: columns 32 to 63; of the middle square: 0 to 23
    square = {"height": 48, "width": 48}
    path = videos.write(tmp / "wide.mp4", film, aspect=2)
    assert np.abs(np.subtract(greys(path, **square), 128)).max() <= 6
    path = videos.write(tmp / "square.mp4", film)
    assert np.abs(np.subtract(greys(path, **square), 85)).max() <= 6
    path = videos.write(tmp / "turned.mp4", film, aspect=2)
    path.write_bytes(videos.with_display_matrix(path.read_bytes(), (0, 1, -1, 0)))
    assert np.abs(np.subtract(greys(path, **square), 128)).max() <= 6


@case("animated PNG")
def _(tmp: Path, log: Log) -> None:
    path = videos.write(tmp / "v.apng", videos.counting(5), codec=("apng", "gray"))
    assert numbers(path) == [1, 2, 3, 4, 5]
    assert numbers(path.rename(tmp / "v.png").read_bytes()) == [1, 2, 3, 4, 5]


@case("animated WebP")
def _(tmp: Path, log: Log) -> None:
    codec = ("libwebp_anim", "bgra")
    path = videos.write(tmp / "v.webp", videos.counting(3), codec=codec)
    assert rejected(path).startswith("unreadable: FFmpeg cannot decode an animated WebP; convert")
    path.rename(tmp / "own.gif")
    assert "animated WebP" in rejected((tmp / "own.gif").read_bytes())


@case("hidden names and what systems leave: `.`, `__MACOSX`, `Thumbs.db`, `desktop.ini`")
def _(tmp: Path, log: Log) -> None:
    own = tmp / "own"
    kept = ["Run/v0.avi", "Swim/v0.avi"]
    hidden = [
        *(".ipynb_checkpoints/v0-checkpoint.avi", "Run/._v0.avi", "__MACOSX/Run/v0.avi"),
        *("Run/.ipynb_checkpoints/frame1-checkpoint.png", ".DS_Store", "Run/Thumbs.db"),
    ]
    touch(own, *kept, *hidden)
    log.set_level(logging.INFO)
    manifest = fetched(own)
    assert (paths(manifest), manifest["classes"]) == (kept, ["Run", "Swim"])
    assert manifest["skipped"] == {"hidden": len(hidden)}
    assert log.messages[-1] == (
        f"2 videos; {own}: 2 files are read, 6 are not: 6 hidden (.DS_Store, "
        ".ipynb_checkpoints/v0-checkpoint.avi, ...)"
    )


@case("other endings, images outside a folder, thumbnails, names in `ignore`")
def _(tmp: Path, log: Log) -> None:
    kept = ["Run/v0.avi", "Run/v1.avi", "Swim/clip", "Swim/v0.avi"]
    touch(tmp / "own", kept[0], kept[1], kept[3], "Swim/clip/1.png", "Swim/clip/2.png")
    touch(tmp / "own", "Run/thumbnails/v0.jpg", "Run/thumbnails/v1.jpg", "Run/v0.jpg", "x.avi")
    touch(tmp / "own", "Run/v0.srt", "Run/README", "notes/a.txt", "old/v0.avi", "Run/v0-old.avi")
    manifest = fetched(tmp / "own", ignore=["notes", "*old*"])
    assert paths(manifest) == kept
    assert manifest["skipped"] == {
        "thumbnails of videos": 2,
        "images in no folder of a video": 1,
        "in no folder of a class": 1,
        "with the ending .srt": 1,
        "without an ending": 1,
        "ignored by params.yaml": 3,
    }


@case("a folder of a class without videos, or an empty one")
def _(tmp: Path, log: Log) -> None:
    own = tmp / "own"
    touch(own, "Run/v0.avi", "Swim/v0.xyz", "Swim/v1.xyz", "Swim/0.png")
    message = refused(own)
    assert f"{own}/Swim: found no videos; expected one folder per class, of videos (" in message
    assert "Files that are not read: 2 with the ending .xyz (Swim/v0.xyz, Swim/v1.xyz); " in message
    assert message.endswith("If it is no class, set `ignore: [Swim]`")
    (tmp / "raw").rmdir()
    assert paths(fetched(own, ignore=["Swim"])) == ["Run/v0.avi"]
    (own / "Walk").mkdir()
    (tmp / "raw").rename(tmp / "before")
    assert "Walk: found no videos; expected" in (message := refused(own, ignore=["Swim"]))
    assert "It has no files. If it is no class, set `ignore: [Walk]`" in message


@case("folders of splits, or one folder above the classes")
def _(tmp: Path, log: Log) -> None:
    touch(tmp / "own", "train/Run/v0.avi", "test/Run/v1.avi", "train/Swim/v1.avi")
    assert "test, train: folders of splits; expected one folder per class" in refused(tmp / "own")
    touch(tmp / "two", "UCF-101/Run/v0.avi", "UCF-101/Swim/v1.avi")
    (tmp / "raw").rmdir()
    assert f"did you mean `path: {tmp}/two/UCF-101`?" in refused(tmp / "two")


@case("a link that leads out of the folder")
def _(tmp: Path, log: Log) -> None:
    touch(tmp, "own/Run/v0.avi", "secret.avi")
    (tmp / "own/Run/v1.avi").symlink_to(tmp / "secret.avi")
    assert "v1.avi: links to a file outside" in refused(tmp / "own")


@case("a broken link, a file without permission, a name that is not UTF-8")
def _(tmp: Path, log: Log) -> None:
    root = own_videos(tmp)
    (root / "Run/gone.avi").symlink_to("nowhere.avi")
    os.close(os.open(os.fsencode(root) + b"/Run/caf\xe9.avi", os.O_CREAT))
    manifest = fetched(root)
    assert len(paths(manifest)) == 16
    _, rejects = prepared(tmp / "raw", tolerated_rejects=0.2)
    assert rejects == [
        {"path": "Run/caf\\xe9.avi", "reason": "unreadable", "found": "the name is not UTF-8"},
        {"path": "Run/gone.avi", "reason": "unreadable", "found": "a broken link"},
    ]


def own_videos(tmp: Path, count: int = 8) -> Path:
    """A folder of two classes."""
    for label in ("Run", "Swim"):
        for number in range(count):
            film = np.full((2, 6, 8), 10 * number, np.uint8)
            videos.write(tmp / "own" / label / f"{label}{number}.gif", film)
    return tmp / "own"


@case("empty files, other files, truncated or damaged ones, frames that change size")
def _(tmp: Path, log: Log) -> None:
    whole = videos.write(tmp / "v.mkv", videos.counting(20)).read_bytes()
    for content, reason in {
        b"": "unreadable",
        b"version https://git-lfs.github.com/spec/v1\n": "unreadable",
        whole[: len(whole) // 2]: "truncated",
        videos.png(90, 90)[:60]: "corrupt",
    }.items():
        assert rejected(content).startswith(f"{reason}: ")
    noise = np.random.default_rng(0).integers(0, 255, (4, 48, 64), dtype=np.uint8)
    pictures = [
        videos.write(tmp / "v.gif", noise).read_bytes(),
        *(
            videos.write_image(tmp / f"1{ending}", noise[0], orientation).read_bytes()
            for ending, orientation in ((".jpg", None), (".jpg", 6), (".webp", None))
        ),
    ]
    for picture in pictures:
        assert len(greys(picture)) == (4 if picture.startswith(b"GIF") else 1)
        for cut in range(100, len(picture) - 2, 97):
            assert rejected(picture[:cut]).startswith(("truncated: ", "corrupt: ", "unreadable: "))
    greys(pictures[0][:-1])  # a GIF without its last byte, the trailer, has all frames
    greys(pictures[1] + b"\0" * 9 + pictures[0])  # a JPEG with a short video behind it
    for number in (1, 2):
        videos.write_image(tmp / "sizes" / f"{number}.png", np.zeros((24, 30 + number), np.uint8))
    assert rejected(tmp / "sizes").startswith("changes size: ")


@case("any error of a decoder")
def _(tmp: Path, log: Log) -> None:
    root = own_videos(tmp)
    fetched(root)

    def fail(converter: object, frame: Any) -> NDArray[np.uint8]:
        if frame.width == 8 and not called:
            called.append(1)
            raise ValueError("31 is not a valid Type")
        return original(converter, frame)  # type: ignore[arg-type]

    called: list[int] = []
    original = frames.FrameConverter.__call__
    log.set_level(logging.INFO)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames.FrameConverter, "__call__", fail)
        manifest, rejects = prepared(tmp / "raw", tolerated_rejects=0.1)
    (reject,) = rejects
    assert reject["path"] in paths(json.loads((tmp / "raw/manifest.json").read_text()))
    assert (reject["reason"], reject["found"]) == ("corrupt", "ValueError: 31 is not a valid Type")
    assert manifest["details"]["rejects"]["corrupt"] == 1
    assert "15 of 16 videos are read; 1 corrupt: see rejects.ndjson" in log.messages


@case("frames larger than `max_pixels`, or very long and thin ones")
def _(tmp: Path, log: Log) -> None:
    assert "too large: 2000x600, more than 1000000 pixels" in rejected(videos.png(2000, 600))
    assert "too large: 65535x1 scaled to cover 256x256 is 16776960x256" in rejected(
        videos.png(65_535, 1), height=256, width=256
    )
    assert len(greys(videos.png(4000, 4), height=112, width=112)) == 1


@case("more rejected videos than `tolerated_rejects`")
def _(tmp: Path, log: Log) -> None:
    root = own_videos(tmp)
    touch(root, "Run/page.avi")
    (root / "Run/gone.avi").symlink_to("nowhere.avi")
    fetched(root)
    with pytest.raises(DataError) as raised:
        prepared(tmp / "raw", tolerated_rejects=0.1)
    assert "2 of 18 videos are rejected, more than tolerated_rejects: 0.1 allows:" in str(
        raised.value
    )
    assert "\n  Run/gone.avi: unreadable: a broken link\n  Run/page.avi: unread" in str(
        raised.value
    )


@case("classes without a test clip")
def _(tmp: Path, log: Log) -> None:
    root = own_videos(tmp)
    (tmp / "list.txt").write_text("Run/Run1.gif\n")
    fetched(root, test=tmp / "list.txt")
    prepared(tmp / "raw", validation=0.5)
    assert "The test split has no clips of these classes: 'Swim'" in log.messages


@case("a `group` that matches no file name, a split without clips")
def _(tmp: Path, log: Log) -> None:
    fetched(own_videos(tmp))
    with pytest.raises(DataError, match="matches no file name, such as Run0; correct it, or set"):
        prepared(tmp / "raw", group=r"(.+_g\d+)_c\d+")
    (tmp / "data").rename(tmp / "before")
    with pytest.raises(DataError, match=r"no clips: 16 videos of 2 recordings give .* 0 rejected"):
        prepared(tmp / "raw", group=r"(.+)\d")


OWN = [
    *("Run/v_Run_g01_c01.mp4", "Run/v_Run_g02_c01.mp4", "Run/clip 0", "Run/clip 1", "Run/clip"),
    *("Swim/v_Swim_g01_c01.mp4", "Swim/été.mp4"),
]


def listed(tmp: Path, content: str | bytes, name: str = "list.txt") -> set[str]:
    return read(tmp, content, name).test


def read(tmp: Path, content: str | bytes, name: str = "list.txt") -> SplitList:
    (tmp / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_split_list(str(tmp / name), OWN)


@case("UCF101's lists, with class numbers, CRLF, `\\`, folders in front, other or no endings")
def _(tmp: Path, log: Log) -> None:
    first, second = OWN[0], OWN[5]
    for line in (
        *("Run/v_Run_g01_c01.mp4", "Run/v_Run_g01_c01.mp4 1", "  Run/v_Run_g01_c01.mp4  "),
        *("Run\\v_Run_g01_c01.mp4", "./Run/v_Run_g01_c01.mp4", "UCF-101/Run/v_Run_g01_c01.avi 7"),
        *("Run/v_Run_g01_c01.avi", "Run/v_Run_g01_c01", "/data/UCF-101/Run/v_Run_g01_c01.mp4"),
    ):
        assert listed(tmp, line) == {first}, line
    text = "Run/v_Run_g01_c01.mp4 1\r\n\r\nSwim/v_Swim_g01_c01.mp4 2\r\n"
    for content in (text, text.encode("utf-8-sig"), text.encode("utf-16")):
        assert listed(tmp, content) == {first, second}
    # A name that ends in a number is itself, before a number is taken for that of the class.
    assert listed(tmp, "Run/clip 0\nRun/clip 1") == {"Run/clip 0", "Run/clip 1"}
    assert listed(tmp, "Run/clip 2") == {"Run/clip"}
    assert listed(tmp, "Swim/e\u0301te\u0301.mp4") == {OWN[6]}  # as macOS writes it


@case("HMDB51's lists, one for each class")
def _(tmp: Path, log: Log) -> None:
    text = "v_Run_g01_c01.avi 1 \nv_Run_g02_c01.avi 2 \nclip 0\nclip 1 0\n"
    found = read(tmp, text, "Run_test_split1.txt")
    assert found == SplitList({"Run/v_Run_g02_c01.mp4", "Run/clip 0"}, {"Run/clip 1"})
    lists = tmp / "split1"
    lists.mkdir()
    (tmp / "Run_test_split1.txt").rename(lists / "Run_test_split1.txt")
    (lists / "Swim_test_split1.txt").write_text("v_Swim_g01_c01.avi 2 \n")
    found = read_split_list(str(lists), OWN)
    assert found.test == {"Run/v_Run_g02_c01.mp4", "Run/clip 0", "Swim/v_Swim_g01_c01.mp4"}
    (lists / "Swim_test_split2.txt").write_text("été.avi 2 \n")
    with pytest.raises(SourceError, match="found the lists of the splits 1, 2; copy those of one"):
        read_split_list(str(lists), OWN)
    root = own_videos(tmp, 3)
    (tmp / "Run_test_split1.txt").write_text("Run0.avi 1\nRun1.avi 2\nRun2.avi 0\n")
    manifest = fetched(root, test=tmp / "Run_test_split1.txt")
    assert paths(manifest, "test") == ["Run/Run1.gif"]
    assert "Run/Run2.gif" not in paths(manifest)
    assert manifest["skipped"] == {"unused in the list of test videos": 1}


@case("a list that is missing, empty, a folder, no UTF-8, or names other videos")
def _(tmp: Path, log: Log) -> None:
    contents: dict[str | bytes, str] = {
        "Run/gone.avi 3\nRun/clip\n": r"lists Run/gone.avi 3 \(line 1\), .*; 1 of 2 lines are not ",
        "gone 1\n": r"lists gone 1 \(line 1\), which is not in `path`, or not once",
        "\n\n": "lists no test video; set `test: null`",
        "clip 7\n": "line 1: found 7 behind a name without a class; expected HMDB51's 1",
        "Run/v_Run_g01_c01 1\nRun/v_Run_g02_c01 2\n": (
            "line 2: found the numbers 1 and 2 behind videos of Run; expected the number of the cla"
        ),
        "Run/clip\nSwim/été.mp4\n".encode("latin-1"): "line 2: not UTF-8; save the list as UTF-8",
        "Run/clip\n".encode("utf-16-le"): "line 1: not UTF-8",
    }
    for content, message in contents.items():
        with pytest.raises(SourceError, match=message):
            listed(tmp, content)
    for name, message in {"no.txt": "no such file", ".": "found no lists of HMDB51"}.items():
        with pytest.raises(SourceError, match=message):
            read_split_list(str(tmp / name), OWN)


def decode(text: str) -> bytes:
    return serving._content("video 0", serving.Input.model_validate({"video": text}))


@case("requests: data URLs, line breaks, the alphabet of URLs, no padding")
def _(tmp: Path, log: Log) -> None:
    content = bytes(range(256)) * 3 + b"\xfb\xff"
    plain = base64.b64encode(content).decode()
    lines = base64.encodebytes(content).decode()
    assert "=" in plain
    assert "+" in plain
    for text in (
        *(plain, f"\ufeff{plain}\n", lines, lines.replace("\n", "\r\n"), plain.rstrip("=")),
        *(base64.urlsafe_b64encode(content).decode(), f"data:video/mp4;base64,{plain}"),
        *(
            f"data:video/webm;codecs=vp8;base64,{lines}",
            f"DATA:;base64,{plain.replace('+', '%2B')}",
        ),
    ):
        assert decode(text) == content, text[:40]


@case("requests: URLs, file names, other texts, more than 64 MB")
def _(tmp: Path, log: Log) -> None:
    for text, message in {
        "https://example.org/film.mp4": "`video` is a URL; expected the content of the file in bas",
        "films/my film.mp4": "`video` is the name of a file; expected the content",
        "data:video/mp4,AAAA": "`video` is a data URL without base64; expected `data:video/mp4;bas",
        "AAA*": "`video` is not base64: found '*' at character 3",
        "é": "`video` is not base64: found 'é' at character 0",
        "A": "`video` is not base64: ",
    }.items():
        with pytest.raises(RequestError, match=re.escape(message)):
            decode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "MAX_BYTES", 3000)
        for text in ("A" * 4100, "*" * 5600):
            with pytest.raises(RequestError, match="video 0: more than"):
                decode(text)


def rows() -> list[str]:
    """The first column of the table of the section Videos."""
    section = DOCS.read_text(encoding="utf-8").split("\n## Videos\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (.*?) \| ", section, re.MULTILINE)
    assert cells[0] == "Input"
    return [cell for cell in cells[1:] if not set(cell) <= set("-")]


def test_the_rows_of_the_table_are_the_cases() -> None:
    assert rows() == list(CASES)


def test_the_page_names_every_ending() -> None:
    section = DOCS.read_text(encoding="utf-8").split("\n## Videos\n")[1]
    assert set(re.findall(r"`(\.\w+)`", section.split("FFmpeg decodes")[0])) == VIDEO_SUFFIXES


@pytest.mark.parametrize("row", CASES)
def test_the_outcome_of(row: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    CASES[row](tmp_path, caplog)
