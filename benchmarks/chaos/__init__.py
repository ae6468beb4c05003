"""Processes of a loaded service are killed one after the other: `python -m benchmarks.chaos`."""
