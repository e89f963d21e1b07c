"""The demonstration: a small social app lives on the embedded parts."""
