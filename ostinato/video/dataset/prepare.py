"""Raw videos to a prepared data set of clips: decoded, checked, split, in TFRecord shards."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ostinato import store
from ostinato.data import tfrecords
from ostinato.errors import DataError, RejectedVideoError
from ostinato.progress import track
from ostinato.task import Manifest
from ostinato.units import Count, Fraction, SplitFraction
from ostinato.video.dataset.loader import DATASET_NAME, Augment, shard_name
from ostinato.video.dataset.profile import SAMPLE_SIZE, features, profile
from ostinato.video.dataset.splits import SPLITS, AssignedVideo, assign_splits, video_rng
from ostinato.video.formats.raw import RawManifest, RawReject, read_manifest
from ostinato.video.formats.reading import (
    REJECT_REASONS,
    Clip,
    Colour,
    FrameRate,
    Frames,
    FrameSampling,
    Pixels,
    Sampling,
    read,
)

LOG = logging.getLogger(__name__)

MAX_PENDING = 16  # videos that are decoded ahead of the writer

Decoded = tuple[AssignedVideo, list[Clip] | RejectedVideoError]
"""A video with its clips, or with the reason why it has none."""


def prepare(
    raw: Path,
    folder: Path,
    *,
    tolerated_rejects: Fraction,
    validation: SplitFraction,
    test: SplitFraction,
    group: str | None,
    frames: Frames,
    frame_rate: FrameRate | None,
    frame_sampling: FrameSampling,
    clips: Count,
    height: Pixels,
    width: Pixels,
    colour: Colour,
    max_pixels: Count,
    augment: Augment,
    shard_size: Count,
    workers: Count,
) -> None:
    """Decode videos into clips and write them as a tensorflow-datasets data set.

    Videos that cannot be used are listed with the reason in ``rejects.ndjson``. The split of a
    video is that of the source if it has one, else a hash of its recording, so all clips of a
    recording are in one split and stay there when the data set grows.

    Args:
        raw: a folder that a source wrote.
        folder: an empty folder; receives the data set, ``manifest.json``, ``profile.json`` and
            ``rejects.ndjson``.
        tolerated_rejects: maximum fraction of rejected videos.
        validation: fraction of the recordings (of the training recordings, if the source has a
            test split).
        test: fraction of the recordings; ignored if the source has a test split.
        group: regular expression whose only group matches the recording in a file's stem, for
            UCF101 ``(.+_g\\d+)_c\\d+``. A video that does not match is a recording of its own, as
            is every video if this is null.
        frames: maximum number of frames of a clip.
        frame_rate: frames per second that videos are resampled to; null keeps their own frames.
        frame_sampling: "uniform", "random" or "centred", see `reading.Sampling`.
        clips: number of clips of a video.
        height: of a frame, in pixels.
        width: of a frame, in pixels.
        colour: "grey" or "rgb".
        max_pixels: maximum number of pixels of a raw frame.
        augment: augmentation of the training clips, applied when they are read.
        shard_size: approximate number of clips in a file.
        workers: number of decoding threads.

    Raises:
        DataError: too many videos are rejected, a class has no clips, a split is empty, or a
            recording is in two splits.
    """
    if validation + test >= 1:
        raise DataError(
            f"validation {validation} and test {test} leave nothing for training; their sum must "
            "be less than 1"
        )
    source = read_manifest(raw)
    videos = assign_splits(source.videos, group, validation, test)
    sampling = Sampling(
        frames, frame_rate, frame_sampling, clips, height, width, colour, max_pixels
    )
    shards = max(1, round(len(videos) * clips / shard_size))
    with ThreadPoolExecutor(workers) as threads:
        decoded: Iterable[Decoded] = _decode_ahead(threads, raw, videos, sampling)
        decoded = track(decoded, "decoding", unit="videos", total=len(videos))
        written = _write_shards(folder, source, iter(decoded), shards)
    total, rejected = len(videos) + len(source.rejects), written.rejects.total()
    if rejected > tolerated_rejects * total:
        raise DataError(
            f"{rejected} of {total} videos are rejected, more than "
            f"tolerated_rejects: {tolerated_rejects} allows:\n  " + "\n  ".join(written.messages)
        )
    splits = {name: content for name, content in written.splits.items() if content.clips}
    if missing := [name for name in SPLITS if name not in splits]:
        counts = ", ".join(f"{x.videos} {name}" for name, x in written.splits.items())
        groups = len({video.group for video in videos})
        raise DataError(
            f"{raw}: the split {missing[0]} has no clips: {len(videos)} videos of {groups} "
            f"recordings give {counts}, {written.rejects.total()} rejected. Fetch more recordings, "
            f"raise the fraction `{missing[0]}`, or change `group` or the list of test videos"
        )
    present = {name for content in splits.values() for name, n in content.classes.items() if n}
    if empty := [name for name in source.classes if name not in present]:
        raise DataError(f"{raw}: these classes have no clips: {', '.join(map(repr, empty))}")
    manifest = Manifest(
        source=source.source,
        examples="clips",
        splits={
            name: {"clips": content.clips, "videos": content.videos, "groups": len(content.groups)}
            for name, content in splits.items()
        },
        classes=source.classes,
        details={
            "sampling": sampling._asdict(),
            "augment": dict(augment),
            "shards": shards,
            "videos": len(videos),
            "rejects": {reason: written.rejects[reason] for reason in REJECT_REASONS},
            "groups": len({video.group for video in videos}),
            "class_counts": {name: content.classes for name, content in splits.items()},
        },
    )
    _write_tfds_metadata(folder, manifest, sampling, splits)
    training = profile(splits["train"].classes, written.sample)
    store.write_json(folder / "profile.json", training.to_json())
    store.write_json(folder / "manifest.json", manifest.to_json())
    _log_summary(written, total)


@dataclass
class SplitContent:
    """The written part of a split.

    Args:
        classes: number of clips by class.
        clips: number of clips.
        videos: number of videos.
        groups: the recordings.
        bytes: size of the records.
        shard_lengths: number of clips in each shard.
    """

    classes: dict[str, int]
    clips: int = 0
    videos: int = 0
    groups: set[str] = field(default_factory=set)
    bytes: int = 0
    shard_lengths: list[int] = field(default_factory=list)


@dataclass
class Written:
    """The written data set.

    Args:
        splits: by name.
        rejects: number of rejected videos by reason.
        messages: on the first rejected videos.
        sample: features of the first training clips.
    """

    splits: dict[str, SplitContent]
    rejects: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)
    sample: list[list[float]] = field(default_factory=list)

    def reject(self, reject: RawReject) -> bytes:
        """Count a rejected video, and return its line of rejects.ndjson."""
        self.rejects[reject.reason] += 1
        if len(self.messages) < 3:
            self.messages.append(f"{reject.path}: {reject.reason}: {reject.found}")
        return orjson.dumps(asdict(reject), option=orjson.OPT_APPEND_NEWLINE)


def _log_summary(written: Written, total: int) -> None:
    """Say how many videos were read and rejected, and which classes have no test clip."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in written.rejects.most_common())
    rejected = f"; {reasons}: see rejects.ndjson" if reasons else ""
    read = total - written.rejects.total()
    LOG.info("%d of %d videos are read%s", read, total, rejected)
    for split in ("validation", "test"):
        if absent := [name for name, n in written.splits[split].classes.items() if not n]:
            names = ", ".join(map(repr, absent[:5])) + (", ..." if len(absent) > 5 else "")
            LOG.warning("The %s split has no clips of these classes: %s", split, names)


def _decode_ahead(
    threads: ThreadPoolExecutor, raw: Path, videos: Sequence[AssignedVideo], sampling: Sampling
) -> Iterator[Decoded]:
    """Decode videos in order, at most MAX_PENDING ahead of the consumer."""

    def decode(video: AssignedVideo) -> list[Clip] | RejectedVideoError:
        try:
            return read(raw / video.path, sampling, video_rng(video.key))
        except RejectedVideoError as reason:
            return reason

    remaining = iter(videos)
    pending = [(video, threads.submit(decode, video)) for video in islice(remaining, MAX_PENDING)]
    while pending:
        video, future = pending.pop(0)
        yield video, future.result()
        pending += [(after, threads.submit(decode, after)) for after in islice(remaining, 1)]


def _write_shards(
    folder: Path, source: RawManifest, decoded: Iterator[Decoded], shards: int
) -> Written:
    """Write clips into TFRecord shards and rejected videos into rejects.ndjson.

    Args:
        folder: of the data set.
        source: the raw manifest.
        decoded: all videos.
        shards: number of shards of each split.
    """
    import tensorflow as tf

    labels = {name: label for label, name in enumerate(source.classes)}
    count = len(source.videos)
    written = Written({split: SplitContent(dict.fromkeys(labels, 0)) for split in SPLITS})
    with (folder / "rejects.ndjson").open("wb") as rejects:
        for reject in source.rejects:
            rejects.write(written.reject(reject))
        for shard in range(shards):
            with ExitStack() as stack:
                writers = {
                    split: stack.enter_context(
                        tf.io.TFRecordWriter(str(folder / shard_name(split, shard, shards)))
                    )
                    for split in SPLITS
                }
                sizes: dict[str, list[int]] = {split: [] for split in SPLITS}
                size = count * (shard + 1) // shards - count * shard // shards
                for video, clips in islice(decoded, size):
                    if isinstance(clips, RejectedVideoError):
                        reject = RawReject(video.path, clips.reason, clips.detail)
                        rejects.write(written.reject(reject))
                        continue
                    content = written.splits[video.split]
                    content.videos += 1
                    content.groups.add(video.group)
                    content.classes[video.label] += len(clips)
                    for number, clip in enumerate(clips):
                        key = video.key if len(clips) == 1 else f"{video.key}#{number}"
                        record = _serialise(clip, labels[video.label], key, video.key)
                        writers[video.split].write(record)
                        sizes[video.split].append(len(record))
                        content.clips += 1
                        content.bytes += len(record)
                        if video.split == "train" and len(written.sample) < SAMPLE_SIZE:
                            written.sample.append(features(clip.pixels, clip.seconds))
            for split, content in written.splits.items():
                content.shard_lengths.append(len(sizes[split]))
                no_lengths = np.empty((len(sizes[split]), 0), np.int64)  # all are padded alike
                file = folder / shard_name(split, shard, shards)
                tfrecords.write_index(file, sizes[split], no_lengths)
    return written


def _serialise(clip: Clip, label: int, key: str, video: str) -> bytes:
    """A clip as a serialised tf.train.Example."""
    import tensorflow as tf

    def feature(content: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))

    values = {
        "clip": feature(clip.pixels.tobytes()),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "key": feature(key.encode()),
        "video": feature(video.encode()),
    }
    example = tf.train.Example(features=tf.train.Features(feature=values))
    serialised: bytes = example.SerializeToString(deterministic=True)
    return serialised


def _write_tfds_metadata(
    folder: Path, manifest: Manifest, sampling: Sampling, splits: dict[str, SplitContent]
) -> None:
    """Write the metadata with which tensorflow-datasets reads the folder."""
    import tensorflow_datasets as tfds

    shape = (None, sampling.height, sampling.width, sampling.channels)
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=DATASET_NAME, filetype_suffix="tfrecord"
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features={
            "clip": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes"),
            "label": tfds.features.ClassLabel(names=manifest.classes),
            "key": tfds.features.Text(),
            "video": tfds.features.Text(),
        },
        split_infos=[
            tfds.core.SplitInfo(
                name=name,
                shard_lengths=content.shard_lengths,
                num_bytes=content.bytes,
                filename_template=template.replace(split=name),
            )
            for name, content in splits.items()
        ],
        filename_template=template,
        check_data=False,
        description=f"Clips of up to {sampling.frames} frames.",
        supervised_keys=("clip", "label"),
        metadata=tfds.core.MetadataDict(manifest.to_json()),
    )
