"""Hop 2 of a push, route: decides which models an event touches and starts their delivery pipelines.

Next hop: the model's pipeline (`stacks/training_stack.py`), whose Verify stage runs `buildspec.yml`.
"""
