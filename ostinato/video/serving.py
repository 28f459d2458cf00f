"""Classifies videos: a file in, labels with probabilities out.

A video is the content of a file in base64, or the path of a file on the server. Frames are
sampled, scaled and coloured as those of the training data. If the training data have several clips
per video, the response is the mean over the video's clips, unless the request names one of them.

On request a response has the frames that were read, and the activation of each by occlusion: the
frame is replaced with the mean of its clip's frames, and the activation is the loss of probability.
Occlusion needs no more of a model than its predictions, so it is the same for every model.
"""

import base64
import binascii
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float, UInt8
from pydantic import BaseModel, Field

from ostinato import models, store
from ostinato.errors import RejectedVideoError, RequestError
from ostinato.serving import classification
from ostinato.serving.classification import from_responses, read_top_k
from ostinato.task import Json, Serving
from ostinato.video import dataset
from ostinato.video.dataset.splits import video_rng
from ostinato.video.formats.raw import read_manifest
from ostinato.video.formats.reading import Clip, Sampling, read

__all__ = ["SERVING", "Input", "Response", "from_responses", "load", "to_requests"]

BATCH_SIZE = 64  # clips predicted at once
MAX_EXPLAINED = 4  # clips of a video whose frames are returned
MAX_OCCLUSIONS = 32  # predictions of a clip; of a longer one, consecutive frames are hidden at once
MAX_BYTES = 1 << 26  # of a file
MAX_CHARACTERS_PER_BYTE = 1.5  # base64 has 4/3, line breaks of 2 characters included 1.37
MAX_HEADER = 1000  # characters before the base64 of a data URL
Pixels = UInt8[np.ndarray, "_ height width channel"]
"""The frames of a clip."""
VIDEO_FOLDER = "OSTINATO_VIDEOS"
"""Environment variable: the folder that contains all files named by path; unset: no paths."""

EXAMPLE = {"video": "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICTAEAOw=="}
"""One white pixel, as a GIF."""

SERVING = Serving(
    limits=f"""\
- Any video gets one of the model's classes, also a video of something else.
- Sound is ignored.
- Files of more than {MAX_BYTES >> 20} MB, and frames larger than training allowed, are rejected.
- Paths are read only below the folder in the server's environment variable `{VIDEO_FOLDER}`.
""",
    example=EXAMPLE,
    options={"top_k": 0, "explain_clips": 0},
    files=("results/serving.npz",),
    packages=("av",),
)


class Input(BaseModel):
    """A video to be classified: its content, or a path."""

    video: str | None = Field(
        None, description="content of a video file, in base64, also as a data URL"
    )
    path: str | None = Field(None, description=f"of a video file in the server's {VIDEO_FOLDER}")
    clip: int | None = Field(None, description="number of one clip, from 0; null for all")
    key: str | None = Field(None, description="seed of random frame sampling; null: the content")


class ExplainedClip(BaseModel):
    """The frames of a clip as the model reads them, and how much each counts."""

    clip: int = Field(description="its number, from 0")
    seconds: float = Field(description="from the first frame to the last")
    frames: int
    height: int = Field(description="of a frame, in pixels")
    width: int = Field(description="of a frame, in pixels")
    channels: int = Field(description="1 (grey) or 3 (red, green, blue)")
    pixels: str = Field(
        description="base64 of the bytes of all frames, by frame, row, column and channel"
    )
    probability: float = Field(description="of the response's `label` for this clip alone")
    activation: list[float] = Field(
        description="for each frame the probability that is lost if the frame is hidden: replaced "
        f"with the mean of the clip's frames. Of a clip with more than {MAX_OCCLUSIONS} frames, "
        "consecutive frames are hidden at once and have one value"
    )


class Response(classification.Response):
    """The predicted class of a video, with probabilities."""

    clips: list[ExplainedClip] | None = Field(
        None, description="the first `explain_clips` clips; missing unless the option is set"
    )


class VideoService:
    """A loaded model that classifies videos."""

    def __init__(self, folder: Path) -> None:
        about = store.read_json(folder / "about.json")
        self.data = dataset.load(folder)
        self.model = models.load(about["domain"], about["model"]).restore(folder / "model")
        # Compiles the graph, so that the first request does not wait for it.
        self.predict([Input.model_validate(EXAMPLE)], {"top_k": 1})

    def predict(
        self, inputs: Sequence[Input], options: Mapping[str, Json]
    ) -> list[classification.Response]:
        """Classify videos.

        Args:
            inputs: videos.
            options: ``top_k``, the number of ranked predictions to return; 0 returns all.
                ``explain_clips``, the number of clips whose frames are returned with their
                activation; 0 returns none.

        Raises:
            RequestError: an option is out of its bounds, or a video cannot be read; names it by
                its number.
        """
        top_k, explained = read_top_k(options), _read_explained(options)
        responses = []
        for number, video in enumerate(inputs):
            clips = read_clips(f"video {number}", video, self.data.sampling)
            p = self._probabilities([clip.pixels for clip in clips])
            found = classification.response(p.mean(axis=0), self.data.classes, top_k)
            if explained:
                label = self.data.classes.index(found.label)
                first = video.clip or 0
                parts = [
                    self._explain(first + i, clip, p[i], label)
                    for i, clip in enumerate(clips[:explained])
                ]
                found = Response(**found.model_dump(), clips=parts)
            responses.append(found)
        return responses

    def _probabilities(self, clips: Sequence[Pixels]) -> Float[np.ndarray, "clip class"]:
        starts = range(0, len(clips), BATCH_SIZE)
        batches = [clips[start : start + BATCH_SIZE] for start in starts]
        return np.concatenate([self.model(self.data.pad(batch)) for batch in batches])

    def _explain(
        self, number: int, clip: Clip, p: Float[np.ndarray, " class"], label: int
    ) -> ExplainedClip:
        """The frames of a clip, and the probability of a class that is lost without each."""
        pixels = clip.pixels
        frames, height, width, channels = pixels.shape
        mean = pixels.mean(axis=0).round().astype(np.uint8)
        hidden = occlusions(frames)
        variants = []
        for part in hidden:
            variant = pixels.copy()
            variant[part] = mean
            variants.append(variant)
        lost = p[label] - self._probabilities(variants)[:, label]
        activation = [
            round(float(value), 6)
            for part, value in zip(hidden, lost, strict=True)
            for _ in range(part.start, part.stop)
        ]
        return ExplainedClip(
            clip=number,
            seconds=clip.seconds,
            frames=frames,
            height=height,
            width=width,
            channels=channels,
            pixels=base64.b64encode(pixels.tobytes()).decode(),
            probability=float(p[label]),
            activation=activation,
        )


def read_clips(name: str, video: Input, sampling: Sampling) -> list[Clip]:
    """Read the clips of a video with the function that prepared the training data.

    Args:
        name: of the video, for errors.
        video: of a request.
        sampling: of the training data.

    Raises:
        RequestError: the video cannot be read, or there is no such clip.
    """
    content = _content(name, video)
    rng = video_rng(content if video.key is None else video.key)
    try:
        clips = read(content, sampling, rng)
    except RejectedVideoError as reason:
        raise RequestError(f"{name}: {reason}") from None
    if video.clip is None:
        return clips
    if not 0 <= video.clip < len(clips):
        raise RequestError(f"{name}: no clip {video.clip}; it has {len(clips)}, numbered from 0")
    return [clips[video.clip]]


def occlusions(frames: int) -> list[slice]:
    """The frames that are hidden at once: of each clip at most `MAX_OCCLUSIONS` parts."""
    size = -(-frames // MAX_OCCLUSIONS)
    return [slice(start, min(start + size, frames)) for start in range(0, frames, size)]


def _read_explained(options: Mapping[str, Json]) -> int:
    count = options.get("explain_clips", 0)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_EXPLAINED:
        raise RequestError(
            f"explain_clips: found {count!r}; expected a number of clips from 0 to {MAX_EXPLAINED}"
        )
    return count


def load(folder: Path) -> VideoService:
    """Load a registered model."""
    return VideoService(folder)


def _content(name: str, video: Input) -> bytes:
    """The content of a video file."""
    if (video.video is None) == (video.path is None):
        raise RequestError(f"{name}: expected either `video` or `path`")
    too_large = f"{name}: more than {MAX_BYTES >> 20} MB"
    if video.video is not None:
        if len(video.video) > MAX_BYTES * MAX_CHARACTERS_PER_BYTE + MAX_HEADER:
            raise RequestError(too_large)
        content = _decode_base64(name, video.video)
        if len(content) > MAX_BYTES:
            raise RequestError(too_large)
        return content
    root = os.environ.get(VIDEO_FOLDER)
    if not root:
        raise RequestError(
            f"{name}: this server reads no paths; send `video`, or set {VIDEO_FOLDER}"
        )
    # Links are resolved before the path is checked. Missing paths and paths outside the root give
    # the same error, so clients cannot probe the file system.
    missing = f"{name}: no file {str(video.path)[:200]!r} in the folder of videos"
    try:
        path = Path(root, str(video.path)).resolve()
        is_inside = path.is_relative_to(Path(root).resolve()) and path.is_file()
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, or a NUL
        raise RequestError(missing) from None
    if not is_inside:
        raise RequestError(missing)
    if path.stat().st_size > MAX_BYTES:
        raise RequestError(too_large)
    return path.read_bytes()


def _decode_base64(name: str, text: str) -> bytes:
    """Decode base64 as programs write it.

    A data URL, line breaks, the alphabet of URLs, and missing padding are read.
    """
    text = text.lstrip("\ufeff \t\r\n")
    if text[:5].lower() == "data:":
        header, comma, text = text.partition(",")
        if not comma or not header[:MAX_HEADER].lower().endswith(";base64"):
            raise RequestError(
                f"{name}: `video` is a data URL without base64; expected "
                "`data:video/mp4;base64,...`"
            )
        text = unquote(text)
    elif found := re.match(r"([a-z]{2,9}:)//|[^\n]{0,250}\.[a-z0-9]{2,5}\s*$", text[:300], re.I):
        what = "a URL" if found[1] else "the name of a file"
        raise RequestError(
            f"{name}: `video` is {what}; expected the content of the file in base64, or `path`"
        )
    text = "".join(text.split()).rstrip("=")
    if "-" in text or "_" in text:
        text = text.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        wrong = re.search(r"[^A-Za-z0-9+/]", text)
        detail = f"found {wrong[0]!r} at character {wrong.start()}" if wrong else str(error)
        raise RequestError(f"{name}: `video` is not base64: {detail}") from None


def to_requests(raw: Path, prepared: Path, keys: Collection[str]) -> dict[str, dict[str, Json]]:
    """Test clips as requests, by key: the raw file and the number of the clip.

    Folders of numbered images are left out, because a request has a single file.

    Args:
        raw: folder of the raw data.
        prepared: folder of the data set; not used.
        keys: of clips.
    """
    wanted: dict[str, list[tuple[str, int | None]]] = {}
    for key in keys:
        name, _, number = key.rpartition("#")
        wanted.setdefault(key, []).append((key, None))
        if number.isdecimal():
            wanted.setdefault(name, []).append((key, int(number)))
    requests: dict[str, dict[str, Json]] = {}
    for video in read_manifest(raw).videos:
        clips, path = wanted.get(video.key, []), raw / video.path
        if clips and path.is_file():
            content = base64.b64encode(path.read_bytes()).decode()
            for key, clip in clips:
                requests[key] = {"video": content, "clip": clip, "key": video.key}
    return requests
