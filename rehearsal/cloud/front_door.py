"""Our services at ministack's front door: it has read and signed the request in, we route, authorize and answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlencode

from ministack import app as ministack
from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id, get_region
from ministack.core.router import extract_access_key_id

from rehearsal.cloud import implied_checks, roles
from rehearsal.service import Caller, Params, Response, Service, ServiceError, model

log = logging.getLogger("rehearsal")
Headers = dict[str, str]
Dispatch = Callable[..., Awaitable[Response]]


class FrontDoor:
    """Takes the requests that are for one of `services`; every other request goes on to ministack."""

    def __init__(self, services: list[Service]) -> None:
        self._services = services
        self._targets = {model(s.name).metadata["targetPrefix"]: s for s in services if _protocol(s) == "json"}
        self._rest = {signing_name(s): s for s in services if _protocol(s) != "json"}
        self._routes = {prefix: route for s in services for prefix, route in s.http_routes().items()}
        self._elsewhere: Dispatch = ministack._dispatch_service_request

    def install(self) -> None:
        ministack._dispatch_service_request = self.dispatch

    async def dispatch(
        self, method: str, path: str, headers: Headers, body: bytes, query: Mapping[str, list[str]], request_id: str
    ) -> Response:
        route = next((route for prefix, route in self._routes.items() if path.startswith(prefix)), None)
        if route is not None:
            return await asyncio.to_thread(route, method, path, urlencode(query, doseq=True), headers, body)
        service = self._service(headers)
        if service is not None:
            answer = await self._answer(service, method, path, headers, body, query, request_id)
            if answer is not None:
                status, sent, content = answer
                return status, {**sent, "x-amzn-RequestId": request_id}, content
        if refused := _refused_role(method, path, headers, body, query, request_id):
            return refused
        return await self._elsewhere(method, path, headers, body, query, request_id)

    def _service(self, headers: Headers) -> Service | None:
        if target := headers.get("x-amz-target"):
            return self._targets.get(target.rpartition(".")[0])
        scope = headers.get("authorization", "").partition("Credential=")[2].split("/")
        return self._rest.get(scope[3]) if len(scope) > 4 else None

    async def _answer(
        self,
        service: Service,
        method: str,
        path: str,
        headers: Headers,
        body: bytes,
        query: Mapping[str, list[str]],
        request_id: str,
    ) -> Response | None:
        try:
            asked = f"{path}?{urlencode(query, doseq=True)}" if query else path
            operation, params = service.parse(method, asked, headers, body)
            if service.falls_through and not service.runs(operation):
                return None
            access_key = extract_access_key_id(headers, query)
            if failure := iam_evaluator.check_credentials(access_key, service.name):
                failed: Response = ministack._credential_failure(service.name, operation, request_id, failure, headers)
                return failed
            return await _run(service, operation, params, _caller(access_key, headers))
        except ServiceError as error:
            return service.respond_error(error)


async def _run(service: Service, operation: str, params: Params, caller: Caller) -> Response:
    try:
        if service.runs(operation):
            service.check(operation, params)
            authorize(service, operation, params, caller)
        result = await asyncio.to_thread(service.call, operation, params, caller)
        return service.respond(operation, result)
    except ServiceError:
        raise
    except Exception as error:
        log.exception("%s:%s failed", service.name, operation)
        raise ServiceError("InternalFailure", f"{type(error).__name__}: {error}", 500) from error


def _refused_role(
    method: str, path: str, headers: Headers, body: bytes, query: Mapping[str, list[str]], request_id: str
) -> Response | None:
    """ministack's own services do not ask whether the caller may pass the role that it gives them."""
    params = ministack._routing_params(method, path, headers, body, query)
    service = ministack.detect_service(method, path, headers, params)
    action = iam_actions.extract_iam_action(service, method, path, headers, body, params) or ""
    access_key = extract_access_key_id(headers, query)
    for permission in implied_checks.passed_roles(action, body):
        denied = implied_checks.check(access_key, permission)
        if isinstance(denied, iam_evaluator.AuthError):
            return ministack._credential_failure(service, action, request_id, denied, headers)  # type: ignore[no-any-return]
        if denied is not None:
            message = roles.denial(denied, permission).message
            refused: Response = iam_actions.access_denied_response(
                service, "iam:PassRole", denied.principal_arn, request_id, message=message, headers=headers
            )
            return refused
    return None


def authorize(service: Service, operation: str, params: Params, caller: Caller) -> None:
    """Every permission the operation needs, decided within the request; AccessDeniedException at the first refusal."""
    for permission in service.permissions(operation, params, caller):
        denied = iam_evaluator.enforce(
            caller.access_key,
            permission.action,
            permission.action.partition(":")[0],
            caller.region,
            permission.resource,
            dict(permission.context),
        )
        if denied is not None:
            raise roles.denial(denied, permission, 400 if _protocol(service) == "json" else 403)


def signing_name(service: Service) -> str:
    metadata = model(service.name).metadata
    return str(metadata.get("signingName") or metadata["endpointPrefix"])


def _protocol(service: Service) -> str:
    return str(model(service.name).metadata["protocol"])


def _caller(access_key: str, headers: Headers) -> Caller:
    return Caller(get_account_id(), get_region(), iam_evaluator.request_caller_arn(headers, {}), access_key)
