"""Models, one folder each; a push that touches a folder retrains and redeploys that model."""
