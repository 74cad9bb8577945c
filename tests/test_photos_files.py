"""Photographs as files: what is kept, what must not be, bad files, folders and stopped runs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import composites
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageCms, PngImagePlugin
from torch import Tensor

from deidbench.cli import cli
from deidbench.errors import AssetUnavailableError, DeidbenchError
from deidbench.photos import metadata
from deidbench.photos.blend import covered_by
from deidbench.photos.detect import Face
from deidbench.photos.metadata import encode, open_photograph
from deidbench.photos.run import Outcome, Report, Treatment, deidentify
from deidbench.photos.tree import MANIFEST, Manifest, plan
from deidbench.progress import Progress

SIZE = (200, 260)


class Black:
    """Paints every chip black; can be interrupted."""

    name, version, strength, trained_against = "black", 1, None, ()
    stop_after: int | None = None

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        if self.stop_after is not None:
            self.stop_after -= 1
            if self.stop_after < 0:
                raise KeyboardInterrupt
        return torch.zeros_like(faces)


def treatment(method: object | None = None, *, seed: int = 0) -> Treatment:
    try:
        return Treatment(method or Black(), fast=True, seed=seed)  # type: ignore[arg-type]
    except AssetUnavailableError as error:
        pytest.skip(f"weights cannot be had: {error}")


def portrait(seed: int = 0, x: float = 120) -> tuple[np.ndarray, composites.Face]:
    """A small photograph of one rendered face, off the middle, and where the face is."""
    rng = np.random.default_rng(seed)
    canvas = np.full((*SIZE, 3), rng.uniform(60, 200, 3), np.float32)
    canvas += rng.normal(0, 3, canvas.shape)
    head = composites.Faces().draw(rng)
    truth = composites.lay(canvas, *head, width=70, roll=0, centre=(x, 90))
    return canvas.clip(0, 255).astype(np.uint8), truth


def run(source: Path, target: Path, method: object | None = None, **options: object) -> Report:
    strict = bool(options.pop("strict", False))
    made = treatment(method, **options)  # type: ignore[arg-type]
    return deidentify(source, target, made, strict, Progress(quiet=True))


def rgb(path: Path, mode: str = "RGB") -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture.convert(mode))


def is_black(pixels: np.ndarray, truth: composites.Face, *, most: int = 12) -> bool:
    left, top, right, bottom = (round(v) for v in truth.box)
    return bool(np.median(pixels[top + 5 : bottom - 5, left + 5 : right - 5]) <= most)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()  # holds the time


# What is kept and what must go


def exif_with_thumbnail(orientation: int) -> bytes:
    """EXIF with an orientation, a place, maker's notes and a thumbnail of the untreated face."""
    small = io.BytesIO()
    Image.fromarray(portrait()[0]).resize((80, 60)).save(small, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "SecretCamera"
    exif.get_ifd(0x8769)[0x927C] = b"SecretNotes" + small.getvalue()
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 0.0)})
    body = exif.tobytes()
    return body + small.getvalue()  # where a camera would have put it: inside the segment


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_carried_out_and_everything_else_goes(
    tmp_path: Path, orientation: int
) -> None:
    upright, truth = portrait()
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    stored = Image.fromarray(np.ascontiguousarray(undo(upright)))
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    xmp = b"<x:xmpmeta>SecretPlace</x:xmpmeta>"
    stored.save(
        source, quality=95, exif=exif_with_thumbnail(orientation), icc_profile=SRGB,
        xmp=xmp, comment=b"SecretComment",
    )  # fmt: skip
    assert run(source, target).exit_code == 0
    content = target.read_bytes()
    assert b"Secret" not in content and b"Exif" not in content
    assert content.count(b"\xff\xd8\xff") == 1  # no second picture in the file
    with Image.open(target) as treated:
        assert not treated.getexif()
        assert treated.info["icc_profile"] == SRGB
        assert treated.size == SIZE[::-1]
    assert is_black(rgb(target), truth)
    assert np.abs(rgb(target)[150:].astype(int) - upright[150:]).mean() < 6


def test_a_jpeg_keeps_its_quality_and_sampling(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    Image.fromarray(portrait()[0]).save(source, quality=63, subsampling="4:2:2")
    run(source, target)
    with Image.open(source) as before, Image.open(target) as after:
        assert before.quantization == after.quantization  # type: ignore[attr-defined]
        assert before.layer == after.layer  # type: ignore[attr-defined]


def test_the_text_and_time_of_a_png_go(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "SecretName")
    info.add_itxt("XML:com.adobe.xmp", "SecretPlace")
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    Image.fromarray(portrait()[0]).save(source, pnginfo=info, exif=exif_with_thumbnail(1))
    run(source, target)
    assert b"Secret" not in target.read_bytes()
    with Image.open(target) as treated:
        assert not treated.info


LOSSLESS = {
    "png": {},
    "bmp": {},
    "tif": {"compression": "tiff_lzw"},
    "tiff": {},
    "webp": {"lossless": True, "exact": True},
}


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_pixels_outside_the_face_stay_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    pixels, truth = portrait()
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    Image.fromarray(pixels).save(source, **LOSSLESS[suffix])
    report = run(source, target)
    treated = rgb(target)
    assert is_black(treated, truth, most=0)
    [one] = report.outcomes[0].faces
    left, top, right, bottom = (round(v) for v in one["box"])
    reach = round(0.6 * (bottom - top))
    far = np.ones(SIZE, bool)
    far[max(top - reach, 0) : bottom + reach, max(left - reach, 0) : right + reach] = False
    assert far.mean() > 0.2
    np.testing.assert_array_equal(treated[far], pixels[far])


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_transparency_is_kept(tmp_path: Path, suffix: str) -> None:
    pixels, truth = portrait()
    alpha = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
    picture = Image.fromarray(pixels)
    picture.putalpha(Image.fromarray(alpha))
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    picture.save(source, **LOSSLESS[suffix])
    run(source, target)
    with Image.open(target) as treated:
        assert treated.mode == "RGBA"
        np.testing.assert_array_equal(np.array(treated)[..., 3], alpha)
        # What lies under transparency is in the file, so it is treated too.
        assert is_black(np.array(treated)[..., :3], truth, most=0)


def test_a_transparent_photograph_does_not_fit_into_a_jpeg(tmp_path: Path) -> None:
    picture = Image.fromarray(portrait()[0])
    picture.putalpha(128)
    picture.save(tmp_path / "in.png")
    report = run(tmp_path / "in.png", tmp_path / "out.jpg")
    assert "transparency" in report.outcomes[0].problem
    assert not (tmp_path / "out.jpg").exists()


@pytest.mark.parametrize(
    ("mode", "suffix", "kept", "note"),
    [
        ("L", "jpg", "L", ""),
        ("L", "png", "L", ""),
        ("LA", "png", "LA", ""),
        ("P", "png", "RGB", ""),
        ("CMYK", "jpg", "RGB", "CMYK becomes RGB"),
        ("CMYK", "tif", "RGB", "CMYK becomes RGB"),
        ("I;16", "png", "L", "16 bits a channel become 8"),
        ("I;16", "tif", "L", "16 bits a channel become 8"),
    ],
)
def test_each_kind_of_pixels_is_treated(
    tmp_path: Path, mode: str, suffix: str, kept: str, note: str
) -> None:
    pixels, truth = portrait()
    picture = Image.fromarray(pixels)
    if mode == "I;16":
        picture = Image.fromarray(np.array(picture.convert("L")).astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    picture.save(source)
    report = run(source, target)
    assert report.exit_code == 0, report.as_text()
    assert len(report.outcomes[0].faces) >= 1
    assert report.outcomes[0].notes == ([note] if note else [])
    with Image.open(target) as treated:
        assert treated.mode == kept
    assert is_black(rgb(target), truth, most=12)
    far = np.s_[170:, :]
    grey = np.array(Image.fromarray(pixels).convert("L" if kept[0] == "L" else "RGB"))
    got = rgb(target, "L" if kept[0] == "L" else "RGB")
    assert np.abs(got[far].astype(int) - grey[far]).mean() < 12


def test_sixteen_bits_are_seen_in_the_channels_not_in_the_size(tmp_path: Path) -> None:
    Image.new("RGB", (1600, 16)).save(tmp_path / "eight.png")
    assert open_photograph(tmp_path / "eight.png").notes == ()
    deep = np.full((16, 16), 40_000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    photo = open_photograph(tmp_path / "deep.png")
    assert photo.notes == ("16 bits a channel become 8",)
    assert (photo.pixels == round(40_000 / 257)).all()


def test_cmyk_with_a_profile_becomes_srgb(tmp_path: Path) -> None:
    pixels = Image.fromarray(portrait()[0]).convert("CMYK")
    pixels.save(tmp_path / "in.tif", icc_profile=b"no profile at all")
    photo = open_photograph(tmp_path / "in.tif")
    assert photo.encoding["icc_profile"] is None
    assert photo.pixels.shape == (*SIZE, 3)


# Bad files


def animation(path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (40, 40), (i * 80, 0, 0)) for i in range(3)]
    frames[0].save(path, kind, save_all=True, append_images=frames[1:])


def bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be treated, each with a word of what must be said of it."""
    good = io.BytesIO()
    Image.fromarray(portrait()[0]).save(good, "JPEG")
    (folder / "truncated.jpg").write_bytes(good.getvalue()[:2000])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.tif").write_text("no image")
    (folder / "bomb.bmp").write_bytes(bomb())
    animation(folder / "moving.webp", "WEBP")
    animation(folder / "moving.png", "PNG")
    animation(folder / "pages.tiff", "TIFF")
    animation(folder / "disguised.jpg", "GIF")
    return {
        "truncated.jpg": "truncated", "empty.png": "cannot identify",
        "text.tif": "cannot identify", "bomb.bmp": "exceeds limit", "moving.webp": "several",
        "moving.png": "several", "pages.tiff": "several", "disguised.jpg": "GIF",
    }  # fmt: skip


def bomb() -> bytes:
    """A few bytes that claim 100 million pixels."""
    small = io.BytesIO()
    Image.new("L", (1, 1)).save(small, "BMP")
    header = bytearray(small.getvalue())
    header[18:26] = (10_000).to_bytes(4, "little") * 2
    return bytes(header)


def test_bad_files_are_one_line_each_and_the_others_are_treated(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    said = bad_files(source)
    pixels, truth = portrait()
    Image.fromarray(pixels).save(source / "good.png")
    report = run(source, target)
    assert report.exit_code == 2
    assert is_black(rgb(target / "good.png"), truth)
    by_name = {one.name: one for one in report.outcomes}
    assert by_name.pop("good.png").status == "treated"
    assert by_name.keys() == said.keys()
    for name, word in said.items():
        assert word in by_name[name].problem
        assert "\n" not in by_name[name].problem
        assert str(tmp_path) not in by_name[name].problem
    assert [path.name for path in target.iterdir() if path.name[0] != "."] == ["good.png"]
    with pytest.raises(DeidbenchError):
        run(source, tmp_path / "other", strict=True)


def test_a_second_picture_of_a_camera_is_dropped(tmp_path: Path) -> None:
    pixels, truth = portrait()
    first, second = Image.fromarray(pixels), Image.fromarray(portrait()[0])
    first.save(tmp_path / "in.jpg", "MPO", save_all=True, append_images=[second])
    report = run(tmp_path / "in.jpg", tmp_path / "out.jpg")
    assert report.outcomes[0].notes == ["only its first picture is kept"]
    assert (tmp_path / "out.jpg").read_bytes().count(b"\xff\xd8\xff") == 1
    assert is_black(rgb(tmp_path / "out.jpg"), truth)


# Folders


def folder_of(path: Path, count: int) -> list[composites.Face]:
    path.mkdir()
    truths = []
    for index in range(count):
        pixels, truth = portrait(index)
        Image.fromarray(pixels).save(path / f"{index}.png")
        truths.append(truth)
    return truths


def test_a_tree_is_treated_and_the_rest_is_listed(tmp_path: Path) -> None:
    source = tmp_path / "in"
    folder_of(source, 1)
    (source / "sub" / "deep").mkdir(parents=True)
    (source / "0.png").rename(source / "sub" / "deep" / "a photo ü.PNG")
    outside = tmp_path / "outside.png"
    Image.fromarray(portrait()[0]).save(outside)
    (source / "notes.txt").write_text("text")
    (source / ".hidden.png").write_bytes(outside.read_bytes())
    (source / ".hidden").mkdir()
    (source / ".hidden" / "x.png").write_bytes(outside.read_bytes())
    (source / "away.png").symlink_to(outside)
    (source / "broken.png").symlink_to(source / "nothing.png")
    (source / "within.png").symlink_to(source / "sub" / "deep" / "a photo ü.PNG")
    (source / "loop").symlink_to(source)
    report = run(source, tmp_path / "out")
    assert {one.name: one.status for one in report.outcomes} == {
        "sub/deep/a photo ü.PNG": "treated", "within.png": "treated",
    }  # fmt: skip
    assert {one.name: one.why for one in report.skipped} == {
        "notes.txt": "neither a photograph nor a video of a known kind",
        "away.png": "a link that leaves the folder",
        "broken.png": "not a file",
        "loop": "a link that leaves the folder",
    }
    made = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert {name for name in made if not name.startswith(".")} == {
        "sub/deep/a photo ü.PNG", "within.png",
    }  # fmt: skip
    assert not (tmp_path / "out" / "within.png").is_symlink()


def test_a_finished_file_is_not_treated_again(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    folder_of(source, 2)
    first = run(source, target)
    stamps = {p: p.stat().st_mtime_ns for p in target.glob("*.png")}
    second = run(source, target)
    assert [one.status for one in second.outcomes] == ["done before"] * 2
    assert [one.faces for one in second.outcomes] == [one.faces for one in first.outcomes]
    assert {p: p.stat().st_mtime_ns for p in target.glob("*.png")} == stamps
    assert [one.status for one in run(source, target, seed=1).outcomes] == ["treated"] * 2
    Image.fromarray(portrait(9)[0]).save(source / "0.png")
    third = run(source, target, seed=1)
    assert [one.status for one in third.outcomes] == ["treated", "done before"]


def test_each_file_has_its_own_numbers_which_the_seed_fixes(tmp_path: Path) -> None:
    seeds: list[int] = []

    class Listening(Black):
        def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
            seeds.append(seed)
            return super().deidentify(faces, seed=seed)

    folder_of(tmp_path / "in", 2)
    for number, seed in enumerate((0, 0, 1)):
        run(tmp_path / "in", tmp_path / f"out{number}", Listening(), seed=seed)
    first, again, other = seeds[:2], seeds[2:4], seeds[4:]
    assert first == again
    assert len({*first, *other}) == 4


def test_a_foreign_or_changed_file_in_the_output_is_left_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    folder_of(source, 2)
    target.mkdir()
    (target / "0.png").write_bytes(b"somebody's")
    report = run(source, target)
    assert [one.status for one in report.outcomes] == ["failed", "treated"]
    assert (target / "0.png").read_bytes() == b"somebody's"
    (target / "1.png").write_bytes(b"edited since")
    assert run(source, target).outcomes[1].status == "failed"
    assert (target / "1.png").read_bytes() == b"edited since"


def test_an_interrupted_run_leaves_whole_files_and_goes_on(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    truths = folder_of(source, 3)
    method = Black()
    method.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        run(source, target, method)
    assert [p.name for p in target.glob("*.png")] == ["0.png"]
    assert not list(target.glob(".*part*"))
    report = run(source, target)
    assert [one.status for one in report.outcomes] == ["done before", "treated", "treated"]
    for index, truth in enumerate(truths):
        assert is_black(rgb(target / f"{index}.png"), truth)


def test_a_kill_between_the_note_and_the_name_is_mended(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    folder_of(source, 1)
    run(source, target)
    (target / "0.png").unlink()
    with (target / MANIFEST).open("a") as file:
        file.write('{"name": "1.png", "key"')  # the last line of a killed run
    assert run(source, target).outcomes[0].status == "treated"
    assert run(source, target).outcomes[0].status == "done before"
    assert len(Manifest(target)._lines) == 1


def test_places_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "in"
    folder_of(source, 1)
    photo = source / "0.png"
    for wrong_source, wrong_target, word in [
        (source, source, "lies in the input"),
        (source, source / "out", "lies in the input"),
        (photo, photo, "lies in the input"),
        (photo, source, "is the input"),
        (tmp_path / "none", tmp_path / "out", "does not exist"),
        (photo, tmp_path / "out.gif", "cannot write"),
        (photo, tmp_path / "out", "cannot write"),
    ]:
        with pytest.raises(DeidbenchError, match=word):
            plan(wrong_source, wrong_target)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DeidbenchError, match="is a file"):
        plan(source, tmp_path / "file")
    (tmp_path / "there.png").write_bytes(b"x")
    with pytest.raises(DeidbenchError, match="never overwritten"):
        run(photo, tmp_path / "there.png")


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    from deidbench.photos.tree import locked

    folder_of(tmp_path / "in", 1)
    with locked(tmp_path / "out"), pytest.raises(DeidbenchError, match="another run"):
        run(tmp_path / "in", tmp_path / "out")


# The second look


def test_a_face_that_the_first_search_missed_is_treated_in_the_second_round(
    tmp_path: Path,
) -> None:
    pixels, truth = portrait()
    Image.fromarray(pixels).save(tmp_path / "in.png")
    made = treatment()
    made.finder = lambda image: []  # type: ignore[assignment]
    report = deidentify(
        tmp_path / "in.png", tmp_path / "out.png", made, False, Progress(quiet=True)
    )
    assert report.exit_code == 0
    assert len(report.outcomes[0].faces) == 1
    assert is_black(rgb(tmp_path / "out.png"), truth)


def test_a_face_that_is_still_seen_at_the_end_gives_exit_code_4(tmp_path: Path) -> None:
    """A detector that sees another face at each look: what it saw last was never treated."""
    folder_of(tmp_path / "in", 1)
    bad_files(tmp_path / "in")
    looks = iter(range(100))

    def restless(image: np.ndarray) -> list[Face]:
        left = 20.0 + 60 * next(looks)
        box = np.array([left, 120, left + 30, 160], np.float32)
        return [Face(box, np.full((5, 2), np.nan, np.float32), 0.9, "restless")]

    made = treatment()
    made.finder = made.checker = restless  # type: ignore[assignment]
    report = deidentify(tmp_path / "in", tmp_path / "out", made, False, Progress(quiet=True))
    [one] = [one for one in report.outcomes if one.name == "0.png"]
    assert len(one.faces) == 2 and one.left == [[140.0, 120.0, 170.0, 160.0]]
    assert report.exit_code == 4  # above the 2 of the bad files
    assert "MAY STILL SHOW A FACE" in report.as_text()
    again = deidentify(tmp_path / "in", tmp_path / "out", made, False, Progress(quiet=True))
    assert again.exit_code == 4


def test_the_worse_exit_code_wins() -> None:
    fine, failed = Outcome("a", "treated"), Outcome("b", "failed", problem="bad")
    left = Outcome("c", "treated", left=[[0, 0, 1, 1]])
    assert [Report(list(o), []).exit_code for o in ([fine], [fine, failed], [failed, left])] == [
        0, 2, 4,
    ]  # fmt: skip


def test_a_method_that_keeps_faces_visible_is_no_leak(tmp_path: Path) -> None:
    from deidbench_baselines.identity import Identity

    Image.fromarray(portrait()[0]).save(tmp_path / "in.png")
    assert run(tmp_path / "in.png", tmp_path / "out.png", Identity()).exit_code == 0


# The command


def command(*words: object) -> tuple[int, str]:
    treatment()  # skips where the weights cannot be had
    done = CliRunner().invoke(cli, ["deidentify", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def test_the_command_says_what_it_found(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 2)
    (tmp_path / "in" / "empty.png").write_bytes(b"")
    options = ("--method", "blackout", "--fast", "--quiet")
    code, told = command(tmp_path / "in", tmp_path / "out", *options)
    assert code == 2
    assert told.splitlines()[0] == "0.png: 1 face"
    assert told.splitlines()[-1] == (
        "2 files treated, 2 faces, 1 failed, 0 skipped, 0 may still show a face"
    )
    code, told = command(tmp_path / "in", tmp_path / "out", *options, "--json")
    said = json.loads(told)
    assert (code, said["exit_code"]) == (2, 2)
    assert [one["status"] for one in said["outcomes"]] == ["done before", "done before", "failed"]
    assert len(said["outcomes"][0]["faces"][0]["box"]) == 4


@pytest.mark.parametrize(
    ("method", "word"),
    [
        ("k-same-pixel", "set of people"),
        ("folder-output:x", "whole files"),
        ("blurr", "no methods called"),
    ],
)
def test_methods_that_cannot_treat_a_face_alone_are_refused(
    tmp_path: Path, method: str, word: str
) -> None:
    folder_of(tmp_path / "in", 1)
    (tmp_path / "x").mkdir()
    method = method.replace(":x", f":{tmp_path / 'x'}")
    with pytest.raises(DeidbenchError, match=word) as caught:
        command(tmp_path / "in", tmp_path / "out", "--method", method)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_help_needs_neither_torch_nor_opencv() -> None:
    check = (
        "import sys; from deidbench.cli import cli\n"
        "try: cli(['deidentify', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'cv2', 'av'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Exit code 4" in done.stdout


def test_settings_name_the_method_and_its_parameters() -> None:
    from deidbench_baselines.gaussian_blur import GaussianBlur

    kinds = [treatment(GaussianBlur(0.3)), treatment(GaussianBlur(0.4)), treatment(Black())]
    assert len({one.settings for one in kinds}) == 3


def test_covered_pixels_are_known_without_treatment() -> None:
    box = np.array([50, 50, 90, 100], np.float32)
    one = Face(box, np.full((5, 2), np.nan, np.float32), 0.9, "made")
    covered = covered_by([one], SIZE)
    assert covered[75, 70] and not covered[5, 5]


def test_formats_are_those_that_pillow_writes() -> None:
    known = Image.registered_extensions()
    for suffix, kind in metadata.FORMATS.items():
        assert known[suffix] == kind


def test_a_written_file_can_be_of_another_kind(tmp_path: Path) -> None:
    pixels, truth = portrait()
    Image.fromarray(pixels).save(tmp_path / "in.jpg", quality=95)
    report = run(tmp_path / "in.jpg", tmp_path / "out.webp")
    assert report.outcomes[0].notes == ["written as webp"]
    with Image.open(tmp_path / "out.webp") as treated:
        assert treated.format == "WEBP"
    assert is_black(rgb(tmp_path / "out.webp"), truth)
    photo = open_photograph(tmp_path / "in.jpg")
    assert (tmp_path / "out.webp").stat().st_size > 1000
    assert encode(photo, photo.pixels, ".png")[:4] == b"\x89PNG"
