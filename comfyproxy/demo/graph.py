"""Of a workflow before it runs: whether it is valid, in which order its nodes run, what is equal.

The errors are ComfyUI's own (execution.py, validate_prompt), word for word where clients and pages show them.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyproxy.demo.files import Files
from comfyproxy.demo.nodes import Input, Node
from comfyproxy.demo.queue import Graph

Reason = dict[str, Any]

_CONVERSIONS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass(frozen=True, slots=True)
class Verdict:
    """``outputs`` are the output nodes that can run; without any, ``error`` says why."""

    outputs: tuple[str, ...] = ()
    error: Mapping[str, Any] | None = None
    node_errors: Mapping[str, Any] = field(default_factory=dict)


def validate(
    graph: Graph, nodes: Mapping[str, type[Node]], files: Files, targets: Iterable[str] | None = None
) -> Verdict:
    """Check a workflow, and convert its numbers in place as ComfyUI does.

    ``targets`` (`partial_execution_targets`) narrows the outputs down. An output that is invalid is left out
    as long as another one is valid.
    """
    wanted = None if targets is None else set(targets)
    outputs: list[str] = []
    for node_id, node in graph.items():
        node_class = nodes.get(node.get("class_type", ""))
        if node_class is None:
            return Verdict(error=_missing_class(node_id, node))
        if node_class.is_output and (wanted is None or node_id in wanted):
            outputs.append(node_id)
    if not outputs:
        return Verdict(error=_error("prompt_no_outputs", "Prompt has no outputs"))
    return _Validation(graph, nodes, files).verdict(outputs)


def execution_order(graph: Graph, outputs: Iterable[str], done: Iterable[str] = ()) -> list[str]:
    """The nodes to run, each after what it needs; ``done`` ones are left out, unless they are outputs."""
    finished = set(done)
    order: list[str] = []
    pending = [(node_id, False) for node_id in reversed(list(outputs))]
    while pending:
        node_id, inputs_done = pending.pop()
        if node_id in order:
            continue
        if inputs_done or node_id in finished:
            order.append(node_id)
            continue
        pending.append((node_id, True))
        pending += [
            (source, False) for source in reversed(_sources(graph, node_id)) if source not in finished
        ]
    return order


def signatures(
    graph: Graph, nodes: Mapping[str, type[Node]], files: Files, outputs: Iterable[str]
) -> dict[str, str]:
    """Per node that ``outputs`` need, a digest of all that its result depends on."""
    known: dict[str, str] = {}
    for node_id in execution_order(graph, outputs):
        node = graph[node_id]
        values = [
            (name, (known[value[0]], value[1]) if isinstance(value, list) else value)
            for name, value in sorted(node["inputs"].items())
        ]
        changed = nodes[node["class_type"]].fingerprint(node["inputs"], files)
        text = repr((node["class_type"], changed, values))
        known[node_id] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return known


class _Validation:
    """One pass over a workflow; every node is judged once, however many outputs need it."""

    def __init__(self, graph: Graph, nodes: Mapping[str, type[Node]], files: Files) -> None:
        self._graph = graph
        self._nodes = nodes
        self._files = files
        self._reasons: dict[str, list[Reason]] = {}
        self._valid: dict[str, bool] = {}

    def verdict(self, outputs: Iterable[str]) -> Verdict:
        good: list[str] = []
        details: list[str] = []
        node_errors: dict[str, dict[str, Any]] = {}
        for output in outputs:
            if self._check_output(output):
                good.append(output)
                continue
            details += [f"{reason['message']}: {reason['details']}" for reason in self._reasons[output]]
            for node_id, reasons in self._reasons.items():
                if reasons:
                    class_type = self._graph[node_id]["class_type"]
                    entry = {"errors": reasons, "dependent_outputs": [], "class_type": class_type}
                    node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
        if good:
            return Verdict(tuple(good), node_errors=node_errors)
        error = _error(
            "prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(details)
        )
        return Verdict(error=error, node_errors=node_errors)

    def _check_output(self, output: str) -> bool:
        try:
            return self._check(output, [])
        except (AttributeError, LookupError, TypeError) as error:
            extra = {"exception_type": type(error).__qualname__, "traceback": []}
            reason = _error(
                "exception_during_validation", "Exception when validating node", str(error), extra
            )
            self._reasons[output] = [reason]
            self._valid[output] = False
            return False

    def _check(self, node_id: str, path: list[str]) -> bool:
        if node_id in self._valid:
            return self._valid[node_id]
        if node_id in path:
            self._reject_cycle([*path[path.index(node_id) :], node_id])
            return False
        node = self._graph[node_id]
        inputs = node["inputs"]
        node_class = self._nodes[node["class_type"]]
        reasons: list[Reason] = []
        inner_valid = True
        for name, given in node_class.inputs.items():
            if isinstance(inputs.get(name), list):
                reason, valid = self._check_link(name, given, inputs[name], [*path, node_id])
                inner_valid &= valid
            else:
                reason = _check_value(name, given, inputs)
            if reason:
                reasons.append(reason)
        if not reasons and inner_valid and (objection := node_class.objection(inputs, self._files)):
            name, why = objection
            reasons.append(
                _reason("custom_validation_failed", "Custom validation failed for node", why, name)
            )
        self._reasons.setdefault(node_id, []).extend(reasons)
        self._valid[node_id] = inner_valid and not self._reasons[node_id]
        return self._valid[node_id]

    def _check_link(
        self, name: str, given: Input, link: list[Any], path: list[str]
    ) -> tuple[Reason | None, bool]:
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return _reason(
                "bad_linked_input", message, name, name, **_config(given), received_value=link
            ), True
        source, slot = link
        source_class = self._nodes[self._graph[source]["class_type"]]
        received = source_class.outputs[slot]
        if received != given.type:
            details = f"{name}, received_type({received}) mismatch input_type({given.type})"
            message = "Return type mismatch between linked nodes"
            extra = {**_config(given), "received_type": received, "linked_node": link}
            return _reason("return_type_mismatch", message, details, name, **extra), True
        return None, self._check(source, path)

    def _reject_cycle(self, cycle: list[str]) -> None:
        shown = " -> ".join(f"{node_id} ({self._graph[node_id]['class_type']})" for node_id in cycle)
        for node_id in dict.fromkeys(cycle):
            extra = {"node_id": node_id, "cycle_nodes": cycle}
            reason = _error("dependency_cycle", "Dependency cycle detected", shown, extra)
            self._reasons.setdefault(node_id, []).append(reason)


def _check_value(name: str, given: Input, inputs: dict[str, Any]) -> Reason | None:
    if name not in inputs:
        if given.required:
            return _reason("required_input_missing", "Required input is missing", name, name)
        return None
    value = inputs[name]
    if convert := _CONVERSIONS.get(given.type):
        try:
            value = inputs[name] = convert(value)
        except (TypeError, ValueError) as error:
            message = f"Failed to convert an input value to a {given.type} value"
            details = f"{name}, {value}, {error}"
            extra = {**_config(given), "received_value": value, "exception_message": str(error)}
            return _reason("invalid_input_type", message, details, name, **extra)
    smallest, biggest = given.options.get("min"), given.options.get("max")
    if smallest is not None and value < smallest:
        message = f"Value {value} smaller than min of {smallest}"
        return _reason("value_smaller_than_min", message, name, name, **_config(given), received_value=value)
    if biggest is not None and value > biggest:
        message = f"Value {value} bigger than max of {biggest}"
        return _reason("value_bigger_than_max", message, name, name, **_config(given), received_value=value)
    return None


def _config(given: Input) -> dict[str, Any]:
    return {"input_config": [given.type, dict(given.options)]}


def _sources(graph: Graph, node_id: str) -> list[str]:
    return [value[0] for value in graph[node_id]["inputs"].values() if isinstance(value, list)]


def _missing_class(node_id: str, node: Mapping[str, Any]) -> Reason:
    class_type = node.get("class_type")
    title = node.get("_meta", {}).get("title")
    if class_type is None:
        shown = title or f"ID #{node_id}"
        message = (
            f"Node '{shown}' has no class_type. The workflow may be corrupted or a custom node is missing."
        )
    else:
        title = title or class_type
        message = f"Node '{title}' not found. The custom node may not be installed."
    extra = {"node_id": node_id, "class_type": class_type, "node_title": title}
    return _error("missing_node_type", message, f"Node ID '#{node_id}'", extra)


def _error(kind: str, message: str, details: str = "", extra: Mapping[str, Any] | None = None) -> Reason:
    return {"type": kind, "message": message, "details": details, "extra_info": dict(extra or {})}


def _reason(kind: str, message: str, details: str, input_name: str, **extra: Any) -> Reason:
    return _error(kind, message, details, {"input_name": input_name, **extra})
