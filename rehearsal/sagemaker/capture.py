"""Data capture: a sample of requests and answers as JSON lines in S3, in SageMaker's format, by the execution role."""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
import random
import threading
import uuid
from typing import Any

from rehearsal.sagemaker.artifact import location
from rehearsal.sagemaker.container import SAGEMAKER
from rehearsal.service import Caller, Cloud

log = logging.getLogger("rehearsal")
Document = dict[str, Any]
FLUSH_SECONDS, LEAST_FLUSH_SECONDS = 60, 0.5


class Capture:
    """What one fleet captures; `offer` never blocks a request, a thread writes."""

    def __init__(self, config: Document, cloud: Cloud, endpoint: str, role: str, caller: Caller) -> None:
        self._config, self._cloud, self._endpoint, self._role, self._caller = config, cloud, endpoint, role, caller
        self._modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
        self._lock = threading.Lock()
        self._lines: dict[str, list[str]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"capture {endpoint}", daemon=True)
        self._thread.start()

    def offer(self, variant: str, headers: dict[str, str], body: bytes, answer_type: str, answer: bytes) -> None:
        """Capture this successful invocation if the sample takes it."""
        if random.random() * 100 >= self._config["InitialSamplingPercentage"]:  # noqa: S311  # a sample, no secret
            return
        data: Document = {}
        if self._modes & {"Input", "InputAndOutput"}:
            data["endpointInput"] = self._part("INPUT", headers.get("content-type", ""), body)
        if self._modes & {"Output", "InputAndOutput"}:
            data["endpointOutput"] = self._part("OUTPUT", answer_type, answer)
        metadata = {"eventId": str(uuid.uuid4()), "inferenceTime": f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"}
        if inference := headers.get("x-amzn-sagemaker-inference-id"):
            metadata["inferenceId"] = inference
        line = json.dumps({"captureData": data, "eventMetadata": metadata, "eventVersion": "0"})
        with self._lock:
            self._lines.setdefault(variant, []).append(line)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)

    def _part(self, mode: str, content_type: str, content: bytes) -> Document:
        treated = self._config.get("CaptureContentTypeHeader") or {}
        kind = content_type.partition(";")[0].strip()
        encoding = "BASE64"
        for name, member in (("CSV", "CsvContentTypes"), ("JSON", "JsonContentTypes")):
            encoding = name if kind in (treated.get(member) or []) else encoding
        data = base64.b64encode(content) if encoding == "BASE64" else content
        return {
            "observedContentType": content_type,
            "mode": mode,
            "data": data.decode(errors="replace"),
            "encoding": encoding,
        }

    def _run(self) -> None:
        over = False
        while not over:
            over = self._stopping.wait(max(FLUSH_SECONDS / self._cloud.time_scale, LEAST_FLUSH_SECONDS))
            with self._lock:
                lines, self._lines = self._lines, {}
            for variant, captured in lines.items():
                try:
                    self._write(variant, captured)
                except Exception as error:
                    log.error("endpoint %s: captured data could not be written: %s", self._endpoint, error)

    def _write(self, variant: str, lines: list[str]) -> None:
        bucket, prefix = location(self._config["DestinationS3Uri"].rstrip("/"))
        now = dt.datetime.now(dt.UTC)
        name = f"{now:%M-%S}-{now.microsecond // 1000:03}-{uuid.uuid4()}.jsonl"
        s3 = self._cloud.client(
            "s3", role=self._role, by=SAGEMAKER, account=self._caller.account, region=self._caller.region
        )
        key = self._config.get("KmsKeyId")
        s3.put_object(
            Bucket=bucket,
            Key=f"{prefix}/{self._endpoint}/{variant}/{now:%Y/%m/%d/%H}/{name}",
            Body="".join(f"{line}\n" for line in lines).encode(),
            **({"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}),
        )
