"""After a release: autoscaling resumed where it was paused, and models and endpoint configs that nothing uses deleted.

A replaced model or config is retained, since after a silent rollback it is what is live. What was made before this
release began, and is neither live nor was live before it, is a leftover: no other update ran at the same time.
"""

from __future__ import annotations

from stacks.deployment import Deployment
from stacks.release_marks import MARK, marked
from stacks.release_rollout import RESUME
from stacks.release_shadow import DUE
from stacks.release_steps import DONE, SETTLE, TRIED_HERE, call, choice, otherwise, remember, when
from stacks.states import State, expression

OLDEST = 100
"""How many are looked at after each release, the oldest first."""
KINDS = (("endpoint config", "EndpointConfig", "$endpoint.config, $before.config"),
         ("model", "Model", "$model, $before.model"))  # fmt: skip
"""What is looked for, as what SageMaker lists it, and which of them are in use."""
# While a version is released there is no shadow, so that each model of one is left over.
SHADOW_MODELS = ("shadow model", "Model", "''")


def leftovers(deployment: Deployment) -> dict[str, State]:
    """From an endpoint that runs a tried version to the execution's end; what can't be deleted is left for later."""
    end = marked(deployment, MARK, DUE if deployment.shadows else DONE)
    kinds = [*(KINDS if deployment.has_endpoint else KINDS[1:]), *([SHADOW_MODELS] if deployment.shadows else [])]
    states = {SETTLE: choice(
        *([when("$paused", RESUME)] if deployment.scales else []),
        when(TRIED_HERE, _list(kinds[0][0])), otherwise(end))}  # fmt: skip
    for (kind, name, used), then in zip(kinds, [*(_list(kind) for kind, *_ in kinds[1:]), end], strict=True):
        states |= _delete_all(deployment, kind, name, used, then)
    return states


def _list(kind: str) -> str:
    return f"List each {kind} of this endpoint"


def _delete_all(deployment: Deployment, kind: str, name: str, used: str, then: str) -> dict[str, State]:
    prefix = f"{deployment.generated_name('-'.join(kind.split()))}-"
    query = {"NameContains": prefix, "SortBy": "CreationTime", "SortOrder": "Ascending", "MaxResults": OLDEST}
    unused = f"""[$states.result.{name}s[$substring({name}Name, 0, {len(prefix)}) = '{prefix}'
        and $toMillis(CreationTime) < $toMillis($began)
        and $not({name}Name in [{used}])].{name}Name]"""
    left, delete, skip = f"Is a {kind} left over?", f"Delete the {kind}", f"Go on to the next {kind}"
    others = expression("[$filter($leftovers, function($name, $index) { $index > 0 })]")
    return {
        _list(kind): call(f"sagemaker:list{name}s", query, left, assign={"leftovers": expression(unused)}, catch=then),
        left: choice(when("$count($leftovers) > 0", delete), otherwise(then)),
        delete: call(f"sagemaker:delete{name}", {f"{name}Name": expression("$leftovers[0]")}, skip, catch=skip,
                     patient=False),
        skip: remember(left, leftovers=others),
    }  # fmt: skip
