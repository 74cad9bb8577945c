"""How fast a method is on this machine: what ``deidbench bench`` measures, and its record."""

from .record import (
    SCHEMA_VERSION,
    BatchRecord,
    CeilingRecord,
    LatencyRecord,
    MemoryRecord,
    ThroughputRecord,
    json_schema,
    read_throughput,
    write_throughput,
)

__all__ = [
    "SCHEMA_VERSION",
    "BatchRecord",
    "CeilingRecord",
    "LatencyRecord",
    "MemoryRecord",
    "ThroughputRecord",
    "json_schema",
    "read_throughput",
    "write_throughput",
]
