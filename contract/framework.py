"""The prebuilt SageMaker images that a model may name, and what each maps to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

IMAGES = Path(__file__).with_name("images")


@dataclass(frozen=True)
class Image:
    """A prebuilt image: its ECR repository and tag, and the locked packages that stand for it in Verify."""

    repository: str
    tag: str
    python: str
    lock: str

    @property
    def packages(self) -> Path:
        """What the image holds, locked."""
        return IMAGES / f"{self.lock}.txt"

    @property
    def test_packages(self) -> Path:
        """What the image holds and what runs a model's tests, locked."""
        return IMAGES / f"{self.lock}-test.txt"


FRAMEWORKS: dict[tuple[str, str], Image] = {
    # scikit-learn 1.8, which the image holds, needs Python 3.11.
    ("xgboost", "3.2-0"): Image("sagemaker-xgboost", "3.2-0", python="3.11", lock="xgboost-3.2-0"),
}
