"""StoreMirror: mirrors Firestore collections into SQL and proves that both sides agree."""
