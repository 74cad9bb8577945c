"""Videos: no frame shows a face, the sound is copied, times and orientation stay, places go."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import composites
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deidbench.errors import AssetUnavailableError
from deidbench.photos.detect import Face
from deidbench.photos.run import Report, Treatment, deidentify
from deidbench.photos.track import follow
from deidbench.progress import Progress

WIDTH, HEIGHT, RATE = 320, 240, 10
HARD = range(8, 12)  # frames in which noise lies over the face


class Black:
    """Paints every chip black, and remembers the seeds."""

    name, version, strength, trained_against = "black", 1, None, ()

    def __init__(self) -> None:
        self.seeds: set[int] = set()

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        self.seeds.add(seed)
        return torch.zeros_like(faces)


def run(source: Path, target: Path, method: object | None = None) -> Report:
    try:
        made = Treatment(method or Black(), fast=True)  # type: ignore[arg-type]
    except AssetUnavailableError as error:
        pytest.skip(f"weights cannot be had: {error}")
    return deidentify(source, target, made, False, Progress(quiet=True))


# Following faces, without a video


def face(x: float, y: float = 100, width: float = 40) -> Face:
    box = np.array([x - width / 2, y - width / 2, x + width / 2, y + width / 2], np.float32)
    return Face(box, np.full((5, 2), [x, y], np.float32), 0.9, "made")


def middle(face: Face) -> np.ndarray:
    return (face.box[:2] + face.box[2:]) / 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 300), st.floats(0, 200), st.floats(10, 80)), max_size=3),
        max_size=12,
    ),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_every_find_is_treated_in_its_frame(rows: list[list[tuple]], gap: int, hold: int) -> None:
    found = [[face(*row) for row in frame] for frame in rows]
    planned = follow(found, longest_gap=gap, hold=hold)
    assert len(planned) == len(found)
    for finds, treated in zip(found, planned, strict=True):
        assert {id(one) for one in finds} <= {id(one) for _, one in treated}
        numbers = [number for number, _ in treated]
        assert len(numbers) == len(set(numbers))


def test_a_lost_face_is_put_where_it_must_have_been() -> None:
    path = [face(50 + 10 * i) for i in range(12)]
    found = [[one] if i not in (4, 5, 6) else [] for i, one in enumerate(path)]
    planned = follow(found, longest_gap=5, hold=2)
    for frame, treated in enumerate(planned):
        [(number, one)] = treated
        assert number == 0
        np.testing.assert_allclose(middle(one), middle(path[frame]), atol=1e-3)
        np.testing.assert_allclose(one.landmarks, path[frame].landmarks, atol=1e-3)


def test_a_face_is_held_before_its_first_and_after_its_last_sighting() -> None:
    found = [[face(100)] if 5 <= i < 7 else [] for i in range(14)]
    planned = follow(found, longest_gap=3, hold=3)
    assert [len(treated) for treated in planned] == [0, 0] + [1] * 8 + [0] * 4
    sizes = [float(one.box[2] - one.box[0]) for treated in planned for _, one in treated]
    assert sizes == sorted(sizes[:4], reverse=True) + sorted(sizes[4:])
    assert sizes[0] > 40 and sizes[-1] > 40


def test_two_faces_keep_their_numbers_while_they_pass_each_other() -> None:
    found = [
        [face(50 + 8 * i, 80), face(250 - 8 * i, 130)][:: 1 if i % 2 else -1] for i in range(20)
    ]
    for treated in follow(found, longest_gap=3, hold=0):
        assert len(treated) == 2
    heights = [
        {number: middle(one)[1] for number, one in treated}
        for treated in follow(found, longest_gap=3, hold=0)
    ]
    assert all(frame == heights[0] for frame in heights)


# Whole videos


@pytest.fixture(scope="module")
def drawn() -> tuple[list[np.ndarray], list[composites.Face]]:
    """Frames with a face that moves, and goes under noise for a while."""
    rng = np.random.default_rng(5)
    ground = np.full((HEIGHT, WIDTH, 3), (90, 120, 150), np.float32)
    ground += rng.normal(0, 4, ground.shape)
    head = composites.Faces().draw(rng)
    frames, truths = [], []
    for index in range(20):
        frame = ground.copy()
        truth = composites.lay(frame, *head, width=60, roll=0, centre=(70 + 8 * index, 110))
        if index in HARD:
            left, top, right, bottom = (round(v) for v in truth.box)
            noise = rng.normal(150, 40, (bottom - top, right - left, 3))
            frame[top:bottom, left:right] = 0.1 * frame[top:bottom, left:right] + 0.9 * noise
        frames.append(frame.clip(0, 255).astype(np.uint8))
        truths.append(truth)
    return frames, truths


def write(
    path: Path,
    frames: list[np.ndarray],
    *,
    codec: str = "libx264",
    audio: str | None = "aac",
    times: list[int] | None = None,
) -> None:
    with av.open(str(path), "w") as container:
        container.metadata.update(title="SecretTitle", location="+52.5000-013.4000/")
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height = frames[0].shape[1], frames[0].shape[0]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10 * RATE)
        sound = container.add_stream(audio, rate=48000) if audio else None
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = times[index] if times else index * 10
            frame.time_base = Fraction(1, 10 * RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            for frame in tone(sound, len(frames) / RATE):
                container.mux(sound.encode(frame))
            container.mux(sound.encode())


def tone(stream: Any, seconds: float) -> Iterator[Any]:
    step = stream.codec_context.frame_size or 960
    wave = np.sin(np.arange(int(48000 * seconds)) * 0.05).astype(np.float32) * 0.2
    for start in range(0, len(wave) - step, step):
        block = np.stack([wave[start : start + step]] * 2)
        if stream.codec_context.format.name == "s16":
            block = (block.T.reshape(1, -1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(block), format=stream.codec_context.format.name, layout="stereo"
        )
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        yield frame


def read(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [f.to_ndarray(format="rgb24") for f in frames], [float(f.time) for f in frames]


def sound(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0])]


def assert_hidden(frames: list[np.ndarray], truths: list[composites.Face]) -> None:
    for pixels, truth in zip(frames, truths, strict=True):
        left, top, right, bottom = (round(v) for v in truth.box)
        assert np.median(pixels[top + 4 : bottom - 4, left + 4 : right - 4]) <= 20


@pytest.mark.parametrize(
    ("suffix", "codec", "audio"),
    [("mp4", "libx264", "aac"), ("mkv", "mpeg4", "aac"), ("webm", "libvpx", "libopus")],
)
def test_no_frame_shows_the_face_and_the_sound_is_copied(
    tmp_path: Path, drawn: Any, suffix: str, codec: str, audio: str
) -> None:
    frames, truths = drawn
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    write(source, frames, codec=codec, audio=audio)
    method = Black()
    report = run(source, target, method)
    assert report.exit_code == 0, report.as_text()
    assert len(report.outcomes[0].faces) == len(method.seeds) == 1
    treated, times = read(target)
    before, old_times = read(source)
    assert len(treated) == len(frames)
    assert_hidden(treated, truths)
    np.testing.assert_allclose(times, old_times, atol=1e-3)
    assert sound(target) == sound(source)
    assert b"Secret" not in target.read_bytes() and b"52.5" not in target.read_bytes()
    below = np.abs(treated[3][190:].astype(int) - before[3][190:])
    assert below.mean() < 6
    with av.open(str(target)) as new, av.open(str(source)) as old:
        assert new.streams.video[0].codec_context.codec.canonical_name == (
            old.streams.video[0].codec_context.codec.canonical_name
        )


def test_the_frames_that_no_detector_understands_are_covered_by_the_path(
    tmp_path: Path, drawn: Any
) -> None:
    """The noise must really hide the face from the detectors, or the test shows nothing."""
    frames, truths = drawn
    write(tmp_path / "in.mp4", frames, audio=None)
    report = run(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert report.exit_code == 0
    from deidbench.photos.detect import Finder

    finder = Finder(fast=True)
    seen = [bool(finder(pixels)) for pixels in read(tmp_path / "in.mp4")[0]]
    assert not any(seen[i] for i in HARD)
    assert all(seen[i] for i in range(20) if i not in HARD)
    assert_hidden(read(tmp_path / "out.mp4")[0], truths)


def test_frames_that_still_show_a_face_are_listed(tmp_path: Path, drawn: Any) -> None:
    """A detector that sees a face somewhere else at each look: the last one was never treated."""
    frames, _ = drawn
    write(tmp_path / "in.mp4", frames[:2], audio=None)
    looks = iter(range(100))
    try:
        made = Treatment(Black(), fast=True)  # type: ignore[arg-type]
    except AssetUnavailableError as error:
        pytest.skip(f"weights cannot be had: {error}")
    made.checker = lambda image: [face(20 + 70.0 * next(looks), 200, 24)]  # type: ignore[assignment]
    report = deidentify(
        tmp_path / "in.mp4", tmp_path / "out.mp4", made, False, Progress(quiet=True)
    )
    assert report.exit_code == 4
    assert report.outcomes[0].left == [0, 1]


def test_uneven_times_stay(tmp_path: Path, drawn: Any) -> None:
    frames, truths = drawn
    steps = [0, 10, 13, 40, 45, 70, 71, 100, 130, 140]
    write(tmp_path / "in.mkv", frames[:8] + frames[12:14], audio=None, times=steps)
    assert run(tmp_path / "in.mkv", tmp_path / "out.mkv").exit_code == 0
    treated, times = read(tmp_path / "out.mkv")
    np.testing.assert_allclose(times, [step / 100 for step in steps], atol=2e-3)
    assert_hidden(treated, truths[:8] + truths[12:14])


def test_a_rotated_video_comes_out_upright(tmp_path: Path, drawn: Any) -> None:
    """As phones write them: pixels on their side, and a matrix in the track's header."""
    frames, truths = drawn
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write(source, [np.ascontiguousarray(np.rot90(f)) for f in frames[:6]], audio=None)
    content = bytearray(source.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes
    quarter = [0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30]
    content[start : start + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in quarter)
    source.write_bytes(content)
    with av.open(str(source)) as container:
        assert next(container.decode(video=0)).rotation in (-90, 90, 270)
    assert run(source, target).exit_code == 0
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height, frame.rotation) == (WIDTH, HEIGHT, 0)
    assert_hidden(read(target)[0], truths[:6])


def test_a_video_without_faces_is_written_as_it_was(tmp_path: Path) -> None:
    plain = np.full((HEIGHT, WIDTH, 3), (90, 120, 150), np.uint8)
    write(tmp_path / "in.mp4", [plain] * 5)
    report = run(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert report.exit_code == 0 and report.outcomes[0].faces == []
    treated, _ = read(tmp_path / "out.mp4")
    assert len(treated) == 5
    assert np.abs(treated[2].astype(int) - plain).max() < 8


def test_sizes_that_are_odd_are_written(tmp_path: Path, drawn: Any) -> None:
    frames, truths = drawn
    odd = [np.ascontiguousarray(f[:-1, :-1]) for f in frames[:3]]
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH - 1, HEIGHT - 1, "bgr0"
        for pixels in odd:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    assert run(path, tmp_path / "out.mkv").exit_code == 0
    treated, _ = read(tmp_path / "out.mkv")
    assert treated[0].shape == odd[0].shape
    assert_hidden(treated, truths[:3])


@pytest.mark.parametrize(
    ("suffix", "codec", "depth", "kept"),
    [
        ("mp4", "libx265", "yuv420p10le", "hevc"),
        ("webm", "libvpx-vp9", "yuv420p", "vp9"),
        ("avi", "mpeg4", "yuv420p", "mpeg4"),
        ("mkv", "mpeg2video", "yuv420p", "h264"),
    ],
)
def test_codecs_and_the_shape_of_pixels_stay(
    tmp_path: Path, drawn: Any, suffix: str, codec: str, depth: str, kept: str
) -> None:
    frames, truths = drawn
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    quiet = {"x265-params": "log-level=error"} if codec == "libx265" else {}
    with av.open(str(source), "w") as container:
        stream = container.add_stream(codec, rate=25, options=quiet)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, depth
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for pixels in frames[:4]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    report = run(source, target)
    deep = ["more than 8 bits a channel become 8"] if "10" in depth else []
    assert report.outcomes[0].notes == deep
    with av.open(str(target)) as new, av.open(str(source)) as old:
        after, before = new.streams.video[0], old.streams.video[0]
        assert after.codec_context.codec.canonical_name == kept
        assert after.average_rate == before.average_rate == 25
        assert after.sample_aspect_ratio == before.sample_aspect_ratio
    assert_hidden(read(target)[0], truths[:4])


def test_bad_videos_are_one_line_and_leave_nothing(tmp_path: Path, drawn: Any) -> None:
    frames, _ = drawn
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write(source / "good.mkv", frames[:3], audio=None)
    write(source / "cut.mp4", frames[:3])
    (source / "cut.mp4").write_bytes((source / "cut.mp4").read_bytes()[:3000])
    (source / "text.avi").write_text("no video")
    (source / "empty.webm").write_bytes(b"")
    with av.open(str(source / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        for frame in tone(stream, 0.5):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    report = run(source, target)
    assert report.exit_code == 2
    status = {one.name: one.status for one in report.outcomes}
    assert status.pop("good.mkv") == "treated"
    assert set(status.values()) == {"failed"} and len(status) == 4
    assert all("\n" not in one.problem for one in report.outcomes)
    assert [p.name for p in target.iterdir() if p.name[0] != "."] == ["good.mkv"]
    assert not list(target.glob(".*part*"))


def test_sound_that_the_container_cannot_hold_is_refused(tmp_path: Path, drawn: Any) -> None:
    frames, _ = drawn
    write(tmp_path / "in.mp4", frames[:3], audio="aac")
    report = run(tmp_path / "in.mp4", tmp_path / "out.webm")
    assert "cannot hold aac" in report.outcomes[0].problem
    assert not (tmp_path / "out.webm").exists()


def test_a_finished_video_is_not_treated_again(tmp_path: Path, drawn: Any) -> None:
    frames, _ = drawn
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.mp4", frames[:3])
    assert run(tmp_path / "in", tmp_path / "out").outcomes[0].status == "treated"
    assert run(tmp_path / "in", tmp_path / "out").outcomes[0].status == "done before"
