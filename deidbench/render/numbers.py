"""How a number is written: three significant digits, percent where natural, interval beside it."""

from __future__ import annotations

import math
import unicodedata

from deidbench.results.schema import MetricRow

TITLES = {
    "auc": "AUC", "eer": "EER", "tar": "TAR", "dprime": "d\u2032", "dodging-psr": "Dodging PSR",
    "fmr": "FMR", "fnmr": "FNMR", "far": "FAR", "frr": "FRR", "lpips": "LPIPS", "ssim": "SSIM",
    "psnr": "PSNR", "detection-rate": "Faces found", "images-per-second": "Speed",
    "latency": "Latency", "peak-memory": "Peak memory", "ms-ssim": "MS-SSIM",
    "lpips-vgg": "LPIPS (VGG)", "kid": "KID", "fid": "FID",
    "landmark-error": "Landmark error", "landmark-error-to-truth": "Landmark error to the truth",
    "head-pose-yaw": "Change of yaw", "head-pose-pitch": "Change of pitch",
    "head-pose-roll": "Change of roll", "face-found-yunet": "Faces found by YuNet",
    "box-iou-yunet": "Box IoU (YuNet)", "expression-agreement": "Same expression read",
    "gender-agreement": "Same gender read", "age-difference": "Change of age read",
    "expression-accuracy": "True expression read", "d-sys": "D_sys", "rank-k": "Rank-k",
    "dir": "DIR", "auc-over-folds": "AUC over folds", "eer-over-folds": "EER over folds",
    "worst-case-auc": "AUC, worst case", "worst-case-tar": "TAR, worst case",
}  # fmt: skip
UNITS = {
    "dB": "dB", "ms": "ms", "MiB": "MiB", "images/s": "images/s", "degrees": "degrees",
    "years": "years", "distances between the eyes": "eye distances",
}  # fmt: skip
AS_FRACTION = frozenset({
    "auc", "auc-over-folds", "worst-case-auc", "d-sys", "ssim", "lpips", "ms-ssim", "box-iou-yunet",
})  # fmt: skip
SPACE = "\u00a0"  # a number and its unit, or its interval, stay on one line
MINUS, DASH = "\u2212", "\u2013"
RATES = frozenset({
    "detection-rate", "dodging-psr", "eer", "far", "fmr", "fnmr", "frr", "tar", "worst-case-tar",
    "eer-over-folds", "rank-k", "dir",
})  # fmt: skip


def number(value: float) -> str:
    """Three significant digits: 0.834, 24.6, 1,234, 1.23e-07; never 1.00 for less than 1."""
    if value == 0:
        return "0"
    if 0.9995 <= value < 1:
        return f"{math.floor(10_000 * value) / 10_000:.4f}"
    rounded = float(f"{value:.3g}")
    places = 2 - math.floor(math.log10(abs(rounded)))
    if places > 6:
        text = f"{rounded:.3g}"
    else:
        text = f"{rounded:.{places}f}" if places > 0 else f"{value:,.0f}"
    return text.replace("-", MINUS, 1) if value < 0 else text


def percent(fraction: float, digits: int = 3) -> str:
    """41.2 % of 0.412; with two digits 41 %. Never 100 % or 0 % for what is short of it."""
    points = 100 * fraction
    if digits < 3 and 10 <= points < 99.5:
        return f"{points:.0f}{SPACE}%"
    if 99.95 <= points < 100:
        return f"> 99.9{SPACE}%"
    if digits < 3:
        return (
            f"{float(f'{points:.{digits}g}'):g}{SPACE}%" if points < 10 else f"{points:.3g}{SPACE}%"
        )
    return f"{number(points)}{SPACE}%"


def is_rate(row: MetricRow) -> bool:
    """Whether the value is a share that reads best in percent."""
    return row.metric in RATES or (row.unit == "fraction" and row.metric not in AS_FRACTION)


def value(row: MetricRow) -> str:
    """The value with its unit, or an en dash where there is none."""
    if row.value is None:
        return DASH
    if is_rate(row):
        return percent(row.value)
    unit = UNITS.get(row.unit, "")
    return f"{number(row.value)}{SPACE}{unit}".rstrip()


def interval(row: MetricRow, digits: int = 3) -> str:
    """'[36.1, 47.0]' in the unit of the value; empty where there is none."""
    if row.value is None or row.low is None or row.high is None:
        return ""
    ends = [row.low, row.high]
    if is_rate(row):
        ends = [100 * end for end in ends]
    if digits < 3 and is_rate(row):
        return (
            "[" + f",{SPACE}".join(f"{end:.0f}" if end >= 1 else f"{end:.1g}" for end in ends) + "]"
        )
    return "[" + f",{SPACE}".join(map(number, ends)) + "]"


def odds(far: float) -> str:
    """0.01 as '1 false match in 100', 0 as 'no false match'."""
    return "no false match" if far <= 0 else f"1 false match in {1 / far:,.0f}"


def count(value: int | None) -> str:
    """1,234; an en dash for what was not counted."""
    return DASH if value is None else f"{value:,}"


def title(metric: str, far: float | None = None) -> str:
    """'TAR at FAR 0.01' of a metric and its setting."""
    name = TITLES.get(metric, metric)
    return name if far is None else f"{name} at FAR {far:g}"


def plain(text: str) -> str:
    """Text on one line without control characters, which could drive a terminal."""
    kept = ("�" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co") else c for c in text)
    return "".join(" " if c in "\n\t\r" else c for c in kept)


def shortened(name: str, room: int) -> str:
    """Cut in the middle: names of a family differ at their ends."""
    if len(name) <= room:
        return name
    tail = room // 2
    return f"{name[: room - tail - 1]}…{name[-tail:]}"
