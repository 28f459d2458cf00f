"""Frames/s of decoding video files into clips, against OpenCV.

    python -m bench.video_decoding --cv-python CV/bin/python [--rounds 5]

CV is an environment with OpenCV, which `python -m bench run video_decoding` installs. The files
are generated: moving noise in the codecs of UCF101 (MPEG-4 in AVI) and of the web (H.264 in MP4).
Both programs read the same files on one thread, alternately, and return grey or RGB frames of 64x64
pixels: all frames, or 16 frames spread evenly over the video (OpenCV skips the others with `grab`,
which does not convert them). CPU time is measured, which other processes disturb less than wall
time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

BENCHMARK = {
    "measures": "decoding video files into clips, in frames/s, against OpenCV",
    "minutes": 5,
    "peers": {"--cv-python": "opencv"},
}

FRAMES, FEW, SIDE = 120, 16, 64
FILM = (FRAMES, 240, 320)  # as UCF101's
CODECS = {"mpeg4": "avi", "libx264": "mp4"}


def write(path: Path, film: tuple[int, int, int], codec: str, rng: np.random.Generator) -> None:
    """Write an RGB video: a smooth image that moves, with some noise.

    Args:
        path: of the file.
        film: number of frames, height and width.
        codec: of FFmpeg.
        rng: of the image and the noise.
    """
    import av

    count, height, width = film
    coarse = rng.integers(256, size=(height // 8 + 8, width // 8 + 8, 3), dtype=np.uint8)
    picture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 25)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.bit_rate = 25 * height * width // 8
        for number in range(count):
            shift = number % 64
            moved = picture[shift : shift + height, shift // 2 : shift // 2 + width]
            noise = rng.integers(16, size=moved.shape, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(moved // 2 + noise, "rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())


def ours(paths: list[Path], frames: int, colour: str) -> None:
    from ostinato.video.formats.reading import Sampling, read

    sampling = Sampling(frames, None, "uniform", 1, SIDE, SIDE, colour, 10**7)  # type: ignore[arg-type]
    for path in paths:
        (clip,) = read(path, sampling, np.random.default_rng(0))
        assert clip.pixels.shape == (frames, SIDE, SIDE, 1 if colour == "grey" else 3)


def opencv(paths: list[Path], frames: int, colour: str) -> None:
    import cv2

    cv2.setNumThreads(1)
    for path in paths:
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        wanted = set(((np.arange(frames) + 0.5) * count / frames).astype(int).tolist())
        clip = []
        for number in range(max(wanted) + 1):
            assert video.grab()
            if number in wanted:
                _, picture = video.retrieve()
                height, width = picture.shape[:2]
                side = min(height, width)
                top, left = (height - side) // 2, (width - side) // 2
                middle = picture[top : top + side, left : left + side]
                kind = cv2.COLOR_BGR2GRAY if colour == "grey" else cv2.COLOR_BGR2RGB
                small = cv2.resize(middle, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
                clip.append(cv2.cvtColor(small, kind))
        assert len(clip) == frames
        video.release()


def serve(side: str) -> None:
    """For each line (paths, frames, colour) decode the files and print the CPU seconds."""
    decode = {"ours": ours, "opencv": opencv}[side]
    for line in sys.stdin:
        names, frames, colour = json.loads(line)
        start = time.process_time()
        decode([Path(name) for name in names], frames, colour)
        print(time.process_time() - start, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cv-python", help="Python of an environment with OpenCV")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--serve", choices=["ours", "opencv"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    with tempfile.TemporaryDirectory() as temporary:
        for codec, ending in CODECS.items():
            rng = np.random.default_rng(0)
            paths = [Path(temporary, f"{number}.{ending}") for number in range(arguments.files)]
            for path in paths:
                write(path, FILM, codec, rng)
            compare(codec, [str(path) for path in paths], arguments)


def compare(codec: str, paths: list[str], arguments: argparse.Namespace) -> None:
    sides = {}
    for side, python in {"ours": sys.executable, "opencv": arguments.cv_python}.items():
        command = [python, "-m", "bench.video_decoding", "--serve", side]
        sides[side] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def timed(side: str, frames: int, colour: str) -> float:
        process = sides[side]
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps([paths, frames, colour]) + "\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    for frames in (FRAMES, FEW):
        for colour in ("grey", "rgb"):
            for side in sides:
                timed(side, frames, colour)  # warm-up
            found = [
                {side: timed(side, frames, colour) for side in sides}
                for _ in range(arguments.rounds)
            ]
            speed = {
                side: len(paths) * FRAMES / median(times[side] for times in found) for side in sides
            }
            ratio = median(times["opencv"] / times["ours"] for times in found)
            print(
                f"{codec:8} {frames:3} of {FRAMES} frames, {colour:4}: {speed['ours']:6,.0f} to "
                f"{speed['opencv']:6,.0f} frames of the file a second, {ratio:.2f} times as fast",
                flush=True,
            )
    for process in sides.values():
        assert process.stdin
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()
