"""What data scientists and platform agree on: the schema of model.yaml, Verify, packaging and the inner loop."""

from contract.deployed import deployed
from contract.folder import load_model, load_models, sample_request
from contract.framework import FRAMEWORKS, Image
from contract.model import Model

__all__ = ["FRAMEWORKS", "Image", "Model", "deployed", "load_model", "load_models", "sample_request"]
