"""What is mirrored: declarations of entities, and the mapping from a document to a row."""
