"""Failures that a user can mend: one line each, printed without a traceback, exit code 2."""


class DeidbenchError(Exception):
    """Root of every expected failure. Say what was wrong, what was got, and what to do."""


class AssetUnavailableError(DeidbenchError):
    """A file that lives outside the package (weights, mostly) could not be had."""


class MetricUndefinedError(DeidbenchError):
    """The numbers at hand do not define the metric. Never replaced by 0 or NaN."""


class PluginError(DeidbenchError):
    """A plugin is unknown, claimed twice, or cannot be loaded."""


class ControlError(DeidbenchError):
    """An attack failed where its outcome is known: nothing that it says can be trusted."""
