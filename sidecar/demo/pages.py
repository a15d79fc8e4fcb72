"""What lists are made of: parameters, each checked and refused in Stripe's words, and pages cut at cursors."""

import re
from collections.abc import Callable, Iterable, Mapping

from sidecar.demo.faults import Json, Refusal
from sidecar.demo.operations import CURSORS, Operation

Params = Mapping[str, str]
Pairs = Iterable[tuple[str, str]]


def checked(pairs: Pairs, operation: Operation) -> Params:
    """Refuse what the operation does not know; of `types[]=a&types[]=b` make `types[0]` and `types[1]`."""
    params: dict[str, str] = {}
    for name, value in pairs:
        plain = name.partition("[")[0]  # of expand[], expand[0], metadata[colour]
        if plain not in operation.parameters | {"expand"}:
            raise unknown(name)
        if not value and plain != "metadata":
            raise Refusal(400, f"You passed an empty string for '{name}'.", "parameter_invalid_empty", name)
        if plain == "expand" and value != operation.expandable:
            raise Refusal(400, f"This property cannot be expanded ({value}).")
        numbered = f"{plain}[{len(params)}]" if name.endswith("[]") else name
        params["expand" if plain == "expand" else numbered] = value
    return params


def unknown(name: str) -> Refusal:
    return Refusal(400, f"Received unknown parameter: {name}", "parameter_unknown", name)


def required(params: Params, name: str) -> str:
    if name not in params:
        raise Refusal(400, f"Missing required param: {name}.", "parameter_missing", name)
    return params[name]


def check_exclusive(names: Iterable[str]) -> None:
    if len(used := list(names)) > 1:
        raise Refusal(400, f"You can only specify one of these parameters: {', '.join(used)}.", "parameters_exclusive")


def integer(params: Params, name: str, default: int = 0) -> int:
    text = params.get(name, str(default))
    if not re.fullmatch("-?[0-9]{1,18}", text):
        raise Refusal(400, f"Invalid integer: {text}", "parameter_invalid_integer", name)
    return int(text)


def is_true(params: Params, name: str) -> bool:
    if params.get(name, "false") not in ("true", "false"):
        raise Refusal(400, f"Invalid boolean: {params[name]}", param=name)
    return params.get(name) == "true"


def found(kind: str, known: Mapping[str, Json], id_: str) -> Json:
    if id_ not in known:
        raise Refusal(404, f"No such {kind}: '{id_}'", "resource_missing", "id")
    return known[id_]


def every(_: Json) -> bool:
    return True


def page(
    url: str, kind: str, known: Mapping[str, Json], params: Params, matches: Callable[[Json], bool] = every
) -> Json:
    """
    Cut a page, newest first, from what matches among objects that are kept oldest first.

    A cursor may be any known object, whether it matches or not; before it, the page is the one nearest to it.
    """
    ids, limit = list(known)[::-1], _limit(params)
    used = [cursor for cursor in CURSORS if cursor in params]
    check_exclusive(used)
    for cursor in used:
        if params[cursor] not in known:
            raise Refusal(400, f"No such {kind}: '{params[cursor]}'", "resource_missing", cursor)
        place = ids.index(params[cursor])
        ids = ids[place + 1 :] if cursor == "starting_after" else ids[:place]
    there = [known[id_] for id_ in ids if matches(known[id_])]
    data = there[-limit:] if used == ["ending_before"] else there[:limit]
    return {"object": "list", "data": data, "has_more": len(there) > limit, "url": url}


def _limit(params: Params) -> int:
    limit = integer(params, "limit", 10)
    if not 1 <= limit <= 100:
        bound = "greater than or equal to 1" if limit < 1 else "less than or equal to 100"
        message = f"This value must be {bound} (it currently is '{limit}')."
        raise Refusal(400, message, "parameter_invalid_integer", "limit")
    return limit
