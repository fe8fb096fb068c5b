"""The long benchmarks. A file has its cases as data, in ``CASES``; see __main__.py and docs/performance.md."""
