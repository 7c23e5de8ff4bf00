"""Measurements of Pushline, each as a ratio against a floor or a peer measured in the same run."""
