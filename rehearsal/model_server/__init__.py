"""The model server: runs in an image's own environment and serves a model's script over /ping and /invocations."""

from pathlib import Path

SERVE = Path(__file__).with_name("serve.py")
"""The program. It imports nothing of the rehearsal, so that a model sees only what its image holds."""
