"""CodeBuild: runs the real buildspec in a clean folder, an environment of the image's and the service role.

Next hop: the pipeline hands the build's artifact to its Retrain stage.
"""

from rehearsal.codebuild.service import CodeBuild

__all__ = ["CodeBuild"]
