"""Hop 2 of a push, route: the one door through which push, schedule, new data, drift and people start retraining.

`events` reads what the function is told, `commits` or `archives` tell what was pushed since what `routed` keeps,
`route` finds the models that a push concerns, `arrivals` lets new data settle, `alarms` tells whether drift goes on,
`decide` says start, defer or ignore, `door` asks AWS and acts, `handler` is Lambda's entry. Next hop: the model's
pipeline (`stacks/delivery_pipeline.py`), whose Verify stage runs `buildspec.yml`.
"""
