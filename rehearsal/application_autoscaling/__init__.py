"""Application Auto Scaling of endpoints' variants: targets, target tracking policies, and the scaling itself."""

from __future__ import annotations

from rehearsal.application_autoscaling.service import ApplicationAutoScaling

__all__ = ["ApplicationAutoScaling"]
