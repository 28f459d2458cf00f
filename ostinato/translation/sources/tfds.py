"""Translation data sets of tensorflow-datasets."""

import re
import sys
from pathlib import Path

from ostinato.data.files import expanded
from ostinato.errors import SourceError
from ostinato.params import near
from ostinato.translation.sources import common
from ostinato.units import Languages

SPLITS = ("train", "validation", "test")


def tfds(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    languages: Languages,
    dataset: str,
    data_dir: str | None,
) -> None:
    """Export a translation data set of tensorflow-datasets, e.g. ``ted_hrlr_translate/pt_to_en``.

    A line break in a text becomes a space.

    Args:
        folder: for two line-aligned files of each split, and the manifest.
        scratch: where TFDS prepares the data set if ``data_dir`` is null.
        seed: not used.
        languages: source and target, in any order.
        dataset: name and config of the builder.
        data_dir: TFDS's data folder, or null.

    Raises:
        SourceError: no such builder, a missing language, or a failed download.
    """
    import tensorflow_datasets

    if not sys.stderr.isatty():
        tensorflow_datasets.disable_progress_bar()
    try:
        builder = tensorflow_datasets.builder(
            dataset,
            data_dir=expanded(data_dir) if data_dir else scratch / "tfds",
            try_gcs=False,
        )
    except (tensorflow_datasets.core.registered.DatasetNotFoundError, ValueError) as error:
        raise SourceError(f"dataset: {dataset}: {str(error).splitlines()[0]}") from None
    known = set(builder.info.features)
    if missing := [language for language in languages if language not in known]:
        raise SourceError(f"languages: {dataset} has no {missing[0]!r}; {near(missing[0], known)}")
    try:
        builder.download_and_prepare(
            download_config=tensorflow_datasets.download.DownloadConfig(try_download_gcs=False)
        )
    except Exception as error:  # of any library that the builder uses
        raise SourceError(
            f"{dataset}: cannot be prepared: {error}. {common.OFFLINE_HINT}"
        ) from error
    order = tensorflow_datasets.ReadConfig(interleave_cycle_length=1)  # the stored order
    entries = []
    for split in builder.info.splits:
        stream = tensorflow_datasets.as_numpy(builder.as_dataset(split, read_config=order))
        paths = [folder / f"{split}.{language}" for language in languages]
        with paths[0].open("wb") as first, paths[1].open("wb") as second:
            for example in stream:
                for file, language in ((first, languages[0]), (second, languages[1])):
                    file.write(re.sub(rb"[\r\n]+", b" ", example[language]) + b"\n")
        for path, language in zip(paths, languages, strict=True):
            file_split = split if split in SPLITS else None
            entries.append(common.entry(folder, path.name, file_split, dataset, language=language))
    common.write_manifest(folder, "tfds", "moses", languages, entries)
