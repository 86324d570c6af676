"""Translates GBNF to the Lark notation of the grammar library.

GBNF describes texts character by character. The library splits a text into terminals, each as long as
possible (longest match). That is much faster but not the same: after a terminal `[a-z]+` it never finds
`"end"`. So the largest parts without recursion become terminals only if the longest match is proved to lose
no text: no terminal that has matched can be continued, by itself or by another terminal that began at the
same place, with a character that may also come after it. Otherwise every character is a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

from decodery.decoding.grammar.gbnf_parser import (
    Chars,
    Either,
    Node,
    Repeat,
    Rule,
    Sequence,
    children,
    read_gbnf,
    rules_used,
)
from decodery.decoding.grammar.longest_match import longest_match_is_harmless

# A rule nested through more rules and groups than this does not become a terminal.
_DEEPEST = 100


def gbnf_to_lark(text: str) -> str:
    """Returns a grammar in the library's Lark notation that matches what a grammar in GBNF matches.

    Raises `ParameterError`, with line and column, where the text is not GBNF.
    """
    given = _reachable(read_gbnf(text))
    rules, terminals = _with_terminals(given)
    if not longest_match_is_harmless(rules, terminals):
        rules, terminals = given, {}
    names = {name: f"r{i}" for i, name in enumerate(rules)}
    names |= {name: f"T{i}" for i, name in enumerate(terminals)}
    lines = [f"start: {names['root']}"]
    lines += [f"{names[name]}: {_written(node, names)}" for name, node in (rules | terminals).items()]
    return "\n".join(lines)


def _reachable(rules: Mapping[str, Node]) -> dict[str, Node]:
    found = {"root": rules["root"]}
    waiting = ["root"]
    while waiting:
        used = [name for name in rules_used(rules[waiting.pop()]) if name not in found]
        found |= {name: rules[name] for name in used}
        waiting += dict.fromkeys(used)
    return found


def _written(node: Node, names: Mapping[str, str]) -> str:
    """Returns a node in Lark notation; characters are written as code points, which need no escapes."""
    if isinstance(node, Rule):
        return names[node.name]
    if isinstance(node, Chars):
        spans = (f"\\x{{{low:x}}}-\\x{{{high:x}}}" for low, high in node.ranges)
        return f"/[{''.join(spans)}]/"
    if isinstance(node, Sequence):
        return f"({' '.join(_written(item, names) for item in node.items)})" if node.items else '""'
    if isinstance(node, Either):
        return f"({' | '.join(_written(item, names) for item in node.items)})"
    high = "" if node.high is None else node.high
    return f"({_written(node.item, names)}){{{node.low},{high}}}"


def _with_terminals(given: Mapping[str, Node]) -> tuple[dict[str, Node], dict[str, Node]]:
    """Returns rules and terminals that match the same texts as the given rules.

    The largest parts without recursion are terminals; the rules, which may be recursive, combine them.
    """
    flat = _flat_rules(given)
    terminals = {name: node for name, node in given.items() if name in flat}
    named: dict[Node, str] = {}

    def is_flat(node: Node) -> bool:
        return node.name in flat if isinstance(node, Rule) else all(map(is_flat, children(node)))

    def terminal(items: list[Node], kind: type[Sequence] | type[Either]) -> Node:
        node = items[0] if len(items) == 1 else kind(tuple(items))
        if isinstance(node, Rule):
            return node
        if node not in named:
            # No rule of the grammar has this name: names in GBNF have no blanks.
            named[node] = f"part {len(named)}"
            terminals[named[node]] = node
        return Rule(named[node])

    def parted(node: Node) -> Node:
        if node == Sequence(()):
            return node
        if is_flat(node):
            return terminal([node], Sequence)
        if isinstance(node, Either):
            plain = [item for item in node.items if is_flat(item)]
            others = [parted(item) for item in node.items if not is_flat(item)]
            return Either((*others, terminal(plain, Either)) if plain else tuple(others))
        if isinstance(node, Repeat):
            return Repeat(parted(node.item), node.low, node.high)
        if isinstance(node, Sequence):
            items: list[Node] = []
            for in_terminal, run in groupby(node.items, is_flat):
                together = list(run)
                items += [terminal(together, Sequence)] if in_terminal else map(parted, together)
            return Sequence(tuple(items))
        return node

    rules = {name: parted(node) for name, node in given.items() if name not in flat}
    if "root" in flat:
        rules = {"root": Rule("root text")}
        terminals["root text"] = terminals.pop("root")
    return rules, terminals


def _flat_rules(rules: Mapping[str, Node]) -> set[str]:
    """Returns the rules that refer to no recursion and are not nested too deep."""
    depths: dict[str, int] = {}

    def depth(node: Node) -> int:
        if isinstance(node, Rule):
            return depths.get(node.name, _DEEPEST) + 1
        return 1 + max(map(depth, children(node)), default=0)

    while True:
        more = {
            name: d for name, node in rules.items() if name not in depths and (d := depth(node)) < _DEEPEST
        }
        if not more:
            return set(depths)
        depths |= more
