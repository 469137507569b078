"""calculator: exact arithmetic, for models, which are bad at it.

`componentize-py` makes a component of this module and of Python itself. The class `Tools` is the interface
`caxton:tool/tools`; what it may raise besides is the interface's `tool-error`.
"""

import ast
import functools
import json
import operator
import traceback
from fractions import Fraction

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import (
    CallResult,
    Content_Text,
    Tool,
    ToolError_Failed,
    ToolError_InvalidArguments,
    ToolError_UnknownTool,
)

# 10 ** 10 ** 10 would not end; the sandbox would end it, but a sentence helps the model more.
EXPONENT_MAX = 10_000
BITS_MAX = 200_000

SCHEMA = {
    "type": "object",
    "required": ["expression"],
    "properties": {
        "expression": {
            "type": "string",
            "description": "Numbers, + - * / // % **, parentheses; abs, min, max, round, sum",
        },
        "digits": {"type": "integer", "minimum": 0, "maximum": 1000, "default": 15},
    },
}
HINTS = {"readOnlyHint": True, "idempotentHint": True, "openWorldHint": False}


class Refused(Exception):
    """What the expression asks for is not arithmetic, or too large."""


def power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise Refused("an exponent is a whole number")
    size = max(abs(base.numerator), base.denominator).bit_length()
    if abs(exponent) > EXPONENT_MAX or size * abs(exponent) > BITS_MAX:
        raise Refused("the power is too large")
    return base ** int(exponent)


OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
    ast.Pow: power,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
FUNCTIONS = {
    "abs": abs,
    "min": min,
    "max": max,
    "sum": lambda *numbers: sum(numbers, Fraction(0)),
    "round": lambda number, digits=Fraction(0): Fraction(round(number, int(digits))),
}


def value(node: ast.expr, source: str) -> Fraction:
    """What a part of the expression is worth. Nothing is evaluated that is not named above."""
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            # As it is written, not as the nearest binary number: 0.1 is a tenth.
            return Fraction(ast.get_source_segment(source, node).replace("_", ""))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            result = OPERATORS[type(op)](value(left, source), value(right, source))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            return OPERATORS[type(op)](value(operand, source))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*(value(argument, source) for argument in arguments))
        case _:
            raise Refused(f"`{ast.get_source_segment(source, node)}` is not arithmetic")
    if result.numerator.bit_length() + result.denominator.bit_length() > BITS_MAX:
        raise Refused("the number is too large")
    return result


def decimal(number: Fraction, digits: int) -> str:
    scaled = round(number * 10**digits)
    sign, text = "-" * (scaled < 0), str(abs(scaled)).rjust(digits + 1, "0")
    whole, part = text[: len(text) - digits], text[len(text) - digits :].rstrip("0")
    return f"{sign}{whole}.{part}" if part else f"{sign}{whole}"


def calculate(request: dict) -> CallResult:
    source = request["expression"].strip()
    try:
        number = value(ast.parse(source, mode="eval").body, source)
        text = decimal(number, request.get("digits", 15))
    except SyntaxError as error:
        return CallResult([Content_Text(f"not an expression: {error.msg}")], None, True)
    except (Refused, ZeroDivisionError, ValueError, TypeError, OverflowError, RecursionError) as error:
        return CallResult([Content_Text(str(error))], None, True)
    structured = {"decimal": text, "fraction": str(number)}
    return CallResult([Content_Text(text)], json.dumps(structured), False)


def reported(call):
    """An exception that nobody expected reaches the caller with its message and its line, instead of as a crash."""

    @functools.wraps(call)
    def reporting(*arguments):
        try:
            return call(*arguments)
        except Err:
            raise
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            file = place.filename.rsplit("/", 1)[-1]
            what = f"{type(error).__name__}: {error} ({file}, line {place.lineno}, in {place.name})"
            raise Err(ToolError_Failed(what))

    return reporting


class Tools(exports.Tools):
    def list_tools(self) -> list[Tool]:
        description = "Works out an arithmetic expression exactly, with fractions instead of rounding."
        return [Tool("calculator", None, description, json.dumps(SCHEMA), None, json.dumps(HINTS))]

    @reported
    def call_tool(self, name: str, arguments: str) -> CallResult:
        if name != "calculator":
            raise Err(ToolError_UnknownTool())
        try:
            request = json.loads(arguments)
        except ValueError as error:
            raise Err(ToolError_InvalidArguments(str(error)))
        return calculate(request)
