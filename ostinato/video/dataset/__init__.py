"""The domain's face: videos to a clean and split data set of clips, and that set for training."""

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from tqdm import tqdm

from ostinato import store
from ostinato.errors import DataError, RejectedVideoError
from ostinato.units import Count, Fraction
from ostinato.video.dataset.batches import NAME, SPLITS, Augment, Data, shard_name
from ostinato.video.dataset.profiles import SAMPLE, features, profile
from ostinato.video.dataset.reading import (
    REASONS,
    Choice,
    Clip,
    Colour,
    Frames,
    PerSecond,
    Pixels,
    Sampling,
    read,
)

load = Data

AHEAD = 16  # videos whose clips wait to be written, at most

Entry = dict[str, Any]


def prepare(
    raw: Path,
    folder: Path,
    *,
    tolerated_rejects: Fraction,
    validation: Fraction,
    test: Fraction,
    group: str | None,
    frames: Frames,
    frame_rate: PerSecond | None,
    frame_sampling: Choice,
    clips: Count,
    height: Pixels,
    width: Pixels,
    colour: Colour,
    max_pixels: Count,
    augment: Augment,
    shard_size: Count,
    workers: Count,
) -> None:
    """Decode videos into clips, as a tensorflow-datasets data set, split by recording.

    Videos that cannot be used are kept out with the reason, in ``rejects.ndjson``. Those that name
    their split keep it; else a hash of the group tells it, so that a recording stays in its split
    when the data grow.

    Args:
        raw: a folder with a manifest, as the sources fill it.
        folder: an empty folder; gets the data set, ``manifest.json``, ``profile.json`` and
            ``rejects.ndjson``.
        tolerated_rejects: share of the videos that may be rejected.
        validation: share of the groups; where training is given, share of its groups.
        test: share of the groups, where no test split is given.
        group: a regular expression whose one group tells from a file's name (without its ending)
            the recording that the video was cut from: ``(.+_g\\d+)_c\\d+`` for UCF101. A video
            whose name does not match, or any where this is null, is a recording of its own.
        frames: as ``Sampling`` tells, like the next seven.
        frame_rate: frames a second, or null.
        frame_sampling: uniform, random or centred.
        clips: of a video.
        height: of a frame.
        width: of a frame.
        colour: grey or rgb.
        max_pixels: pixels of a picture.
        augment: how training clips are varied when they are read.
        shard_size: clips in a file, about.
        workers: threads.

    Raises:
        DataError: too many rejects, a class without clips, an empty split, or a recording that
            stands in two splits.
    """
    if validation + test >= 1:
        raise DataError(f"validation {validation} and test {test} leave nothing to train on")
    about = store.read_json(raw / "manifest.json")
    videos = _split(about["videos"], group, validation, test)
    sampling = Sampling(
        frames, frame_rate, frame_sampling, clips, height, width, colour, max_pixels
    )
    of = max(1, round(len(videos) * clips / shard_size))
    with ThreadPoolExecutor(workers) as threads:
        decoded = _ahead(threads, raw, videos, sampling)
        decoded = iter(tqdm(decoded, "decoding", len(videos), unit="video", disable=None))
        written = _write(folder, about["classes"], decoded, len(videos), of)
    rejects: Counter[str] = written["rejects"]
    if rejects.total() > tolerated_rejects * len(videos):
        raise DataError(
            f"{rejects.total()} of {len(videos)} videos are rejected, more than "
            f"tolerated_rejects: {tolerated_rejects} allows:\n  " + "\n  ".join(written["shown"])
        )
    splits = {split: told for split, told in written["splits"].items() if told["clips"]}
    if missing := [split for split in SPLITS if split not in splits]:
        raise DataError(f"{raw}: no clip falls into {missing[0]}; fetch more, or raise its share")
    present = Counter(name for told in splits.values() for name, n in told["classes"].items() if n)
    if bare := [name for name in about["classes"] if name not in present]:
        raise DataError(f"{raw}: no clip is left of {', '.join(map(repr, bare))}")
    manifest = {
        "source": about["source"],
        "classes": about["classes"],
        "sampling": sampling._asdict(),
        "augment": dict(augment),
        "shards": of,
        "videos": len(videos),
        "rejects": {reason: rejects[reason] for reason in REASONS},
        "groups": len({video["group"] for video in videos}),
        "splits": {
            split: {key: told[key] for key in ("clips", "videos", "groups", "classes")}
            for split, told in splits.items()
        },
    }
    _describe(folder, manifest, splits)
    store.write_json(
        folder / "profile.json", profile(splits["train"]["classes"], written["sample"])
    )
    store.write_json(folder / "manifest.json", manifest)


def place(name: str) -> float:
    """A place for a name, even in 0 to 1, the same everywhere and for ever.

    FNV-1a (Fowler, Noll and Vo 1991), finished as SplitMix64 is (Steele, Lea and Flood 2014): by
    it, a drawing falls into the same split here as in a data set of strokes.
    """
    h, mask = 0xCBF29CE484222325, (1 << 64) - 1
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 & mask
    h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9 & mask
    h = (h ^ h >> 27) * 0x94D049BB133111EB & mask
    return ((h ^ h >> 31) >> 11) * 2.0**-53


def _split(videos: list[Entry], pattern: str | None, validation: float, test: float) -> list[Entry]:
    """The videos with their group and split, in the order of a hash of each."""
    try:
        told = re.compile(pattern or r"(?!)()")
    except re.error as error:
        raise DataError(f"group: {pattern}: not a regular expression: {error}") from None
    if told.groups != 1:
        raise DataError(f"group: {pattern}: expected one group in parentheses")
    given = any(video["split"] == "test" for video in videos)
    found = []
    for video in videos:
        match = told.search(Path(video["path"]).stem)
        group = video["group"] or (match[1] if match else video["key"])
        at, split = place(group), video["split"] or "train"
        if split == "train":
            bounds = (0.0 if given else test, (0.0 if given else test) + validation)
            split = SPLITS[2 - np.searchsorted(bounds, at, side="right")]
        found.append({**video, "group": group, "split": split})
    homes: dict[str, str] = {}
    for video in found:
        if homes.setdefault(video["group"], video["split"]) != video["split"]:
            raise DataError(
                f"{video['path']}: its recording {video['group']!r} stands in {video['split']} and "
                f"in {homes[video['group']]}; mend the lists, or tell `group`"
            )
    return sorted(found, key=lambda video: _digest(video["key"]))


def _digest(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=8).digest()


def _ahead(
    threads: ThreadPoolExecutor, raw: Path, videos: list[Entry], sampling: Sampling
) -> Iterator[tuple[Entry, list[Clip] | RejectedVideoError]]:
    """Each video with its clips, or why it has none, in order; few wait at a time."""

    def decode(video: Entry) -> list[Clip] | RejectedVideoError:
        rng = np.random.default_rng(list(_digest(video["key"])))
        try:
            return read(raw / video["path"], sampling, rng)
        except RejectedVideoError as reason:
            return reason

    left = iter(videos)
    waiting = [(video, threads.submit(decode, video)) for video in islice(left, AHEAD)]
    while waiting:
        video, future = waiting.pop(0)
        yield video, future.result()
        waiting += [(after, threads.submit(decode, after)) for after in islice(left, 1)]


def _write(
    folder: Path,
    classes: list[str],
    decoded: Iterator[tuple[Entry, list[Clip] | RejectedVideoError]],
    count: int,
    of: int,
) -> dict[str, Any]:
    """Write the clips into shards of TFRecord, and the rejects; what each split holds."""
    import tensorflow as tf

    index = {name: label for label, name in enumerate(classes)}
    splits: dict[str, Any] = {
        split: {"clips": 0, "videos": 0, "groups": set(), "bytes": 0, "shards": []}
        | {"classes": dict.fromkeys(classes, 0)}
        for split in SPLITS
    }
    rejects: Counter[str] = Counter()
    shown: list[str] = []
    sample: list[list[float]] = []
    with (folder / "rejects.ndjson").open("wb") as out:
        for part in range(of):
            with ExitStack() as stack:
                writers = {
                    split: stack.enter_context(
                        tf.io.TFRecordWriter(str(folder / shard_name(split, part, of)))
                    )
                    for split in SPLITS
                }
                before = {split: told["clips"] for split, told in splits.items()}
                size = count * (part + 1) // of - count * part // of
                for video, found in islice(decoded, size):
                    if isinstance(found, RejectedVideoError):
                        rejects[found.reason] += 1
                        told = {
                            "path": video["path"],
                            "reason": found.reason,
                            "found": found.detail,
                        }
                        out.write(orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE))
                        shown += [f"{video['path']}: {found}"] if len(shown) < 3 else []
                        continue
                    home = splits[video["split"]]
                    home["videos"] += 1
                    home["groups"].add(video["group"])
                    home["classes"][video["class"]] += len(found)
                    for number, clip in enumerate(found):
                        key = video["key"] if len(found) == 1 else f"{video['key']}#{number}"
                        record = _example(clip, index[video["class"]], key, video["key"])
                        writers[video["split"]].write(record)
                        home["clips"] += 1
                        home["bytes"] += len(record)
                        if video["split"] == "train" and len(sample) < SAMPLE:
                            sample.append(features(*clip))
            for split, told in splits.items():
                told["shards"].append(told["clips"] - before[split])
    for told in splits.values():
        told["groups"] = len(told["groups"])
    return {"splits": splits, "rejects": rejects, "shown": shown, "sample": sample}


def _example(clip: Clip, label: int, key: str, video: str) -> bytes:
    import tensorflow as tf

    def text(content: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))

    features = {
        "clip": text(clip.pixels.tobytes()),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "key": text(key.encode()),
        "video": text(video.encode()),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialised: bytes = example.SerializeToString(deterministic=True)
    return serialised


def _describe(folder: Path, about: dict[str, Any], splits: dict[str, Any]) -> None:
    """Write the metadata by which tensorflow-datasets reads the folder."""
    import tensorflow_datasets as tfds

    sampling = Sampling(**about["sampling"])
    channels = 1 if sampling.colour == "grey" else 3
    shape = (None, sampling.height, sampling.width, channels)
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=NAME, filetype_suffix="tfrecord"
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features={
            "clip": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes"),
            "label": tfds.features.ClassLabel(names=about["classes"]),
            "key": tfds.features.Text(),
            "video": tfds.features.Text(),
        },
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=told["shards"],
                num_bytes=told["bytes"],
                filename_template=template.replace(split=split),
            )
            for split, told in splits.items()
        ],
        filename_template=template,
        check_data=False,
        description=f"Clips of up to {sampling.frames} frames.",
        supervised_keys=("clip", "label"),
        metadata=tfds.core.MetadataDict(about),
    )
