"""Treats a video: every frame is searched first, then all frames are treated and encoded again.

Pictures are decoded one by one, so that memory does not grow with the length; the audio is copied
packet by packet. Nothing of the metadata comes along: not the place, the camera or a cover picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deidbench.errors import DeidbenchError

from .blend import covered_by, uncovered
from .detect import Face, Finder
from .track import follow

if TYPE_CHECKING:
    from deidbench.yunet import Image

    Treat = Callable[[Image, Sequence[Face], Sequence[int]], Image]

LONGEST_GAP_S = 1.0
HOLD_S = 0.5
ROUNDS = 2  # a face that shows in the output is treated in a second round

ENCODERS = {
    "h264": ("libx264", {"crf": "18"}),
    "hevc": ("libx265", {"crf": "20", "x265-params": "log-level=error"}),
    "vp8": ("libvpx", {"crf": "10", "b": "4M"}),
    "vp9": ("libvpx-vp9", {"crf": "24", "b": "0"}),
    "mpeg4": ("mpeg4", {"q": "3"}),
}
ENCODER_OF = {".webm": "vp9"}  # where the original's own encoder is missing; else h264


@dataclass(frozen=True)
class VideoResult:
    """What was done with a video."""

    frames: int
    tracks: int
    """Faces that were followed; a person who comes back later is counted again."""
    sizes: tuple[float, ...]
    left: tuple[int, ...]
    """Frames of the output that may still show an untreated face."""
    notes: tuple[str, ...]


def treat_video(
    source: Path,
    part: Path,
    treat: Treat,
    *,
    finder: Finder,
    checker: Finder,
    tell: Callable[[str], None],
) -> VideoResult:
    """Write the treated video to ``part``, whose suffix says the container.

    Each face keeps its number in all frames. The output is decoded and searched again.

    Args:
        treat: an image, its faces and their numbers -> the treated image.

    Raises:
        DeidbenchError: the video cannot be decoded, or its audio does not fit the container.
    """
    with _plain_errors(source):
        tell(f"{source.name}: looking for faces")
        found = [finder(image) for _, image in _frames(source)]
        if not found:
            raise DeidbenchError(f"{source.name} holds no pictures. Leave it out.")
        rate = _rate(source)
        for _ in range(ROUNDS):
            gap, hold = round(LONGEST_GAP_S * rate), round(HOLD_S * rate)
            planned = follow(found, longest_gap=gap, hold=hold)
            tell(f"{source.name}: treating {len(found)} frames")
            notes = _encode(source, part, planned, treat)
            left = list(_left(part, planned, checker))
            if not any(left):
                break
            found = [[*faces, *more] for faces, more in zip(found, left, strict=True)]
    numbers = {number for faces in planned for number, _ in faces}
    return VideoResult(
        frames=len(found), tracks=len(numbers), notes=notes, sizes=_sizes(planned),
        left=tuple(frame for frame, faces in enumerate(left) if faces),
    )  # fmt: skip


def _frames(path: Path) -> Iterator[tuple[Any, Image]]:
    """Each frame as PyAV gives it, and its upright RGB pixels."""
    import av

    with av.open(str(path)) as container:
        for frame in container.decode(_pictures(container, path)):
            yield frame, _upright(frame)


def _pictures(container: Any, path: Path) -> Any:
    """The video stream; a cover picture is none."""
    import av

    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        raise DeidbenchError(f"{path.name} holds no video. Leave it out.")
    streams[0].thread_type = "AUTO"
    return streams[0]


def _upright(frame: Any) -> Image:
    turned = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    return np.ascontiguousarray(turned)


def _rate(path: Path) -> float:
    import av

    with av.open(str(path)) as container:
        return float(_pictures(container, path).average_rate or 25)


def _encode(
    source: Path,
    part: Path,
    planned: Sequence[Sequence[tuple[int, Face]]],
    treat: Treat,
) -> tuple[str, ...]:
    """Decode again, treat, encode; what was left out is said in words."""
    import av

    with av.open(str(source)) as reader, av.open(str(part), "w") as writer:
        pictures = _pictures(reader, source)
        # All streams must be there before the first packet is written.
        target = _video_stream(writer, pictures, _size(source), part)
        audio = {s.index: _copied(writer, s, part) for s in reader.streams.audio}
        wanted = [pictures, *reader.streams.audio]
        plan = iter(planned)
        for packet in reader.demux(wanted):
            if packet.stream.index in audio:
                if packet.dts is not None:  # else it is the empty packet that ends a stream
                    packet.stream = audio[packet.stream.index]
                    writer.mux(packet)
                continue
            for frame in packet.decode():
                writer.mux(target.encode(_treated(frame, next(plan, None), treat)))
        if next(plan, None) is not None:
            raise DeidbenchError(f"{source.name} cannot be decoded twice alike. Convert it first.")
        writer.mux(target.encode())
        return _notes(reader, wanted, pictures)


def _treated(frame: Any, faces: Sequence[tuple[int, Face]] | None, treat: Treat) -> Any:
    """The frame to encode; one without faces is passed on as it is."""
    import av

    if faces is None:
        raise DeidbenchError("the video cannot be decoded twice alike. Convert it first.")
    if not faces and frame.rotation == 0:
        frame.pict_type = av.video.frame.PictureType.NONE  # the encoder chooses its key frames
        return frame
    numbers = [number for number, _ in faces]
    image = treat(_upright(frame), [face for _, face in faces], numbers)
    new = av.VideoFrame.from_ndarray(image, format="rgb24")
    new.pts, new.time_base = frame.pts, frame.time_base
    return new


def _size(path: Path) -> tuple[int, int]:
    """Width and height of the first frame, upright."""
    _, image = next(_frames(path))
    return image.shape[1], image.shape[0]


def _video_stream(writer: Any, pictures: Any, size: tuple[int, int], part: Path) -> Any:
    """A stream like the original's, for upright frames of this width and height."""
    context = pictures.codec_context
    kind = context.codec.canonical_name if context.codec else ""
    if kind not in ENCODERS or kind not in _fitting(writer):
        kind = ENCODER_OF.get(part.suffix.lower(), "h264")
    name, options = ENCODERS[kind]
    stream = writer.add_stream(name, rate=pictures.average_rate, options=options)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv444p" if any(side % 2 for side in size) else "yuv420p"
    stream.codec_context.time_base = pictures.time_base
    stream.time_base = pictures.time_base
    shape = pictures.sample_aspect_ratio or context.sample_aspect_ratio
    if shape and size[0] == context.width:
        stream.codec_context.sample_aspect_ratio = shape
    for name in ("color_range", "color_primaries", "color_trc", "colorspace"):
        setattr(stream.codec_context, name, getattr(context, name))
    return stream


def _fitting(writer: Any) -> set[str]:
    return set(writer.supported_codecs)


def _copied(writer: Any, stream: Any, part: Path) -> Any:
    try:
        copy = writer.add_stream_from_template(stream)
    except ValueError as error:
        raise DeidbenchError(
            f"{part.suffix} cannot hold {stream.codec_context.name} audio. "
            "Choose the container of the original."
        ) from error
    copy.metadata.clear()
    return copy


def _notes(reader: Any, kept: Sequence[Any], pictures: Any) -> tuple[str, ...]:
    notes = []
    dropped = sorted({s.type for s in reader.streams if s not in kept})
    if dropped:
        notes.append(f"streams left out: {', '.join(dropped)}")
    if any(part.bits > 8 for part in pictures.codec_context.format.components):
        notes.append("more than 8 bits a channel become 8")
    return tuple(notes)


def _left(
    part: Path, planned: Sequence[Sequence[tuple[int, Face]]], checker: Finder
) -> Iterator[list[Face]]:
    """Faces in each frame of the output that the treatment did not cover."""
    for (_, image), faces in zip(_frames(part), planned, strict=True):
        covered = covered_by([face for _, face in faces], image.shape[:2])
        yield uncovered(checker(image), covered)


def _sizes(planned: Sequence[Sequence[tuple[int, Face]]]) -> tuple[float, ...]:
    """The largest width of each face, in pixels."""
    widest: dict[int, float] = {}
    for number, face in (one for faces in planned for one in faces):
        widest[number] = max(widest.get(number, 0.0), float(face.box[2] - face.box[0]))
    return tuple(round(widest[number], 1) for number in sorted(widest))


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    """Faults of the decoder and encoder in one line."""
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise DeidbenchError(
            f"cannot treat {path.name}: {reason}. Repair or leave it out."
        ) from error
