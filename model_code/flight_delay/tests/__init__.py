"""The model's own tests: Verify runs them on every push, in the image's environment, without Spark."""
