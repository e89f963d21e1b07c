"""Stage 2: a change to a document, its version, and its form as a CloudEvent.  Pure."""
