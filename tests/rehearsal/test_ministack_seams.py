"""The embedded AWS's seams: what ministack 1.5.33 does by itself, and the symbols that the adapter replaces or calls.

Each test names a gap that `rehearsal/cloud/` closes (the file's own tests show that it does), or a symbol it counts on.
A new version of ministack that changes one of them fails here first; a gap that it closes can go from the adapter.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import re
import sys
from types import ModuleType
from typing import Any

import pytest

from rehearsal.cloud import functions
from rehearsal.cloud.persistence import LARGE

CALLED = {
    "app": [
        "_dispatch_service_request(method, path, headers, body, query_params, request_id)",
        "_credential_failure(service, iam_action, request_id, denied, headers)",
        "_routing_params(method, path, headers, body, query_params)",
        "detect_service(method, path, headers, query_params)",
        "_build_persistence_save_dict()",
        "app(scope, receive, send)",
    ],
    "core.iam_evaluator": [
        "enforce(access_key_id, iam_action, service, region, resource_arn, service_context)",
        "_first_match(ctx, stmts, effect)",
        "evaluate(ctx, policies, limits)",
        "check_credentials(access_key_id, service)",
        "request_caller_arn(headers, query_params)",
        "resolve_caller_identity(access_key_id)",
        "pin_request_origin(source_ip, secure_transport)",
        "_service_principal_matches(principal, service)",
        "_principal_matches(principal, caller_arn)",
        "_action_matches(request_action, actions, not_actions)",
        "_resource_matches(resource_arn, resources, not_resources)",
        "_conditions_met(conditions, ctx)",
        "_is_root_key(access_key_id)",
        "_resolve_managed_policy_document(policy_arn, account_id)",
    ],
    "core.iam_actions": [
        "extract_iam_action(service, method, path, headers, body, query_params)",
        "extract_resource_arn(service, method, path, headers, body, query_params, region, account_id)",
        "request_tag_context(service, iam_action, body, params)",
        "identity_denial_message(action, principal_arn, resource, explicit_deny)",
    ],
    "core.responses": ["request_scope(account_id, region)", "get_account_id()", "get_region()"],
    "core.persistence": ["_state_format_version(service)", "_json_default(obj)"],
    "core.lambda_runtime": ["_detect_runtime_binary(runtime)", "execution_credentials(config)"],
    "services.sts": ["register_session(access_key, session)"],
    "services.s3": [
        "_bucket_default_sse_headers(bucket_name)",
        "_put_bucket_encryption(name, body)",
        "_delete_bucket_encryption(name)",
        "_fire_s3_event_async(bucket_name, key, event_name, size, etag, deletion_type, version_id, object_extra,"
        " record_extra)",
        "_fire_s3_event(bucket_name, key, event_name, size, etag, deletion_type, restore_event_data, version_id,"
        " sequencer, object_extra, record_extra)",
        "_next_event_sequencer(event_name)",
    ],
    "services.lambda_svc": [
        "invoke_async_with_retry(func, event)",
        "_execute_function(func, event)",
        "_get_func_record_for_ref(function_ref)",
        "_execution_record_for_config(func, config)",
        "_route_async_failure(target_arn, func_name, event, result)",
    ],
    "services.eventbridge": [
        "_put_events(data, allow_aws_source)",
        "_invoke_target(target, event, rule, view)",
        "_tick_scheduled_rules()",
        "_dispatch_to_lambda(arn, payload)",
        "_dispatch_to_sns(arn, payload)",
        "_dispatch_to_stepfunctions(arn, payload)",
        "_dispatch_to_sqs(spec, payload, sqs_parameters)",
        "_dispatch_to_api_destination(spec, payload, target)",
        "_pattern_event_view(event)",
        "_parse_rate_seconds(expr)",
        "_parse_cron_fields(expr)",
        "_cron_next_fire(fields, after_dt)",
    ],
    "services.stepfunctions": [
        "_run_execution(exec_arn)",
        "_invoke_resource(resource, input_data)",
        "_call_lambda(func_ref, event)",
        "_invoke_resource_with_timeout(resource, input_data, timeout)",
        "_invoke_activity(resource, input_data)",
        "_apply_state_assign(state_def, raw_input, ctx, result, error_output)",
        "_apply_output_path(state_def, data, ctx)",
        "_apply_jsonata_output(state_def, raw_input, ctx, result, error_output, default)",
        "_apply_jsonata_template(value, raw_input, ctx, result, error_output)",
        "_error_matches(error_equals, error)",
        "_state_query_language(state_def, ctx)",
        "_fail_execution(execution, error, cause)",
        "_run_parallel_branches(state_def, raw_input, execution, ctx)",
        "_apply_jsonata_arguments(state_def, raw_input, ctx)",
        "_emit_execution_status_event(execution)",
        "_add_event(execution, event_type, details)",
    ],
    "services.cloudwatch": [
        "_evaluate_alarm(alarm)",
        "_evict_old_metrics()",
        "_dispatch_alarm_actions(alarm, old_state, new_state, reason)",
        "_put_metric_alarm(params, cbor_data, is_cbor, is_json)",
        "_describe_alarms_for_metric(params, cbor_data, is_cbor, is_json)",
        "_evaluate_parent_alarms(child, seen)",
        "_record_history(alarm_name, old_state, new_state, reason, alarm_type, reason_data)",
        "_dims_key(dims)",
        "_dims_from_list(dimensions)",
        "_json_ok(data)",
        "_error(code, message, status, use_json, use_cbor)",
        "cloudformation_put_metric_alarm(alarm)",
    ],
    "services.cloudformation.stacks": [
        "_runs_on_worker_thread(resource_type)",
        "_delete_stack_async(stack_name, stack_id, retain_resources, force)",
        "_roll_back_operation(stack_name, stack_id, stack, operation, reason_override)",
        "_add_event(stack_id, stack_name, logical_id, resource_type, status, reason, physical_id, detailed_status)",
    ],
    "services.cloudformation.provisioners": ["_property_recreation(resource_type, name)"],
    "services.cloudformation.handlers": ["_resolve_stack(stack_name)"],
    "services.cloudformation.helpers": ["_error(code, message, status)"],
    "services.cloudformation.engine": [
        "_evaluate_conditions(template, params)",
        "_resolve_refs(value, resources, params, conditions, mappings, stack_name, stack_id)",
    ],
}
HELD = {
    "services.iam": ["_roles"],
    "services.sts": ["_sessions"],
    "services.s3": ["_bucket_notifications"],
    "services.sns": ["_topics"],
    "services.cloudwatch": ["_alarms", "_metrics"],
    "services.cloudformation": ["_stacks"],
    "services.cloudformation.handlers": ["_ACTION_HANDLERS"],
    "services.cloudformation.provisioners": ["_RESOURCE_HANDLERS", "_S3_BUCKET_CONFIGURATIONS"],
    "services.eventbridge": ["_rules", "_targets", "_SCHEDULER_TICK_INTERVAL"],
    "services.stepfunctions": ["_executions", "_state_machines", "_SERVICE_DISPATCH", "_SFN_WAIT_SCALE"],
    "core.persistence": ["STATE_DIR"],
    "app": ["_MAIN_LOOP", "save_all"],
}


def module(name: str) -> ModuleType:
    return importlib.import_module(f"ministack.{name}")


@pytest.mark.parametrize(("name", "signature"), [(name, s) for name, all_of in CALLED.items() for s in all_of])
def test_a_function_that_we_call_or_replace_takes_what_we_give_it(name: str, signature: str) -> None:
    function, _, parameters = signature.rstrip(")").partition("(")
    taken = inspect.signature(getattr(module(name), function)).parameters
    assert list(taken) == [parameter for parameter in parameters.split(", ") if parameter]


@pytest.mark.parametrize(("name", "held"), [(name, held) for name, all_of in HELD.items() for held in all_of])
def test_a_store_that_we_read_is_there(name: str, held: str) -> None:
    assert hasattr(module(name), held)


def test_buckets_and_topics_of_templates_would_have_no_key() -> None:
    provisioners = module("services.cloudformation.provisioners")
    assert "BucketEncryption" not in {row[0] for row in provisioners._S3_BUCKET_CONFIGURATIONS}
    assert "KmsMasterKeyId" not in inspect.getsource(provisioners._sns_create)


def test_the_version_is_the_one_that_was_read() -> None:
    assert importlib.metadata.version("ministack") == "1.5.33"


def test_services_without_a_namespace_would_be_allowed_silently() -> None:
    actions = module("core.iam_actions")
    for service in ("codecommit", "codepipeline", "sagemaker"):
        headers = {"x-amz-target": f"{service}.Anything"}
        assert actions.extract_iam_action(service, "POST", "/", headers, b"{}", {}) is None


def test_the_account_root_could_assume_every_role_of_a_service() -> None:
    trust = {
        "Statement": {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "glue.amazonaws.com"}}
    }
    evaluator = module("core.iam_evaluator")
    assert evaluator.evaluate_trust_policy(trust, "arn:aws:iam::000000000000:root")
    assert not evaluator.evaluate_trust_policy(trust, "glue.amazonaws.com")


def test_rules_of_the_default_bus_have_the_wrong_arn() -> None:
    extract = module("core.iam_actions").extract_resource_arn
    found = extract("events", "POST", "/", {}, json.dumps({"Name": "r"}).encode(), {}, "us-east-1", "1")
    assert found == "arn:aws:events:us-east-1:1:rule/default/r"  # AWS: rule/r
    assert extract("events", "POST", "/", {}, json.dumps({"Rule": "r"}).encode(), {}, "us-east-1", "1") == "*"
    assert extract("ssm", "POST", "/", {}, json.dumps({"Path": "/p"}).encode(), {}, "us-east-1", "1") == "*"


def test_tasks_would_not_know_sagemaker_and_act_as_root() -> None:
    states = module("services.stepfunctions")
    assert not {"sagemaker", "cloudformation", "codepipeline", "scheduler"} & set(states._AWS_SDK_SERVICE_MAP)
    assert "Credential=test/" in inspect.getsource(states._dispatch_aws_sdk_json)


def test_a_glue_run_would_succeed_without_running() -> None:
    assert "SUCCEEDED" in inspect.getsource(module("services.glue")._start_job_run)


def test_a_stacks_role_would_be_ignored() -> None:
    assert "RoleARN" not in inspect.getsource(module("services.cloudformation.handlers")._update_stack)


def test_a_change_set_would_begin_beside_a_running_update() -> None:
    create = module("services.cloudformation.changesets")._create_change_set
    assert "UPDATE_IN_PROGRESS" not in inspect.getsource(create)


def test_our_types_would_be_made_on_the_event_loop() -> None:
    assert not module("services.cloudformation.stacks")._runs_on_worker_thread("AWS::SageMaker::Endpoint")


def test_the_resource_whose_own_update_failed_is_not_sent_back() -> None:
    assert not module("services.cloudformation.stacks")._sends_back_failed_update("AWS::SageMaker::Endpoint")


def test_a_join_in_a_condition_would_be_compared_unresolved() -> None:
    condition = {"Fn::Equals": ["", {"Fn::Join": ["", {"Ref": "P"}]}]}
    found = module("services.cloudformation.engine")._evaluate_conditions(
        {"Conditions": {"Empty": condition}}, {"P": {"Value": "", "NoEcho": False}}
    )
    assert found == {"Empty": False}  # AWS: true


def test_stack_status_changes_are_no_events() -> None:
    assert "_put_events" not in inspect.getsource(module("services.cloudformation.stacks"))


def test_assignments_would_see_their_neighbours() -> None:
    states, ctx = _plain("services.stepfunctions"), {"QueryLanguage": "JSONata", "variables": {"a": 1}}
    states._apply_state_assign({"Assign": {"a": 2, "b": "{% $a %}"}}, {}, ctx)
    assert ctx["variables"] == {"a": 2, "b": 2}  # AWS: b is 1


def test_a_pipeline_target_would_be_dropped() -> None:
    source = inspect.getsource(_plain("services.eventbridge")._invoke_target)
    assert "codepipeline" not in source
    assert "RoleArn" not in source


def test_functions_would_run_on_this_interpreter() -> None:
    assert _plain("core.lambda_runtime")._detect_runtime_binary("python3.11")[0] == sys.executable


def test_what_a_function_prints_would_be_waited_for_a_moment_only() -> None:
    """`rehearsal/cloud/functions.py` has the worker print an end before each answer, and reads up to it."""
    runtime = _plain("core.lambda_runtime")
    assert inspect.signature(runtime.Worker._drain_stderr_bounded).parameters["first_line_wait"].default == 0.050
    assert runtime._PYTHON_WORKER_SCRIPT.count(functions._ANSWER) == 2
    assert runtime._worker_class_for({"Runtime": "python3.11"}) is runtime.Worker
    assert "target=self._read_stderr" in inspect.getsource(runtime.Worker._spawn)
    invoke = inspect.getsource(runtime.Worker.invoke)
    assert invoke.count("self._drain_stderr()") == invoke.count("self._drain_stderr_bounded()") == 1


def test_state_would_be_saved_at_shutdown_only_and_schedules_never() -> None:
    assert inspect.getsource(module("app")).count("save_all(") == 1
    assert "_rule_last_fired" not in inspect.getsource(module("services.eventbridge").get_state)


@pytest.mark.parametrize("name", LARGE)
def test_states_that_are_saved_without_a_copy_are_not_changed_on_the_way(name: str) -> None:
    _, _, body = inspect.getsource(module(f"services.{name}").get_state).partition("\n")
    each = r'"\w+": copy\.deepcopy\(\w+\),\s*'
    stores = r"key: copy\.deepcopy\(store\(\)\) for store, key in _PERSISTED_STORES"
    assert re.fullmatch(rf"    return \{{\s*(({each})+|{stores})\}}\s*", body)


def test_a_throttled_event_would_be_given_up_after_two_tries() -> None:
    """`rehearsal/cloud/async_invocations.py` keeps it in a queue; of 1,000 objects 81 were lost before."""
    source = inspect.getsource(_plain("services.lambda_svc").invoke_async_with_retry)
    assert "throttle" not in source
    assert "threading.Thread(" in source


def test_every_object_event_would_be_a_thread() -> None:
    assert "threading.Thread(" in inspect.getsource(_plain("services.s3")._fire_s3_event_async)


def test_schedules_would_forget_that_they_fired() -> None:
    """The rehearsal's own Scheduler answers instead."""
    source = inspect.getsource(_plain("services.scheduler").get_state)
    assert "fired" not in source


def test_an_object_that_could_not_be_written_would_be_a_warning() -> None:
    assert 'logger.warning("Failed to persist S3 object' in inspect.getsource(_plain("services.s3")._persist_object)


def test_alarms_would_not_look_at_dimensions() -> None:
    """`rehearsal/cloud/alarms.py` evaluates them instead."""
    assert "Dimensions" not in inspect.getsource(module("services.cloudwatch")._evaluate_alarm)


def test_an_alarm_would_be_no_event() -> None:
    assert "eventbridge" not in inspect.getsource(module("services.cloudwatch")._dispatch_alarm_actions)


def _plain(name: str) -> Any:
    """The module as ministack ships it: the adapter is installed in daemons only, never in this process."""
    return module(name)
