"""The raw manifest of video, which every source writes: manifest.json.

It lists the classes and, for each video, path (of a file or of a folder of numbered images),
class, key, group (its recording, or null if it must be derived from the file's name), split
(or null), size in bytes and SHA-256; and what the source rejected, if anything.
`ostinato.video.formats.raw` reads it. It holds no timestamps: the same input gives the same bytes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import file_digest, sha256
from pathlib import Path

from ostinato import store
from ostinato.errors import SourceError
from ostinato.task import Json
from ostinato.video.formats.images import images_in
from ostinato.video.formats.raw import RawReject

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class FetchedVideo:
    """The entry of a video in the manifest.

    Args:
        path: relative to the folder of the source.
        label: the name of its class.
        key: its unique name.
        group: the recording that it belongs to, if the source knows it.
        split: of the source, if it has splits.
        bytes: size of the file, or of all images together.
        sha256: of the file, or of all images in the order of their names.
    """

    path: str
    label: str
    key: str
    group: str | None
    split: str | None
    bytes: int
    sha256: str

    def to_json(self) -> dict[str, Json]:
        """The entry; the label has the key "class"."""
        return {"class" if name == "label" else name: x for name, x in asdict(self).items()}


def describe_video(
    folder: Path,
    path: Path,
    label: str,
    *,
    key: str | None = None,
    group: str | None = None,
    split: str | None = None,
) -> FetchedVideo:
    """The manifest's entry of a video.

    Args:
        folder: of the source.
        path: relative to the folder.
        label: the name of its class.
        key: None for the path.
        group: its recording, if known.
        split: of the source, if it has splits.
    """
    file, size, checksum = folder / path, 0, sha256()
    for part in images_in(file) if file.is_dir() else [file]:
        size += part.stat().st_size
        with part.open("rb") as opened:
            file_digest(opened, lambda: checksum)
    name = path.as_posix()
    return FetchedVideo(
        name, label, name if key is None else key, group, split, size, checksum.hexdigest()
    )


def write_manifest(
    folder: Path,
    source: str,
    licence: str | None,
    videos: Iterable[FetchedVideo],
    details: Mapping[str, Json] | None = None,
    rejects: Sequence[RawReject] = (),
) -> None:
    """Write manifest.json.

    Args:
        folder: of the source.
        source: the name of its function.
        licence: of the videos; None for the user's own.
        videos: in the order in which they were fetched.
        details: further entries, such as the name of a data set.
        rejects: what cannot be a video; `prepare` tolerates a share of them.

    Raises:
        SourceError: no videos, or several with the same key.
    """
    videos, further = list(videos), dict(details or {})
    if not videos:
        raise SourceError(f"{further.get('dataset', source)}: found no videos")
    counts = Counter(video.key for video in videos)
    if duplicates := [key for key, count in counts.items() if count > 1]:
        raise SourceError(
            f"{source}: {len(duplicates)} keys are those of several videos, such as "
            f"{', '.join(duplicates[:3])}; give each a key of its own, also in different classes "
            "and files"
        )
    manifest = {
        "source": source,
        "licence": licence,
        **further,
        "classes": sorted({video.label for video in videos}),
        "videos": [video.to_json() for video in videos],
        **({"rejects": [asdict(reject) for reject in rejects]} if rejects else {}),
    }
    store.write_json(folder / "manifest.json", manifest)
