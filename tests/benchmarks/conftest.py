"""The gate of speed, for all benchmarks of this folder."""

from tests.benchmarks.gate import (  # noqa: F401 -- pytest looks for these names
    benchmark,
    pytest_addoption,
    pytest_configure,
    pytest_itemcollected,
    pytest_runtest_call,
    pytest_sessionfinish,
    pytest_terminal_summary,
)
