# SPDX-License-Identifier: Apache-2.0
"""Strict YAML: what is refused, and that an error names the file, the line and the key."""

import datetime
import itertools
import subprocess
import sys

import pytest
import yaml
from doubles import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.document import SIZE_MAX, Section, parse_document
from pam_mfa.errors import DocumentError

SAMPLE = """\
# a comment
text: word
number: 7
flag: true
words: [a, b]
moment: 2026-01-02T03:04:05Z
inner:
  text: deep
  list:
  - {text: first}
  - {text: second}
"""


def read(text: str) -> Section:
    """Read a document from a file of this name."""
    return parse_document(text.encode(), "f.yaml")


def refusal(text: str | bytes) -> str:
    """Return the sentence with which a document is refused."""
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(DocumentError) as caught:
        parse_document(data, "f.yaml")
    return str(caught.value)


def is_read_or_refused(data: bytes) -> bool:
    """Whether a document is read, or refused with its file's name."""
    try:
        return isinstance(parse_document(data, "f.yaml"), Section)
    except DocumentError as error:
        return str(error).startswith("f.yaml")


def test_values() -> None:
    """Each kind of value is read as what YAML says it is."""
    top = read(SAMPLE)
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert ("word", 7, True, ["a", "b"], moment) == (
        top.require("text", str),
        top.require("number", int),
        top.require("flag", bool),
        top.texts("words"),
        top.require("moment", datetime.datetime),
    )


def test_inner_values() -> None:
    """Mappings inside mappings and lists are read with their keys."""
    inner = read(SAMPLE).section("inner")
    texts = [each.require("text", str) for each in inner.sections("list")]
    assert ("deep", ["first", "second"]) == (inner.require("text", str), texts)


def test_keys() -> None:
    """A mapping lists its keys in the document's order."""
    assert ["text", "number", "flag", "words", "moment", "inner"] == list(read(SAMPLE))


def test_absent() -> None:
    """An absent key has the default, and an absent mapping is empty."""
    top = read(SAMPLE)
    assert (3, []) == (top.get("absent", int, 3), list(top.section("absent")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: 'a' stands here a second time, first in line 1"),
        ("a:\n  b: 1\n  b: 1\n", "line 3: 'a.b' stands here a second time, first in line 2"),
        ('a: 1\n"a": 2\n', "line 2: 'a' stands here a second time, first in line 1"),
        ("a: {b: 1, b: 2}\n", "line 1: 'a.b' stands here a second time, first in line 1"),
        ("l:\n- c: 1\n  c: 2\n", "line 3: 'l[0].c' stands here a second time, first in line 2"),
    ],
)
def test_duplicate_keys(text: str, expected: str) -> None:
    """A key that stands twice in one mapping is refused, with both lines."""
    assert f"f.yaml, {expected}" == refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: &x 1\nb: *x\n",
        "a: &x [1, 2]\nb: *x\n",
        "a: &x {k: 1}\nb:\n- *x\n",
        "a: &x b\n*x : 1\n",
        "&x a: 1\nb: *x\n",
        "a: &x\n  b: *x\n",
    ],
)
def test_aliases(text: str) -> None:
    """An alias is refused, of whatever and wherever, with its line."""
    assert "line" in refusal(text)


def test_unused_anchor() -> None:
    """An anchor that nothing refers to changes nothing."""
    assert 1 == read("a: &x 1\n").require("a", int)


@pytest.mark.parametrize("text", ["base: {k: 1}\nb:\n  <<: {k: 2}\n", "<<: {mode: enforce}\n"])
def test_merge_keys(text: str) -> None:
    """A merge key is refused."""
    assert "a key is not a word" in refusal(text)


@pytest.mark.parametrize("key", ["1", "true", "null", "1.5", "2026-01-02", "[a]", "{a: b}", "~"])
def test_keys_that_are_no_words(key: str) -> None:
    """A key that YAML reads as something else than text is refused."""
    assert "f.yaml, line 1: a key is not a word" == refusal(f"? {key}\n: value\n")


def test_blow_up() -> None:
    """A document whose aliases would grow to a billion values is refused without growing."""
    names = "abcdefghi"
    text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
        for before, name in itertools.pairwise(names)
    )
    assert "f.yaml, line 1: an alias ('*name') is used" == refusal(text)


@pytest.mark.parametrize("opening", ["a: [", "{a: [", "- ", "? ", "a: {b: [", "[", "-\t"])
def test_nesting_without_end(opening: str) -> None:
    """A document nested as deep as its size allows is refused, and the program goes on."""
    program = (
        "import sys\n"
        "from pam_mfa.document import parse_document\n"
        "from pam_mfa.errors import DocumentError\n"
        "opening = sys.argv[1].encode()\n"
        "data = (opening + opening.rpartition(b'a: ')[2] * 65536)[:65536]\n"
        "try:\n"
        "    parse_document(data, 'f.yaml')\n"
        "except DocumentError:\n"
        "    print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, opening],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, "refused\n") == (done.returncode, done.stdout)


@pytest.mark.parametrize(
    ("data", "at"), [(b"a: \xff\n", 3), (b"a: '\xed\xa0\x80'\n", 4), (b"\xc3", 0)]
)
def test_not_utf8(data: bytes, at: int) -> None:
    """Bytes that are not UTF-8 are refused, with their place."""
    assert f"f.yaml is not UTF-8 at byte {at}" == refusal(data)


@pytest.mark.parametrize("data", ["a: 1".encode("utf-16"), "a: 1".encode("utf-32")])
def test_other_encodings(data: bytes) -> None:
    """A document in another encoding than UTF-8 is refused."""
    assert refusal(data).startswith("f.yaml is not UTF-8")


def test_longest() -> None:
    """A document of 65,536 bytes is read."""
    data = b"a: 1\n#".ljust(SIZE_MAX, b"x")
    assert 1 == parse_document(data, "f.yaml").require("a", int)


def test_too_long() -> None:
    """A document of one byte more is refused before it is looked at."""
    data = b"a: 1\n#".ljust(SIZE_MAX, b"x") + b"\xff"
    assert "f.yaml has 65537 bytes, more than 65536" == refusal(data)


@pytest.mark.parametrize(("text", "line"), [("a: 1\n---\nb: 2\n", 2), ("---\na: 1\n---\n", 3)])
def test_several_documents(text: str, line: int) -> None:
    """A second document is refused, with its line."""
    assert refusal(text).startswith(f"f.yaml, line {line}: ")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "word", "7", "[a, b]", "---\n", "~"])
def test_no_mapping(text: str) -> None:
    """A document whose top is no mapping is refused."""
    assert "f.yaml does not hold a mapping of keys to values" == refusal(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: [1\nc: 2\n", 3), ("a: 'x\n", 2), ("a: 1\n\tb: 2\n", 2), ("a: 1\nb\nc: 1\n", 3)],
)
def test_not_yaml(text: str, line: int) -> None:
    """What is no YAML is refused, with the line that the reader stopped at."""
    assert refusal(text).startswith(f"f.yaml, line {line}: ")


@pytest.mark.parametrize("text", ["a: \0\n", "a: \x07\n", 'a: "\\ud800"\n'])
def test_forbidden_characters(text: str) -> None:
    """Characters that YAML does not allow are refused."""
    assert refusal(text).startswith("f.yaml")


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system [id]",
        "!!python/name:os.system",
        "!own x",
        "2026-13-01",
        "2026-01-02T99:00:00Z",
        "!!int x",
        '!!int ""',
        '!!int "-"',
        '!!float ""',
        "!!bool maybe",
        "!!timestamp soon",
        "!!binary é",
        "9" * 5000,
    ],
)
def test_unreadable_values(value: str) -> None:
    """A value that is not what its tag or its form says is refused, with its line."""
    with pytest.raises(DocumentError, match=r"f\.yaml, line 2: "):
        read(f"a: 1\nb: {value}\n").require("b", datetime.datetime)


@pytest.mark.parametrize(
    ("key", "kind", "expected"),
    [
        ("number", str, "f.yaml, line 3: 'number' must be text"),
        ("text", int, "f.yaml, line 2: 'text' must be a whole number"),
        ("text", bool, "f.yaml, line 2: 'text' must be true or false"),
        ("flag", int, "f.yaml, line 4: 'flag' must be a whole number"),
        ("number", bool, "f.yaml, line 3: 'number' must be true or false"),
        ("text", list, "f.yaml, line 2: 'text' must be a list"),
        ("inner", str, "f.yaml, line 7: 'inner' must be text"),
        ("absent", str, "f.yaml, line 2: 'absent' is missing"),
    ],
)
def test_other_kinds(key: str, kind: type, expected: str) -> None:
    """A value of another kind is refused; true and false are no numbers."""
    with pytest.raises(DocumentError) as caught:
        read(SAMPLE).require(key, kind)
    assert expected == str(caught.value)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("text", "f.yaml, line 2: 'text' must be a mapping of keys to values"),
        ("words", "f.yaml, line 5: 'words' must be a mapping of keys to values"),
    ],
)
def test_no_section(key: str, expected: str) -> None:
    """What should be a mapping and is none is refused."""
    with pytest.raises(DocumentError) as caught:
        read(SAMPLE).section(key)
    assert expected == str(caught.value)


def test_no_texts() -> None:
    """A list of words with something else in it is refused."""
    with pytest.raises(DocumentError, match=r"line 1: 'a' must be a list of words"):
        read("a: [b, 1]\n").texts("a")


def test_no_sections() -> None:
    """A list of mappings with something else in it is refused."""
    with pytest.raises(DocumentError, match=r"line 1: 'a' must be a list of mappings"):
        read("a: [{b: 1}, c]\n").sections("a")


@pytest.mark.parametrize(
    ("text", "expected", "hint"),
    [
        ("mode: 1\nprompt: 2\n", "f.yaml, line 2: 'prompt' is not a known key",
         "Did you mean 'prompts'?"),
        ("a: 1\n", "f.yaml, line 1: 'a' is not a known key", "Known: mode, prompts."),
        ("mode: 1\nPrompts: 2\n", "f.yaml, line 2: 'Prompts' is not a known key",
         "Did you mean 'prompts'?"),
    ],
)  # fmt: skip
def test_unknown_keys(text: str, expected: str, hint: str) -> None:
    """An unknown key is refused with its line, and the nearest known key is named."""
    with pytest.raises(DocumentError) as caught:
        read(text).require_known(("mode", "prompts"))
    assert (expected, hint) == (str(caught.value), caught.value.hint)


@given(st.binary(max_size=200))
def test_noise(data: bytes) -> None:
    """Noise is read or refused, and nothing else."""
    assert is_read_or_refused(data)


FRAGMENTS = st.sampled_from(
    ["a", "b", ": ", ":", "\n", "  ", "- ", "[", "]", "{", "}", ", ", "&x ", "*x", "!!int ", "<<",
     "'", '"', "|", ">", "? ", "#", "---\n", "1", "true", "!!bool ", "!!timestamp ", "2026-01-01"]
)  # fmt: skip


@given(st.lists(FRAGMENTS, max_size=25).map("".join))
def test_fragments(text: str) -> None:
    """Pieces of YAML in any order are read or refused, and nothing else."""
    assert is_read_or_refused(text.encode())


NEARLY = st.one_of(
    st.text("0123456789-+:.TZtz_smhdxe", min_size=1, max_size=22),
    st.from_regex(r"\A[0-9]{1,2}[0-9]{2}-[0-9]{1,2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}Z?\Z"),
    st.from_regex(r"\A[0-9]{1,6}[smhdxe]?\Z"),
)


@given(NEARLY)
def test_values_are_what_yaml_says(text: str) -> None:
    """What is nearly a number, time or duration is read as PyYAML alone reads it."""
    try:
        expected = yaml.load(f"key: {text}", yaml.CSafeLoader)["key"]
    except (yaml.YAMLError, ValueError):
        assert refusal(f"key: {text}").startswith("f.yaml")
    else:
        found: object = read(f"key: {text}").require("key", type(expected))
        assert (expected, type(expected)) == (found, type(found))
