"""Prepare raw drawings: clean them, split them and write them as a TFDS data set."""

import logging
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import IO

import numpy as np
import orjson

from ostinato import store
from ostinato.errors import DataError
from ostinato.sketches.dataset import keys, parts, raw_files, shards
from ostinato.sketches.dataset.profile import profile
from ostinato.sketches.dataset.protocols import Kind
from ostinato.sketches.dataset.raw_files import COUNTS, PendingChunk, ReadReport
from ostinato.sketches.dataset.shards import SPLITS, Shard, Spill
from ostinato.sketches.dataset.splits import split_of
from ostinato.sketches.formats import records
from ostinato.sketches.formats.raw import RawManifest
from ostinato.sketches.formats.records import Records
from ostinato.task import Manifest
from ostinato.units import Count, Fraction, Points, SplitFraction

LOG = logging.getLogger(__name__)


def prepare(
    raw: Path,
    folder: Path | None,
    scratch: Path | None = None,
    *,
    tolerated_rejects: Fraction,
    validation: SplitFraction,
    test: SplitFraction,
    max_points: Points,
    only_recognised: bool,
    shard_size: Count,
    workers: Count,
) -> None:
    """Write raw drawings as a tensorflow-datasets data set, clean and split.

    Raw drawings are simplified. Drawings without ink and duplicates (identical drawings of a
    class, except the first) are left out and counted. Malformed lines are written to
    ``rejects.ndjson`` with the reasons. A key names one
    drawing. A hash of ``key_id`` determines the split, so a drawing
    stays in its split when the data grow; SketchRNN's files keep their own splits. Feedback is
    never in the test split.

    Args:
        raw: a folder that a source has filled.
        folder: an empty folder; gets the data set, ``manifest.json``, ``profile.json`` and
            ``rejects.ndjson``. None: only make shards in ``scratch``, for a process that prepares
            the same data set there.
        scratch: a folder for parts of the work: what a killed process has finished is not made
            again, and processes share the work. None: a temporary one.
        tolerated_rejects: fraction of the lines that may be malformed.
        validation: fraction of the drawings in the validation split.
        test: fraction of the drawings in the test split.
        max_points: longer drawings are cut to this number of points.
        only_recognised: leave out drawings that Google's game did not recognise.
        shard_size: drawings in a file of the training split, about.
        workers: number of threads.

    Raises:
        DataError: too many malformed lines, a category without drawings, drawings of the same key,
            or an empty split.
    """
    if validation + test >= 1:
        raise DataError(
            f"validation {validation} and test {test} leave nothing to train on; lower them"
        )
    fractions = dict(zip(SPLITS, (1 - validation - test, validation, test), strict=True))
    source = RawManifest.read(raw)
    kind: Kind = "bitmap" if source.format == "tfds" else "strokes"
    chunks = raw_files.chunks(raw, source, max_points=max_points, only_recognised=only_recognised)
    groups = list(_group(chunks))
    with ExitStack() as stack:
        if scratch is None:
            temporary = tempfile.TemporaryDirectory(prefix=".partial.", dir=folder)
            scratch = Path(stack.enter_context(temporary), "parts")
        locks, spilled, made = scratch.with_suffix(".locks"), scratch / "read", scratch / "shards"
        if folder:
            spilled.mkdir(parents=True, exist_ok=True)
            made.mkdir(exist_ok=True)
        reports = [spilled / f"{number:06d}.json" for number in range(len(groups))]

        def read(number: int) -> None:
            _read_part(fractions, groups[number], reports[number])

        parts.complete(reports, read, locks, threads=workers, title="reading", unit="parts")
        rejects = stack.enter_context((folder / "rejects.ndjson").open("wb")) if folder else None
        files, spills = _collect(reports, rejects, tolerated_rejects)
        classes = sorted(set().union(*(spill.classes for spill in spills)))
        _check_classes(source, classes, files)
        kept = sum(counts["kept"] for counts in files.values())
        num_parts = max(1, round(kept * fractions["train"] / shard_size))
        statistics = [shards.statistics_file(made, part) for part in range(num_parts)]
        write = partial(shards.write, made, spills, classes, kind, num_parts)
        parts.complete(statistics, write, locks, threads=workers, title="writing", unit="shards")
        if folder is None:
            return
        written = [shards.Shard.read(file) for file in statistics]
        if source.format == "ndjson":  # the keys of other formats are unique by construction
            key_files = [shards.key_file(made, part) for part in range(num_parts)]
            _check_keys(raw, source, keys.repeated(key_files, kept))
        for file in sorted(made.glob(f"{shards.NAME}-*")):
            store.link(file, folder / file.name)
    manifest = _manifest(source, kind, classes, written, files)
    for split, fraction in fractions.items():
        if fraction > 0 and split not in manifest.splits:
            hint = "fetch more drawings, or raise this fraction"
            if source.format == "npz":
                hint = (
                    f"the .npz files have splits of their own: set {split}: 0.0 if they have none"
                )
            raise DataError(
                f"no drawing falls into {split}: there are {manifest.details['drawings']}, and "
                f"{split} is {fraction:.3g}; {hint}"
            )
    class_counts = manifest.details["class_counts"]
    metadata = {
        "source": source.source,
        "form": source.form,
        "scale": manifest.details["scale"],
        "splits": manifest.splits,
        "class_counts": class_counts,
    }
    shards.write_metadata(folder, kind, classes, written, metadata)
    training = profile(kind, class_counts["train"], [shard.sample for shard in written])
    store.write_json(folder / "profile.json", training.to_json())
    store.write_json(folder / "manifest.json", manifest.to_json())
    _log_summary(manifest)


def _group(chunks: Iterable[PendingChunk]) -> Iterator[list[PendingChunk]]:
    """Neighbouring chunks together, so that many small files do not become as many spills."""
    group: list[PendingChunk] = []
    for chunk in chunks:
        group.append(chunk)
        if sum(pending.size for pending in group) >= raw_files.CHUNK_BYTES:
            yield group
            group = []
    if group:
        yield group


def _read_and_spill(
    fractions: Mapping[str, float], group: Sequence[PendingChunk], path: Path
) -> tuple[list[tuple[str, ReadReport]], Spill]:
    """Read a group of chunks, hash and spill its drawings; return the report of each chunk."""
    reports, found = [], []
    index: dict[str, int] = {}
    for file, _, read, tested in group:
        chunk = read()
        labels_of_names = [index.setdefault(name, len(index)) for name in chunk.names]
        labels = np.array(np.broadcast_to(labels_of_names, len(chunk.ends)), np.int64)
        splits = chunk.splits
        if splits is None:
            splits = split_of(chunk.keys, chunk.key_ends, fractions)
            if not tested:
                splits[splits == SPLITS.index("test")] = SPLITS.index("train")
        seeds = np.array([_class_seed(name) for name in index], np.uint64)[labels]
        digests = records.digests(chunk.content, chunk.ends, seeds)
        found.append(Records(*chunk[:4], labels, splits, digests))
        reports.append((file, chunk.report))
    return reports, shards.spill(shards.join(found), list(index), path)


def _class_seed(name: str) -> int:
    """The seed of the hashes of a class's drawings."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())


def _read_part(fractions: Mapping[str, float], group: Sequence[PendingChunk], file: Path) -> None:
    """Read a group of chunks; write its drawings beside ``file``, and then its report."""
    reports, spilled = _read_and_spill(fractions, group, file.with_suffix(""))
    report = {
        "files": [
            [name, {**vars(each), "rejects": [asdict(reject) for reject in each.rejects]}]
            for name, each in reports
        ],
        "lengths": spilled.lengths,
        "classes": spilled.classes,
    }
    store.write_json(file, report)


def _collect(
    reports: Sequence[Path], rejects: IO[bytes] | None, tolerated_rejects: float
) -> tuple[dict[str, Counter[str]], list[Spill]]:
    """Sum the counts of each file and collect the spills; write ``rejects`` meanwhile."""
    files: dict[str, Counter[str]] = defaultdict(Counter)
    lines_before: Counter[str] = Counter()  # in earlier chunks of the file
    examples: dict[str, list[str]] = defaultdict(list)
    spills = []
    for path in reports:
        part = store.read_json(path)
        spills.append(Spill(path.with_suffix(""), part["lengths"], part["classes"]))
        for file, report in part["files"]:
            for reject in report["rejects"]:
                line = lines_before[file] + reject["line"]
                record = {
                    "file": file,
                    "line": line,
                    "reason": reject["reason"],
                    "text": reject["text"],
                }
                if rejects:
                    rejects.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
                if len(examples[file]) < 3:
                    examples[file].append(f"{file}:{line}: {reject['reason']}")
            lines_before[file] += report["line_feeds"]
            files[file].update(report["counts"])
    total = sum(files.values(), Counter[str]())
    if total["malformed"] > tolerated_rejects * total["lines"]:
        fraction = {file: n["malformed"] / n["lines"] for file, n in files.items() if n["lines"]}
        worst = max(fraction, key=lambda file: fraction[file])
        raise DataError(
            f"{total['malformed']} of {total['lines']} lines are malformed, more than "
            f"tolerated_rejects: {tolerated_rejects} allows; {fraction[worst]:.1%} of {worst}:\n  "
            + "\n  ".join(examples[worst])
        )
    return files, spills


def _check_classes(
    source: RawManifest, classes: Sequence[str], files: Mapping[str, Counter[str]]
) -> None:
    """Refuse a data set in which a category, or all drawings, are missing.

    Raises:
        DataError: says for each category how many lines were left out, and why.
    """
    missing = sorted(set(source.categories) - set(classes))
    lost = {
        name: sum((files[f.path] for f in source.files if f.category == name), Counter[str]())
        for name in missing
    }
    if not classes:
        lost = lost or {"any category": sum(files.values(), Counter[str]())}
    if lost:
        counts = [
            f"{name!r} ({read['lines']} lines: {_left_out(read) or 'the file is empty'})"
            for name, read in lost.items()
        ]
        raise DataError(
            f"no drawing is left of {', '.join(counts)}; leave these categories out, or repair or "
            "fetch drawings of them"
        )


def _check_keys(raw: Path, source: RawManifest, hashes: keys.Hashes) -> None:
    """Refuse drawings that have the same key: splits, results and requests name drawings by it.

    Args:
        raw: the folder of the files.
        source: its manifest.
        hashes: those that several keys have, or several drawings.

    Raises:
        DataError: names the places of the first of them.
    """
    if not len(hashes):
        return
    repeated = {k: at for k, at in raw_files.find_keys(raw, source, hashes).items() if len(at) > 1}
    if repeated:  # else different keys with one hash
        examples = [f"{key!r}: {', '.join(at[:3])}" for key, at in list(repeated.items())[:3]]
        raise DataError(
            f"several drawings have the same key_id ({len(repeated)} are repeated); expected "
            "another for each drawing of all files, such as the file's name and a number:\n  "
            + "\n  ".join(examples)
        )


def _left_out(read: Mapping[str, int]) -> str:
    names = ("malformed", "without_ink", "unrecognised", "duplicates")
    return ", ".join(f"{read[name]} {name.replace('_', ' ')}" for name in names if read.get(name))


def _log_summary(manifest: Manifest) -> None:
    """Say what was left out, and which classes may surprise."""
    details = manifest.details
    counts = f"{details['drawings']} drawings of {details['lines']} lines"
    if left_out := _left_out(details):
        LOG.info("%s; left out: %s (see rejects.ndjson)", counts, left_out)
    for split, by_class in details["class_counts"].items():
        if empty := [name for name, count in by_class.items() if not count]:
            LOG.warning(
                "%s of %s classes have no drawing in %s: %s",
                len(empty), len(by_class), split, ", ".join(empty[:5]) + ", ..." * (len(empty) > 5),
            )  # fmt: skip
    alike: dict[str, list[str]] = defaultdict(list)
    for name in manifest.classes:
        folded = unicodedata.normalize("NFKC", name).casefold()
        alike[" ".join(folded.split())].append(name)
    for names in alike.values():
        if len(names) > 1:
            LOG.warning("classes of nearly the same name: %s", ", ".join(map(repr, names)))


def _manifest(
    source: RawManifest,
    kind: Kind,
    classes: list[str],
    written: Sequence[Shard],
    files: Mapping[str, Counter[str]],
) -> Manifest:
    counts = np.sum([shard.counts for shard in written], axis=0)
    sizes = np.sum([shard.sizes for shard in written], axis=0)
    scale = 1.0
    if kind == "strokes":
        number, total, squares = np.sum([s.moments for s in written], axis=0).tolist()
        scale = (squares / number - (total / number) ** 2) ** 0.5 if number else 1.0
    read = sum(files.values(), Counter[str]())
    row_bytes = shards.ROW_BYTES if kind == "strokes" else 1
    splits = {split: i for i, split in enumerate(SPLITS) if counts[i].sum()}
    return Manifest(
        source=source.source,
        examples="drawings",
        splits={
            split: {"drawings": int(counts[i].sum()), "bytes": int(sizes[i])}
            for split, i in splits.items()
        },
        classes=classes,
        details={
            "format": source.format,
            "form": source.form,
            "kind": kind,
            "scale": scale,
            "shards": len(written),
            **{key: read[key] for key in COUNTS},
            "duplicates": sum(shard.duplicates for shard in written),
            "drawings": int(counts.sum()),
            "longest": max(shard.longest for shard in written) // row_bytes,
            "mean": sum(shard.content for shard in written) / row_bytes / max(1, int(counts.sum())),
            "class_counts": {
                split: dict(zip(classes, counts[i].tolist(), strict=True))
                for split, i in splits.items()
            },
            "files": {file: {key: n[key] for key in COUNTS} for file, n in files.items()},
        },
    )
