"""Stage 4: takes events from the bus and applies them to SQL."""
