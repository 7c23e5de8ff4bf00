"""What several models import; a push that touches it retrains every model that watches it."""
