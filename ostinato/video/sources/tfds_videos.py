"""The source ``tfds``: video data sets of tensorflow-datasets."""

import sys
from collections import Counter
from pathlib import Path

from ostinato.errors import SourceError
from ostinato.units import Count
from ostinato.video.sources.encoding import write_video
from ostinato.video.sources.manifest import SPLITS, describe_video, write_manifest

FRAME_RATE = 25  # frames/s of the written files; a data set does not declare its own


def tfds(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    dataset: str,
    data_dir: str | None,
    per_class: Count | None,
) -> None:
    """Fetch a video data set of tensorflow-datasets, such as ``ucf101`` or ``moving_mnist``.

    If the data set has more than one split, its splits are kept. Recordings are unknown, so
    training and validation may share some. Frames are stored without compression; for UCF101 the
    source ``folder`` needs less space and can derive the recordings from the names.

    Args:
        folder: receives the videos, without loss, and the manifest.
        scratch: where TFDS prepares the data set unless ``data_dir`` is given.
        seed: not used.
        dataset: name and configuration of the builder.
        data_dir: the data folder of TFDS, or None.
        per_class: maximum number of videos per class and split, the first ones; None for all.

    Raises:
        SourceError: the builder is unknown or has no video feature, or its download fails.
    """
    import tensorflow_datasets

    if not sys.stderr.isatty():
        tensorflow_datasets.disable_progress_bar()
    try:
        builder = tensorflow_datasets.builder(
            dataset, data_dir=data_dir or scratch / "tfds", try_gcs=False
        )
    except (tensorflow_datasets.core.registered.DatasetNotFoundError, ValueError) as error:
        raise SourceError(f"dataset: {dataset}: {str(error).splitlines()[0]}") from None
    kinds, features = tensorflow_datasets.features, dict(builder.info.features)
    videos = [name for name, feature in features.items() if isinstance(feature, kinds.Video)]
    labels = [name for name, feature in features.items() if isinstance(feature, kinds.ClassLabel)]
    if len(videos) != 1 or len(labels) > 1:
        raise SourceError(
            f"dataset: {dataset}: expected one video and at most one label, found the features "
            f"{', '.join(features)}"
        )
    try:
        builder.download_and_prepare(
            download_config=tensorflow_datasets.download.DownloadConfig(try_download_gcs=False)
        )
    except Exception as error:  # a builder may raise anything: requests, urllib, its own parser
        hint = "Without a network, use the embedded source: `source: animated_sketches`."
        raise SourceError(f"{dataset}: cannot be prepared: {error}. {hint}") from error
    stored_order = tensorflow_datasets.ReadConfig(interleave_cycle_length=1)
    entries = []
    for split in builder.info.splits:
        kept_split = split if split in SPLITS and len(builder.info.splits) > 1 else None
        counts: Counter[str] = Counter()
        examples = builder.as_dataset(split, read_config=stored_order)
        for example in tensorflow_datasets.as_numpy(examples):
            # Without a label feature there is one class, named as the data set.
            label = features[labels[0]].int2str(example[labels[0]]) if labels else builder.name
            if per_class is not None and counts[label] >= per_class:
                continue
            name = f"{split}_{counts[label]:06d}"
            counts[label] += 1
            path = write_video(folder, label, name, example[videos[0]], FRAME_RATE)
            entries.append(describe_video(folder, path, label, split=kept_split))
    write_manifest(folder, "tfds", None, entries, {"dataset": dataset})
