"""Read the raw manifest of video, which `ostinato.video.sources` writes."""

from dataclasses import dataclass
from pathlib import Path

from ostinato import store
from ostinato.errors import DataError


@dataclass(frozen=True)
class RawVideo:
    """A raw video.

    Args:
        path: relative to the folder of raw data, of a file or of a folder of numbered images.
        label: the name of its class.
        key: its unique name.
        group: the recording that it belongs to, if the source knows it.
        split: of the source, if it has splits.
    """

    path: str
    label: str
    key: str
    group: str | None
    split: str | None


@dataclass(frozen=True)
class RawReject:
    """What a source found in place of a video.

    Args:
        path: where, such as a file, or the line of a file.
        reason: one of the reject reasons of `ostinato.video.formats.reading`.
        found: what is wrong with it.
    """

    path: str
    reason: str
    found: str


@dataclass(frozen=True)
class RawManifest:
    """The content of a folder of raw data.

    Args:
        source: the function that fetched it.
        classes: names, sorted.
        videos: in the order of the source.
        rejects: what the source could not use.
    """

    source: str
    classes: list[str]
    videos: list[RawVideo]
    rejects: list[RawReject]


def read_manifest(folder: Path) -> RawManifest:
    """Read manifest.json of a folder of raw data.

    Raises:
        DataError: the file is missing, or an entry lacks a field.
    """
    path = folder / "manifest.json"
    try:
        content = store.read_json(path)
        videos = [
            RawVideo(v["path"], v["class"], v["key"], v.get("group"), v.get("split"))
            for v in content["videos"]
        ]
        rejects = [RawReject(**reject) for reject in content.get("rejects", [])]
        return RawManifest(content["source"], content["classes"], videos, rejects)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `dvc repro` to fetch the data") from None
    except KeyError as error:
        raise DataError(f"{path}: an entry has no field {error}; fetch the data again") from None
