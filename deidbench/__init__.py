"""deidbench: how well a face de-identification method protects people, and what it costs."""

__version__ = "0.1.0"
