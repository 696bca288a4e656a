"""The benchmark behind docs/benchmarks.md; started by ``scripts/bench``.

Only the standard library: everything else it needs it installs into its own cache folder.
"""
