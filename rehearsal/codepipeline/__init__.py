"""CodePipeline V2: stages in order, one execution per stage, a newer execution supersedes one that waits.

Next hop: the Retrain stage's action starts the retraining state machine.
"""

from rehearsal.codepipeline.service import CodePipeline

__all__ = ["CodePipeline"]
