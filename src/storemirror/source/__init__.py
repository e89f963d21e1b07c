"""Stage 1: where documents are, and how a change to one becomes an event."""
