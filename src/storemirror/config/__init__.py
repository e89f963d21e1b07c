"""
Settings, and the TOML that settings and declarations are written in.

`Settings` come from `load_settings`; nothing else here does I/O.
"""

from storemirror.config.load import load_settings, settings_reference
from storemirror.config.reference import SettingDoc
from storemirror.config.settings import Settings

__all__ = ["SettingDoc", "Settings", "load_settings", "settings_reference"]
