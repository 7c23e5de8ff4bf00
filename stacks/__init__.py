"""The infrastructure as AWS CDK stacks; `*_workflow.py` are pure functions: settings -> state machine definition."""
