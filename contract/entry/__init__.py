"""What every bundle carries besides the model's code: it runs inside the image, never in Verify."""
