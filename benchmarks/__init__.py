"""Benchmarks: cases are data; check first, then time. See __main__.py."""
