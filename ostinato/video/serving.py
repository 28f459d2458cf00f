"""Recognises what a video shows: a file in, labels with probabilities out.

A video is a file's bytes in base64, or its path on the serving machine. Frames are chosen, scaled
and coloured as those of the training data were. Of a video that is cut into several clips, the
answer is their mean, unless one of them is asked for.
"""

import base64
import binascii
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from ostinato import params, store
from ostinato.errors import RejectedVideoError, RequestError
from ostinato.evaluation import classification
from ostinato.video import dataset
from ostinato.video.dataset.reading import Clip, Sampling, read
from ostinato.video.evaluation import compiled

Array = NDArray[Any]

BATCH = 64  # clips recognised at once
LARGEST = 1 << 26  # bytes of a file
FOLDER = "OSTINATO_VIDEOS"  # environment: the folder that paths lead into; unset, none is read

PACKAGES = ("av",)

# One white pixel, as a GIF.
EXAMPLE = {"video": "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICTAEAOw=="}

LIMITS = f"""\
- It knows its classes and no other: whatever is filmed, it answers one of them.
- Sound is not heard.
- Files of more than {LARGEST >> 20} MB, and pictures larger than training allowed, are refused.
- Paths are read only below the folder that the server's environment names as `{FOLDER}`.
"""


class Video(BaseModel):
    """A video to be recognised: its bytes, or a path."""

    video: str | None = Field(None, description="a file's bytes, in base64")
    path: str | None = Field(None, description=f"of a file below the server's {FOLDER}")
    clip: int | None = Field(None, description="which of its clips, from 0 on; all, if null")
    key: str | None = Field(None, description="decides, where frames are chosen by chance")


class Answer(BaseModel):
    """What a video shows, and how sure that is."""

    label: str
    probability: float
    probabilities: dict[str, float]  # of the likeliest first


Input = Video


def load(folder: Path) -> Callable[[Sequence[Video], int], list[Answer]]:
    """The model whose files are in ``folder``, ready to answer videos.

    Returns:
        A function of videos, and of how many of the likeliest classes are told (0: all).
    """
    about, data = store.read_json(folder / "about.json"), dataset.load(folder)
    params.model_module(about["domain"], about["model"])  # registers the model's layers
    call = compiled(store.read_model(folder / "model.keras"))
    names = np.array(data.classes)

    def answer(videos: Sequence[Video], best: int) -> list[Answer]:
        told = []
        for number, video in enumerate(videos):
            clips = [clip.pixels for clip in _clips(f"video {number}", video, data.sampling)]
            parts = [clips[at : at + BATCH] for at in range(0, len(clips), BATCH)]
            p = np.concatenate([call(data.pad(part))[0] for part in parts]).mean(axis=0)
            first = np.argsort(-p, kind="stable")[: best or None]
            known = dict(zip(names[first].tolist(), p[first].tolist(), strict=True))
            label = next(iter(known))
            told.append(Answer(label=label, probability=known[label], probabilities=known))
        return told

    # Compiles all that a first question would wait for.
    answer([Video.model_validate(EXAMPLE)], 1)
    return answer


def _clips(name: str, video: Video, sampling: Sampling) -> list[Clip]:
    """A video's clips, by the very steps that prepared the training data."""
    content = _content(name, video)
    key = content if video.key is None else video.key.encode()
    # As `prepare` draws them.
    chance = np.random.default_rng(list(blake2b(key, digest_size=8).digest()))
    try:
        clips = read(content, sampling, chance)
    except RejectedVideoError as reason:
        raise RequestError(f"{name}: {reason}") from None
    if video.clip is None:
        return clips
    if not 0 <= video.clip < len(clips):
        raise RequestError(f"{name}: clip {video.clip} is not one of its {len(clips)}, from 0 on")
    return [clips[video.clip]]


def _content(name: str, video: Video) -> bytes:
    """A video's bytes."""
    if (video.video is None) == (video.path is None):
        raise RequestError(f"{name}: expected either `video` or `path`")
    too_large = f"{name}: more than {LARGEST >> 20} MB"
    if video.video is not None:
        if len(video.video) > LARGEST * 4 // 3 + 4:
            raise RequestError(too_large)
        try:
            return base64.b64decode(video.video, validate=True)
        except binascii.Error as error:
            raise RequestError(f"{name}: `video` is not base64: {error}") from None
    root = os.environ.get(FOLDER)
    if not root:
        raise RequestError(f"{name}: paths are not served here; send `video`, or set {FOLDER}")
    # Links are followed before the path is judged. What lies elsewhere and what is not there are
    # told apart for nobody.
    path = Path(root, str(video.path)).resolve()
    if not path.is_relative_to(Path(root).resolve()) or not path.is_file():
        raise RequestError(f"{name}: no file {video.path!r} in the folder of videos")
    if path.stat().st_size > LARGEST:
        raise RequestError(too_large)
    return path.read_bytes()


def questions(raw: Path, prepared: Path, keys: Collection[str]) -> dict[str, dict[str, Any]]:
    """Clips of the test split as somebody would ask them, by key: the raw file, and which clip.

    Folders of numbered images are left out: they are no file.
    """
    wanted: dict[str, list[tuple[str, int | None]]] = {}
    for key in keys:
        name, _, number = key.rpartition("#")
        wanted.setdefault(key, []).append((key, None))
        if number.isdecimal():
            wanted.setdefault(name, []).append((key, int(number)))
    found: dict[str, dict[str, Any]] = {}
    for video in store.read_json(raw / "manifest.json")["videos"]:
        asked, path = wanted.get(video["key"], []), raw / video["path"]
        if asked and path.is_file():
            content = base64.b64encode(path.read_bytes()).decode()
            for key, clip in asked:
                found[key] = {"video": content, "clip": clip, "key": video["key"]}
    return found


def arrays(
    answers: Sequence[Mapping[str, Any]], truth: Sequence[str], classes: Sequence[str]
) -> dict[str, Array]:
    """Answers as evaluation keeps them: truth, rank, and probabilities (clip, class).

    Args:
        answers: with all probabilities; of classes that need not be ``classes``.
        truth: the true class of each.
        classes: in whose order the probabilities are told; a class that was not known has 0,
            and as the true one the last rank.
    """
    known = sorted(answers[0]["probabilities"])
    place = {name: i for i, name in enumerate(known)}
    # One more column, for what was not known.
    p = np.zeros((len(answers), len(known) + 1))
    p[:, :-1] = [[answer["probabilities"][name] for name in known] for answer in answers]
    told = np.array([place.get(name, len(known)) for name in truth])
    index = {name: i for i, name in enumerate(classes)}
    return {
        "truth": np.array([index[name] for name in truth]),
        "rank": classification.ranks(p, told),
        "probabilities": p[:, [place.get(name, len(known)) for name in classes]],
    }
