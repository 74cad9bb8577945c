"""Names of the shape targets that vary from person to person."""

# stem | suffix for a negative value | suffix for a positive value
SINGLE = tuple(
    f"{stem}|-{low}|-{high}"
    for low, high, stems in (
        (
            "decr",
            "incr",
            """head/head-fat head/head-scale-depth head/head-scale-horiz head/head-scale-vert
            forehead/forehead-nubian forehead/forehead-scale-vert forehead/forehead-temple
            chin/chin-bones chin/chin-cleft chin/chin-height chin/chin-jaw-drop
            chin/chin-prognathism chin/chin-prominent chin/chin-width mouth/mouth-cupidsbow
            mouth/mouth-cupidsbow-width mouth/mouth-lowerlip-height mouth/mouth-lowerlip-volume
            mouth/mouth-philtrum-volume mouth/mouth-scale-horiz mouth/mouth-scale-depth
            mouth/mouth-scale-vert mouth/mouth-upperlip-height mouth/mouth-upperlip-volume
            nose/nose-flaring nose/nose-greek nose/nose-hump nose/nose-nostrils-width
            nose/nose-point-width nose/nose-scale-depth nose/nose-scale-horiz
            nose/nose-scale-vert nose/nose-septumangle nose/nose-volume nose/nose-width1
            nose/nose-width2 nose/nose-width3 neck/neck-double neck/neck-scale-horiz""",
        ),
        (
            "down",
            "up",
            """mouth/mouth-angles mouth/mouth-lowerlip-ext mouth/mouth-lowerlip-middle
            mouth/mouth-trans mouth/mouth-upperlip-middle nose/nose-base
            nose/nose-nostrils-angle nose/nose-point nose/nose-trans eyebrows/eyebrows-angle
            eyebrows/eyebrows-trans""",
        ),
        ("in", "out", "head/head-angle mouth/mouth-dimples mouth/mouth-laugh-lines"),
        ("backward", "forward", "forehead/forehead-trans eyebrows/eyebrows-trans"),
        ("concave", "convex", "nose/nose-curve"),
        ("compress", "uncompress", "nose/nose-compression"),
    )
    for stem in stems.split()
)
# {s} is l or r: both sides nearly alike
PAIRED = tuple(
    f"{stem.replace('/', '/{s}-', 1)}|-{low}|-{high}"
    for low, high, stems in (
        (
            "decr",
            "incr",
            """cheek/cheek-bones cheek/cheek-inner cheek/cheek-volume eyes/eye-bag
            eyes/eye-height1 eyes/eye-height2 eyes/eye-height3 eyes/eye-scale ears/ear-flap
            ears/ear-lobe ears/ear-scale ears/ear-wing""",
        ),
        (
            "down",
            "up",
            """cheek/cheek-trans eyes/eye-corner1 eyes/eye-corner2 eyes/eye-eyefold-angle
            eyes/eye-eyefold eyes/eye-trans ears/ear-trans""",
        ),
        (
            "in",
            "out",
            "eyes/eye-bag eyes/eye-epicanthus eyes/eye-push1 eyes/eye-push2 eyes/eye-trans",
        ),
        ("concave", "convex", "eyes/eye-eyefold"),
    )
    for stem in stems.split()
)
HEAD_SHAPES = tuple(
    f"head/head-{shape}"
    for shape in [
        "diamond",
        "invertedtriangular",
        "oval",
        "rectangular",
        "round",
        "square",
        "triangular",
    ]
)
UNEVEN = tuple(
    f"asym/asym-{part}"
    for part in [
        "brown-1",
        "brown-2",
        "cheek-1",
        "cheek-2",
        "eye-1",
        "eye-2",
        "eye-3",
        "eye-4",
        "eye-5",
        "eye-6",
        "eye-7",
        "eye-8",
        "jaw-1",
        "jaw-2",
        "jaw-3",
        "mouth-1",
        "mouth-2",
        "nose-1",
        "nose-2",
        "nose-3",
        "nose-4",
        "temple-1",
        "temple-2",
        "top-1",
        "top-2",
    ]
)

# Some targets are much stronger than others, or look like an expression when they are strong.
GENTLE = {
    "head/": 0.6,
    "forehead/": 0.6,
    "neck/": 0.5,
    "eyebrows/eyebrows-angle": 0.35,
    "mouth/mouth-angles": 0.6,
    "mouth/mouth-scale-depth": 0.6,
    "eyes/{s}-eye-height": 0.6,
    "eyes/{s}-eye-push": 0.6,
}


def gentleness(spec: str) -> float:
    """Factor on the strength of a target."""
    return next((k for start, k in GENTLE.items() if spec.startswith(start)), 1.0)
