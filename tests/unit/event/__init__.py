"""Unit tests of stage 2: change, value, digest, envelope; and of the clock."""
