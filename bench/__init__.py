"""The benchmarks of `make bench`: how fast the mirror is, beside what it could at best be."""
