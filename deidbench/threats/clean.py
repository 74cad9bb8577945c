"""T0: nothing is treated. The ceiling, and a control."""

from ._embedded import EmbeddedThreat


class Clean(EmbeddedThreat):
    """Clean faces against clean faces: what the recognizer can do when nobody is protected."""

    id = "T0"
    title = "clean"
    summary = "Clean probes against a clean gallery: how well the recognizer works at all."
    enrolled = "clean"
    probe = "clean"
