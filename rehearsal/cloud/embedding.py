"""What ministack must be told before it is imported, and the credentials of the account's root."""

from __future__ import annotations

import json
import os
import secrets
import string
from dataclasses import asdict, dataclass
from pathlib import Path

ACCOUNT, REGION = "000000000000", "us-east-1"


@dataclass(frozen=True)
class Credentials:
    """Who signs, for which account and region; a session of a role carries a token."""

    access_key: str
    secret_key: str
    account: str = ACCOUNT
    region: str = REGION
    token: str | None = None

    def environment(self, endpoint: str) -> dict[str, str]:
        """The variables with which the AWS CLI and every SDK speak to `endpoint` as this principal."""
        variables = {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": endpoint,
        }
        return {**variables, "AWS_SESSION_TOKEN": self.token} if self.token else variables


def root_credentials(state_dir: Path) -> Credentials:
    """The root's credentials of this state directory, made on first use and readable by its owner only."""
    path = state_dir / "credentials.json"
    if path.exists():
        return Credentials(**json.loads(path.read_text()))
    made = Credentials("AKIA" + _random(16, string.ascii_uppercase), _random(40, string.ascii_letters + string.digits))
    state_dir.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(made), file)
    partial.replace(path)
    return made


def prepare(state_dir: Path, port: int, root: Credentials, time_scale: float) -> None:
    """Set the process environment from which ministack reads its settings at import."""
    os.environ.update(
        {
            "AUTH": "true",
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "MINISTACK_ACCOUNT_ID": root.account,
            "MINISTACK_REGION": root.region,
            "AWS_ACCESS_KEY_ID": root.access_key,
            "AWS_SECRET_ACCESS_KEY": root.secret_key,
            "AWS_DEFAULT_REGION": root.region,
            "AWS_REGION": root.region,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "PERSIST_STATE": "1",
            "STATE_DIR": str(state_dir / "ministack"),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(state_dir / "s3"),
            "LAMBDA_EXECUTOR": "local",
            "DOCKER_HOST": f"unix://{state_dir}/no-docker.sock",
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "SFN_WAIT_SCALE": repr(1 / time_scale),
            "LOG_LEVEL": "WARNING",
        }
    )
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "MINISTACK_TEST_NO_AUTOSTART", "SERVICES"):
        os.environ.pop(name, None)


def _random(length: int, alphabet: str) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))
