"""Stage 8: what the mirror is doing, in figures."""
