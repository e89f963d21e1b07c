"""Chooses the adapters: the only folder that names them."""

from storemirror.wiring.parts import Parts

__all__ = ["Parts"]
