"""Read the raw manifest of video, which `ostinato.video.sources` writes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
class RawManifest:
    """The content of a folder of raw data.

    Args:
        source: the function that fetched it.
        classes: names, sorted.
        videos: in the order of the source.
        rejects: examples that the source could not make a video of, with reasons.
    """

    source: str
    classes: list[str]
    videos: list[RawVideo]
    rejects: list[dict[str, Any]] = field(default_factory=list)


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
        return RawManifest(
            content["source"], content["classes"], videos, content.get("rejects", [])
        )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `dvc repro` to fetch the data") from None
    except KeyError as error:
        raise DataError(f"{path}: an entry has no field {error}; fetch the data again") from None
