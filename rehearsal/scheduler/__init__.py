"""EventBridge Scheduler: one-time and recurring schedules on a scaled clock, invoked under the target's own role.

`service` is the API, `expression` tells when, `invocation` calls the target, `resource_types` is CloudFormation's view.
"""

from rehearsal.scheduler.service import Scheduler

__all__ = ["Scheduler"]
