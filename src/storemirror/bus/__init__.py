"""Stage 3: the topic `realtime-mirror` and its subscriptions, on one adapter a vendor."""
