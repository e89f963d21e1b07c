"""Stage 7: compares documents with rows, and mends what differs."""
