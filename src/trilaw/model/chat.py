"""Chat templates: jinja2 text that comes with a model and turns a conversation into a prompt.

A template is code from outside, so it runs in jinja2's immutable sandbox with three more walls, because the sandbox alone stops
neither endless work nor huge allocations. Work: every turn of a loop, every call of a macro and every 512 characters that a
filter, a method, a slice or a comparison goes through count as a step, up to `MAX_STEPS`.
Size: operators, filters and methods that can make big values out of small ones are bounded or absent, and the output is cut off
at `MAX_CHARACTERS`. Reach: only the string, list and dict methods listed here.
The environment is otherwise that of transformers: trimmed blocks, loop controls, `raise_exception`, `strftime_now`, a `tojson`
that keeps Unicode, and the `generation` tag.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from trilaw.core.errors import ModelError, RequestError
from trilaw.core.types import Message

MAX_STEPS = 100_000
MAX_CHARACTERS = 4_000_000
MAX_SOURCE = 262_144  # characters of a template
MAX_NUMBER = 2**63

_STRING_METHODS = (
    "strip lstrip rstrip split rsplit splitlines partition rpartition startswith endswith removeprefix removesuffix lower"
    " upper title capitalize find rfind index count isdigit isalpha isalnum isspace islower isupper replace join"
)
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(_STRING_METHODS.split()),
    list: frozenset(("index", "count")),
    tuple: frozenset(("index", "count")),
    dict: frozenset(("get", "items", "keys", "values", "copy")),
    int: frozenset(),
    float: frozenset(),
    bytes: frozenset(),
}
_FILTERS = (
    "abs capitalize count d default dictsort e escape first float int items last length list lower map max min reject rejectattr"
    " reverse round safe select selectattr sort title trim unique upper"
)


class _TooMuch(Exception):
    """The template did more work, or made more text, than any honest one."""


class _Refusal(Exception):
    """The template called raise_exception: the conversation does not suit it."""


_work = threading.local()  # .left: the steps left to the template that this thread renders


def _charge(characters: int = 0) -> None:
    _work.left -= 1 + characters // 512
    if _work.left < 0:
        raise _TooMuch


def _size(value: Any) -> int:
    """An upper bound of the characters in str(value) or JSON. Raises _TooMuch past the limit, also for values nested into themselves."""
    total, stack = 0, [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            total += 12 * len(item) if item is not value else len(item)  # a character nested in a list may be escaped
        elif isinstance(item, Mapping):
            stack += [*item.keys(), *item.values()]
            total += 4 * len(item) + 2
        elif isinstance(item, (list, tuple)):
            stack += item
            total += 2 * len(item) + 2
        else:
            total += 32
        if total > MAX_CHARACTERS:
            raise _TooMuch
    _charge(total)
    return total


def _sized(value: Any) -> Any:
    if not isinstance(value, (str, int, float)):
        _size(value)
    return value


def _text(value: Any) -> str:
    _size(value)
    return str(value)


def _replace(text: str, old: str, new: str, count: int | None = None) -> str:
    text, old, new = _text(text), _text(old), _text(new)
    times = text.count(old) if count is None or count < 0 else min(count, text.count(old))
    if len(text) + times * len(new) > MAX_CHARACTERS:
        raise _TooMuch
    return text.replace(old, new, times)


def _join(values: Any, separator: str = "", attribute: str | None = None) -> str:
    rows = [row[attribute] if attribute is not None else row for row in values]
    if sum(_size(row) for row in rows) + len(separator) * len(rows) > MAX_CHARACTERS:
        raise _TooMuch
    return separator.join(map(str, rows))


def _indent(text: str, width: int = 4, first: bool = False, blank: bool = False) -> str:
    if not isinstance(width, int) or width > 64 or len(text) * 32 > MAX_CHARACTERS:
        raise _TooMuch
    return str(FILTERS["indent"](text, width, first, blank))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    _size(value)
    if indent is not None and not 0 <= indent <= 16:
        raise _TooMuch
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _charged(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)  # keeps jinja2's marks, by which some filters get the environment first
    def filtered(*args: Any, **kwargs: Any) -> Any:
        _charge(sum(len(a) for a in args if isinstance(a, (str, list, tuple, dict))))
        return function(*args, **kwargs)

    return filtered


def _raise_exception(message: str) -> NoReturn:
    raise _Refusal(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format[:200])


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` marks what an assistant said; for rendering it is no more than its content."""

    tags = {"generation"}  # noqa: RUF012  (jinja2's own interface)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _call(method: str, *arguments: nodes.Expr) -> nodes.Call:
    # An attribute of the environment: no name that a template sets can stand in its way.
    return nodes.Call(nodes.EnvironmentAttribute(method), list(arguments), [], None, None)


class _Counting(NodeTransformer):
    """Puts calls of the environment's counters into a template's syntax tree, where jinja2 has no hook of its own."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("step")))
        if node.test is not None:
            node.test = nodes.And(_call("step"), node.test)
        return node

    def visit_Macro(self, node: nodes.Macro | nodes.CallBlock) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("step")))
        return node

    visit_CallBlock = visit_Macro

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("concatenate", *node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _call("weigh", node.expr)
        for operand in node.ops:
            operand.expr = _call("weigh", operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _call("weigh", node.node)
        return node


class _Environment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox with counted steps and bounded values."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constant folding would compute `"a" * 10**9` while compiling
            finalize=_sized,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        bounded = {"replace": _replace, "join": _join, "indent": _indent, "tojson": _tojson, "string": _text}
        self.filters = {name: _charged(FILTERS[name]) for name in _FILTERS.split()} | bounded
        self.globals = {
            "range": self.globals["range"],
            "dict": dict,
            "namespace": self.globals["namespace"],
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    def step(self) -> bool:
        _charge()
        return True

    def weigh(self, value: Any) -> Any:
        _size(value)
        return value

    def concatenate(self, *values: Any) -> str:
        return _join(values)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = _Counting().visit(super()._parse(source, name, filename))
        assert isinstance(tree, nodes.Template)
        tree.set_environment(self)
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if operator == "**" or (operator == "%" and not numbers):
            raise SecurityError(f"the operator {operator} is not for templates here")
        if not numbers:
            sequences = [v for v in (left, right) if isinstance(v, (str, list, tuple))]
            times = next((v for v in (left, right) if isinstance(v, int)), 1) if operator == "*" else 1
            if sum(map(len, sequences)) * max(times, 1) > (MAX_CHARACTERS if isinstance(left, str) else MAX_STEPS):
                raise _TooMuch
        result = super().call_binop(context, operator, left, right)
        if numbers and abs(result) > MAX_NUMBER:
            raise _TooMuch
        return result

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, allowed in _METHODS.items():
            if isinstance(obj, kind):
                return attr in allowed
        return bool(super().is_safe_attribute(obj, attr, value))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        # The sandbox hands str.format out before it asks is_safe_attribute; a width in it can allocate any size.
        if getattr(value, "__name__", "") in ("format", "format_map") and isinstance(
            getattr(value, "__self__", None), str
        ):
            raise SecurityError("str.format is not for templates here")
        return None

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            _charge(len(owner))
            name = obj.__name__
            kwargs = {
                key: value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")
            }  # jinja2's own
            if name == "replace":
                return _replace(owner, *args, **kwargs)
            if name == "join":
                return _join(args[0], owner)
        return super().call(context, obj, *args, **kwargs)


@lru_cache(maxsize=32)
def _compiled(template: str) -> jinja2.Template:
    if len(template) > MAX_SOURCE:
        raise ModelError(
            f"The chat template has {len(template)} characters, more than {MAX_SOURCE}: use another template."
        )
    try:
        return _Environment().from_string(template)
    except jinja2.TemplateError as error:
        raise ModelError(f"The chat template is not valid: {_reason(error)}; mend chat_template.jinja.") from None
    except (RecursionError, SyntaxError, ValueError):
        raise ModelError("The chat template is nested too deep to be read; mend chat_template.jinja.") from None


def _reason(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    return (str(error).rstrip(".") or type(error).__name__)[:300] + (f" (line {line})" if line else "")


def render(
    template: str | None,
    messages: Sequence[Message],
    names: Mapping[str, str] | None = None,
    *,
    generation: bool = True,
    options: Mapping[str, Any] | None = None,
) -> str:
    """The prompt text. Without a template: the contents joined by newlines.

    names: special tokens by the names that templates use ("bos_token", ...). generation: end with the opening of an assistant's
    turn. options: further variables of the template. Raises ModelError for a template that fails, reaches out of the sandbox or
    does too much; RequestError with the template's own words if it refuses the conversation.
    """
    if template is None:
        return "\n".join(message["content"] for message in messages)
    compiled = _compiled(template)
    _work.left = MAX_STEPS
    variables = dict(options or {}) | dict(names or {})
    variables |= {
        "messages": [dict(m) for m in messages],
        "add_generation_prompt": generation,
        "tools": None,
        "documents": None,
    }
    pieces: list[str] = []
    size = 0
    try:
        for piece in compiled.generate(variables):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_CHARACTERS:
                raise _TooMuch
    except _Refusal as refusal:
        raise RequestError(f"The model's chat template refuses the conversation: {str(refusal)[:300]}") from None
    except (_TooMuch, OverflowError, MemoryError, RecursionError):
        raise ModelError(
            "The chat template does far more work than a prompt needs and was stopped: use another template."
        ) from None
    except SecurityError as error:
        raise ModelError(
            f"The chat template reaches for what a template may not have and was stopped: {_reason(error)}."
        ) from None
    except Exception as error:  # a template can raise whatever its expressions raise
        raise ModelError(f"The chat template failed: {_reason(error)}; mend chat_template.jinja.") from None
    return "".join(pieces)
