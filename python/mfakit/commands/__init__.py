"""The commands of ``mfakit``, one file each: ``add_parser(subparsers)`` and ``run(args) -> int``."""
