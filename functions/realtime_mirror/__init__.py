"""From Firestore's triggers to the bus, and from the bus to SQL."""
