from __future__ import annotations

import random
import re

import pytest

from decodery.decoding.grammar import lark_writer
from decodery.decoding.grammar.gbnf_parser import Chars, Either, Node, Repeat, Rule, Sequence, read_gbnf
from decodery.decoding.grammar.lark_writer import gbnf_to_lark
from decodery.decoding.grammar.longest_match import longest_match_is_harmless
from decodery.decoding.request.grammar_params import Gbnf
from decodery.errors import ParameterError
from tests.decoding.grammar.token_sequences import GRAMMARS, PIECES, allowed, matches, random_text, unspell

JSON = r"""
# A document is an object.
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            pair    # at least one
    ("," ws pair)*
  )? "}" ws
pair   ::= string ":" ws value

array  ::= "[" ws ( value ("," ws value)* )? "]" ws

string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,15})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"""
ARITHMETIC = r"""
root  ::= (sum "=" ws term "\n")+
sum   ::= term ([-+*/] ws term)*
term  ::= name | number | "(" ws sum ")" ws
name  ::= [a-z] [a-z0-9_]* ws
number ::= [0-9]+ ws
ws    ::= [ \t\n]*
"""
LIST = 'root ::= item+\nitem ::= "- " [^\\r\\n\\x0b\\u2028\\U00002029]+ "\\n"'
CHESS = r"""
root   ::= "1. " turn ([1-9] [0-9]? ". " turn)*
turn   ::= move " " move "\n"
move   ::= (pawn | piece | castle) [+#]?
piece  ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn   ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?
"""
EXAMPLES = [
    (
        JSON,
        ['{"a": [1, -2.5e3, "x\\n\\u00e9"], "b": {}}', "{}", '{"é日":\n  true}'],
        ["", "[1]", '{"a"}', '{"a": 01}'],
    ),
    (ARITHMETIC, ["a=1\n", "a + b*(c_1 - 3)= 4\nx=y\n\n"], ["a=1", "1+=2\n", "(a=1)\n"]),
    (LIST, ["- a\n- b c é\n"], ["", "- a", "- \n", "- a\u2028\n"]),
    (CHESS, ["1. e4 e5\n2. Nf3 Nc6\n", "1. O-O-O exd5=Q+\n"], ["1. e4\n", "e4 e5\n", "1. i4 e5\n"]),
]


@pytest.mark.parametrize(("text", "good", "bad"), EXAMPLES, ids=["json", "arithmetic", "list", "chess"])
def test_grammars_of_the_usual_kinds_allow_their_texts_and_no_others(
    text: str, good: list[str], bad: list[str]
) -> None:
    for example in good:
        assert matches(Gbnf(text), example)
    for example in bad:
        assert not matches(Gbnf(text), example)
    for seed in range(5):
        tokens, state = random_text(GRAMMARS.compile(Gbnf(text)), random.Random(seed), most=60)
        if state.accepting:
            assert accepts(read_gbnf(text), unspell(tokens))


CONSTRUCTS = [
    (r'root ::= "a\"b\\c\n\t\r"', ['a"b\\c\n\t\r'], ["a"]),
    (r'root ::= "\x41\u00e9\U0001F600"', ["Aé😀"], ["A"]),
    (r"root ::= [a\-z\]\\]", ["a", "-", "z", "]", "\\"], ["b"]),
    (r"root ::= [a-]", ["a", "-"], ["b"]),
    (r"root ::= [^a-c\n]", ["d", "é", "日"], ["a", "b", "\n"]),
    (r"root ::= [à-ü]", ["é"], ["a"]),
    (r"root ::= .", ["a", "\n", "日"], ["", "ab"]),
    (r'root ::= "ab"{2}', ["abab"], ["ab", "abb", "ababab"]),
    (r'root ::= "a"{2,}', ["aa", "aaaaa"], ["a"]),
    (r'root ::= "a"{ 1 , 2 } "b"', ["ab", "aab"], ["b", "aaab"]),
    (r'root ::= "a"{0,1}"b"', ["b", "ab"], ["aab"]),
    (r'root ::= ("a" | "b" "c")+ "d"?', ["a", "bcd", "abca"], ["b", "d"]),
    ('root ::= "a" | # one\n  "b" # two\n  | "c"\n\n# end', ["a", "b", "c"], ["ab"]),
    ('root ::= "a" (\n "b"\n |\n "c"\n)\r\n', ["ab", "ac"], ["a"]),
    ('root ::= x-1 X_1\nx-1 ::= "a"\nX_1 ::= "b"\nx_1 ::= "c"', ["ab"], ["ac"]),
    ('root ::= "a" | ""', ["a", ""], ["b"]),
    ('root ::= "(" root ")" | "x"', ["x", "((x))"], ["(x"]),
    ('root ::= root "a" | "b"', ["b", "baa"], ["ab"]),
    ('root ::= [a-z]+ "end"', ["xend", "endend", "aend"], ["end", "xen"]),
    ('root ::= start\nstart ::= "/" EOF\nEOF ::= "%ignore"', ["/%ignore"], ["/"]),
    ('root ::= "a" | x\nx ::= "b" x', ["a"], ["b", "ba"]),
    ('root ::= "a"\nx ::= root "b"', ["a"], ["ab"]),
]


@pytest.mark.parametrize(("text", "good", "bad"), CONSTRUCTS, ids=[c[0].splitlines()[0] for c in CONSTRUCTS])
def test_each_construct_means_what_it_means_in_gbnf(text: str, good: list[str], bad: list[str]) -> None:
    for example in good:
        assert matches(Gbnf(text), example), example
    for example in bad:
        assert not matches(Gbnf(text), example), example


REFUSED = [
    ('root := "a"', "line 1, column 6: '::=' is expected"),
    ('\n root ::= "a', "line 2, column 11: a string is not closed"),
    ("root ::= [a", "line 1, column 10: a character class is not closed"),
    ("root ::= [z-a]", "line 1, column 11: a range of characters goes backwards"),
    ('root ::= ("a"', "line 1, column 10: a group is not closed"),
    ('root ::= "a" )', "line 1, column 14: a rule ends with its line"),
    ('root ::= "a"\nb ::= "b" "\\q"', r"line 2, column 12: \\q is no escape"),
    ('root ::= "\\x4"', "column 11: .x needs 2 hexadecimal digits"),
    ('root ::= "\\ud800"', r"column 11: there is no character U\+D800"),
    ("root ::= *", "column 10: '\\*' has nothing before it"),
    ('root ::= "a"{3,2}', "column 13: a repetition's bounds"),
    ('root ::= "a"{}', "column 13: a repetition needs a number"),
    ('root ::= "a"{9999999}', "column 13: a repetition goes over"),
    ("root ::= x", "rule 'root' uses 'x', which is missing"),
    ('x ::= "a"', "no rule 'root'"),
    ('root ::= "a"\nroot ::= "b"', "line 2, column 1: rule 'root' is defined twice"),
    ('root ::= "a" root', "matches no text: its root never comes to an end"),
    ("root ::= []", "matches no text"),
    ('root ::= ""', "matches only the empty text"),
    ("root ::= <think>", "column 10: tokens in a grammar are not supported"),
    ("root ::= " + "(" * 300 + '"a"' + ")" * 300, "nested more than"),
    ("root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(2000)) + 'r2000 ::= "a"', "1000 rules"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_invalid_gbnf_is_refused_with_line_and_column(text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=f"^Gbnf .*{message}"):
        GRAMMARS.compile(Gbnf(text))


def test_rules_may_be_chained_through_hundreds_of_others() -> None:
    text = "root ::= r0\n" + "".join(f'r{i} ::= "a" r{i + 1}\n' for i in range(900)) + 'r900 ::= "b"'
    assert matches(Gbnf(text), "a" * 900 + "b")


def test_rules_that_root_does_not_use_are_left_out() -> None:
    assert gbnf_to_lark('root ::= "a"\nx ::= root "b"\ny ::= y y | x') == gbnf_to_lark('root ::= "a"')


def test_alternatives_that_never_end_are_left_out() -> None:
    text = 'root ::= "a" root | x | "c"\nx ::= "b" x | (x)+ "c" | "d" y{2}\ny ::= []'
    assert allowed(GRAMMARS.compile(Gbnf(text))) <= {i for i, p in enumerate(PIECES) if p[:1] in (b"a", b"c")}


A, B, C = (Chars(((ord(c), ord(c)),)) for c in "abc")
MAYBE_B = Repeat(B, 0, 1)


@pytest.mark.parametrize(
    ("rules", "terminals", "harmless"),
    [
        ({"root": Sequence((Rule("T"), Rule("U")))}, {"T": Repeat(A, 1, None), "U": A}, False),
        ({"root": Sequence((Rule("T"), Rule("U")))}, {"T": Repeat(A, 1, None), "U": B}, True),
        ({"root": Sequence((Rule("T"), Rule("U")))}, {"T": Repeat(A, 1, 3), "U": A}, False),
        ({"root": Sequence((Rule("T"), Rule("U")))}, {"T": Repeat(Sequence((A, B)), 0, None), "U": A}, False),
        # A repetition: the terminal may come after itself.
        ({"root": Repeat(Rule("T"), 0, None)}, {"T": Sequence((A, Repeat(A, 0, 1)))}, False),
        ({"root": Repeat(Rule("T"), 0, 1)}, {"T": Sequence((A, Repeat(A, 0, 1)))}, True),
        # The rule between two terminals may be empty, so that the second follows the first.
        (
            {"root": Sequence((Rule("T"), Rule("r"), Rule("U"))), "r": Repeat(Rule("V"), 0, 2)},
            {"T": Sequence((A, MAYBE_B)), "U": B, "V": C},
            False,
        ),
        (
            {"root": Sequence((Rule("T"), Rule("r"), Rule("U"))), "r": Repeat(Rule("V"), 1, 2)},
            {"T": Sequence((A, MAYBE_B)), "U": B, "V": C},
            True,
        ),
        # Another terminal that begins in the same way is longer.
        (
            {"root": Either((Sequence((Rule("T"), Rule("U"))), Rule("V")))},
            {"T": A, "U": Sequence((B, C)), "V": Sequence((A, B, B))},
            False,
        ),
        (
            {"root": Either((Sequence((Rule("T"), Rule("U"))), Rule("V")))},
            {"T": A, "U": Sequence((C, C)), "V": Sequence((A, B, B))},
            True,
        ),
        # The terminal ends a rule that is used in several places.
        (
            {"root": Sequence((Rule("r"), Rule("V"), Rule("r"), Rule("U"))), "r": Rule("T")},
            {"T": Sequence((A, MAYBE_B)), "U": B, "V": C},
            False,
        ),
        # Too large for the proof.
        ({"root": Rule("T")}, {"T": Repeat(A, 5000, 5000)}, False),
    ],
)
def test_longest_match_is_harmless_only_where_no_character_that_follows_could_continue_it(
    rules: dict[str, Node], terminals: dict[str, Node], harmless: bool
) -> None:
    assert longest_match_is_harmless(rules, terminals) == harmless


@pytest.mark.parametrize("part", range(8))
def test_random_grammars_allow_what_they_match_and_nothing_else(part: int) -> None:
    for seed in range(40 * part, 40 * part + 40):
        source = random.Random(seed)
        text = random_gbnf(source)
        try:
            rules = read_gbnf(text)
            start = GRAMMARS.compile(Gbnf(text))
        except ParameterError as refused:
            if not re.search("matches no text|only the empty text", str(refused)):
                raise
            continue
        tokens, state = random_text(start, source, most=12)
        if state.accepting:
            assert accepts(rules, unspell(tokens)), text
        for _ in range(6):
            example = "".join(source.choices("abc", k=source.randint(0, 7)))
            assert matches(Gbnf(text), example) == accepts(rules, example), (text, example)


def test_terminals_are_used_where_they_are_harmless_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "T" in gbnf_to_lark(JSON)
    assert "T" not in gbnf_to_lark(ARITHMETIC)
    assert matches(Gbnf(ARITHMETIC), "x=y\n")
    monkeypatch.setattr(lark_writer, "longest_match_is_harmless", lambda rules, terminals: True)
    # Another text, since grammars are cached. Now the terminal of white space consumes the line's end too.
    assert not matches(Gbnf(ARITHMETIC + "\n"), "x=y\n")


def random_gbnf(source: random.Random) -> str:
    names = ["x", "y-z", "w"][: source.randint(0, 3)]
    rules = [f"{name} ::= {random_node(source, names)} | {random_node(source, names)}" for name in names]
    return "\n".join([f"root ::= {random_node(source, names)}", *rules])


def random_node(source: random.Random, names: list[str], depth: int = 0) -> str:
    kind = source.random()
    if depth > 2 or kind < 0.4:
        leaves = ['"a"', '"b"', '"ab"', '"abc"', "[ab]", "[a-c]", "[^a]", '"c"', '""', '"bc"']
        return source.choice(leaves + names * 2)
    parts = [random_node(source, names, depth + 1) for _ in range(source.randint(2, 3))]
    if kind < 0.6:
        return " ".join(parts)
    if kind < 0.8:
        return f"({' | '.join(parts)})"
    return f"({parts[0]}){source.choice(['*', '+', '?', '{2}', '{1,2}', '{0,3}', '{2,}'])}"


def accepts(rules: dict[str, Node], text: str) -> bool:
    """True if a grammar matches a text.

    Grows, until nothing changes, a table of the positions where a rule that begins at a position can end.
    """
    table: dict[tuple[str, int], set[int]] = {("root", 0): set()}

    def ends(node: Node, at: int) -> set[int]:
        if isinstance(node, Chars):
            fits = at < len(text) and any(low <= ord(text[at]) <= high for low, high in node.ranges)
            return {at + 1} if fits else set()
        if isinstance(node, Rule):
            return set(table.setdefault((node.name, at), set()))
        if isinstance(node, Either):
            return set().union(*(ends(item, at) for item in node.items))
        if isinstance(node, Sequence):
            places = {at}
            for item in node.items:
                places = set().union(*(ends(item, place) for place in places))
            return places
        places = {at}
        for _ in range(node.low):
            places = set().union(*(ends(node.item, place) for place in places))
        found, more = set(places), 0
        while places and (node.high is None or more < node.high - node.low):
            places = set().union(*(ends(node.item, place) for place in places)) - found
            found |= places
            more += 1
        return found

    while True:
        before = {key: len(found) for key, found in table.items()}
        for name, at in list(table):
            table[name, at] |= ends(rules[name], at)
        if before == {key: len(found) for key, found in table.items()}:
            return len(text) in table["root", 0]
