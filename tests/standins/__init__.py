"""Servers that stand in for services no machine of ours can hold: for tests, never shipped."""
