"""A fuzzer that asks a server whatever its description allows, and what it does not allow.

    python -m tests.support.fuzz URL TOKEN EXAMPLES JOB …

It ends with code 1 where an answer is a fault of the server, or is not what is described. In a
process of its own: pytest would rewrite, and compile, all of its modules at each run.
"""

import sys
from typing import Any, Final
from urllib.request import urlopen

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec import json
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks as promised

from tests.support.effort import TORTURE

_PATIENCE_S: Final = 30
_CHECKS: Final = (
    schemathesis.checks.not_a_server_error,
    promised.status_code_conformance,
    promised.content_type_conformance,
    promised.response_headers_conformance,
    promised.response_schema_conformance,
)


def main(url: str, token: str, examples: int, job_ids: list[str]) -> None:
    with urlopen(f"{url}/openapi.json") as response:
        schema = schemathesis.openapi.from_dict(json.decode(response.read()))
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            if mode.is_positive or _may_be_wrong(operation):
                # By one path all methods are called.
                count = examples * (5 if operation.path == "/" else 1)
                statuses = _statuses(operation, mode, url, token, count, job_ids)
                print(operation.label, mode.value, *sorted(statuses))


def _may_be_wrong(operation: Any) -> bool:
    """Whether anything is said of what is sent: a bundle is any bytes."""
    return bool(operation.query) or any(
        each.media_type == "application/json" for each in operation.body
    )


def _statuses(
    operation: Any, mode: Any, url: str, token: str, examples: int, job_ids: list[str]
) -> set[int]:
    """How requests were answered. A path tells by its status what is wrong with what was sent."""
    asked: set[int] = set()
    checks = list(_CHECKS)
    if operation.method.upper() == "GET":
        checks.append(promised.negative_data_rejection)

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=not TORTURE,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=operation.as_strategy(generation_mode=mode),
        job_id=st.sampled_from([None, *job_ids]),
        has_token=st.booleans(),
    )
    def ask(case: Any, job_id: str | None, has_token: bool) -> None:
        if mode.is_positive and job_id is not None:
            _name_job(case, job_id)
        headers = {"Authorization": f"Bearer {token}"} if has_token else {}
        response = case.call(base_url=url, headers=headers, timeout=_PATIENCE_S)
        asked.add(response.status_code)
        case.validate_response(response, checks=checks)

    ask()
    return asked


def _name_job(case: Any, job_id: str) -> None:
    """Let a request that was drawn be about a job that there is."""
    if isinstance(case.query, dict) and "job_id" in case.query:
        case.query["job_id"] = job_id
    for call in case.body if isinstance(case.body, list) else [case.body]:
        params = call.get("params") if isinstance(call, dict) else None
        if isinstance(params, dict) and "job_id" in params:
            params["job_id"] = job_id


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
