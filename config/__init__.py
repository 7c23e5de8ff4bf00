"""The platform's values: `platform.yaml`, typed and validated."""

from config.document import Document, Invalid, Problem
from config.settings import Environment, Guardrails, Settings, load_settings

__all__ = ["Document", "Environment", "Guardrails", "Invalid", "Problem", "Settings", "load_settings"]
