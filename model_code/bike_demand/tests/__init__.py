"""Tests that travel with the model's folder; Verify runs them in an environment like the training image's."""
