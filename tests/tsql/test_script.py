"""A script is split and filled in as sqlcmd does it."""

from __future__ import annotations

import pytest

from tests.tsql.script import Batch, as_document, inner_batches, read_script, unseen_lines


def texts_of(script: str, **variables: str) -> list[str]:
    """Give the texts of a script's batches, in which nothing may be wrong."""
    read = read_script(script, variables)
    assert read.findings == ()
    return [batch.text.strip() for batch in read.batches]


@pytest.mark.parametrize("go", ["GO", "go", "  GO  ", "GO 5", "\tGo"])
def test_go_ends_a_batch(go: str) -> None:
    """It is sqlcmd's own word: the server never sees it."""
    assert texts_of(f"SELECT 1;\n{go}\nSELECT 2;\n") == ["SELECT 1;", "SELECT 2;"]


@pytest.mark.parametrize(
    "text",
    ["N'a\nGO\nb'", "[a\nGO\nb]", '"a\nGO\nb"', "/* a\nGO\n/* b */\nGO\n*/", "N'it''s\nGO\n'"],
)
def test_go_within_a_string_a_name_or_a_comment_ends_nothing(text: str) -> None:
    """Text that holds a script must reach the server whole."""
    assert texts_of(f"SELECT {text};") == [f"SELECT {text};"]


def test_go_is_a_word_not_a_beginning() -> None:
    """`GOTO` is T-SQL."""
    assert len(texts_of("GOTO done;\ndone: RETURN;")) == 1


def test_after_go_stands_nothing_but_a_number() -> None:
    """Sqlcmd refuses the rest of such a script, after what stands above was done."""
    (finding,) = read_script("SELECT 1;\nGO;\nGO now\n").findings
    assert (finding.line, finding.column, finding.found_by) == (3, 4, "sqlcmd")


def test_batches_of_nothing_are_none() -> None:
    """The server is not asked for them."""
    assert texts_of("GO\n\nGO\n  \nSELECT 1;\nGO\n\n") == ["SELECT 1;"]


@pytest.mark.parametrize(
    ("given", "value"), [("dbo", "dbo"), ('"a b"', "a b"), ('"say ""x"""', 'say "x"'), ('""', "")]
)
def test_a_variable_has_the_value_it_was_set_to(given: str, value: str) -> None:
    """With quotes it may hold spaces; doubled ones stand for themselves."""
    assert texts_of(f":setvar Name {given}\nSELECT N'$(name)';") == [f"SELECT N'{value}';"]


def test_variables_are_filled_in_everywhere_but_in_comments() -> None:
    """A comment may explain one that has no value."""
    script = "/* $(a) */ SELECT '$(s)' AS [$(s)], \"$(s)\" FROM $(s).t; -- $(b)"
    filled_in = "/* $(a) */ SELECT 'x' AS [x], \"x\" FROM x.t; -- $(b)"
    assert texts_of(script, s="x") == [filled_in]


def test_a_script_sets_its_variables_over_those_given() -> None:
    """As in sqlcmd, where `:setvar` comes later than `-v`."""
    assert texts_of("SELECT $(a);\nGO\n:setvar a 2\nSELECT $(a);", a="1") == [
        "SELECT 1;",
        "SELECT 2;",
    ]


def test_a_variable_without_a_value_is_found() -> None:
    """Sqlcmd stops at it; `:setvar` without a value takes it away."""
    (finding,) = read_script(":setvar a 1\n:setvar a\nSELECT\n  $(a);\n").findings
    assert (finding.line, finding.column) == (4, 3)
    assert "a" in finding.message


@pytest.mark.parametrize("command", [":on error exit", ":On Error ignore", "on error exit"])
def test_what_an_error_does_is_no_text(command: str) -> None:
    """It is sqlcmd's own."""
    assert texts_of(f"{command}\nSELECT 1;") == ["SELECT 1;"]


@pytest.mark.parametrize(
    "command",
    [":r other.sql", ":setvar", ":on error jump", "exit", "QUIT", "!!dir", ":!! dir", ":connect x"],
)
def test_another_command_is_found(command: str) -> None:
    """What it would do is not done here: what the server would get is not known."""
    (finding,) = read_script(f"SELECT 1;\n{command}\n").findings
    assert finding.line == 2
    assert command in finding.message


@pytest.mark.parametrize("text", ["'a", "[a", '"a', "/* a", "/* /* */", "'a''"])
def test_what_nobody_closes_is_found(text: str) -> None:
    """The rest of the script is swallowed."""
    (finding,) = read_script(f"SELECT 1;\nGO\nSELECT {text}\nGO\n").findings
    assert "awaited" in finding.message


def test_a_batch_keeps_its_lines_in_the_document() -> None:
    """The parser's findings name lines of the script."""
    script = ":setvar a 1\nSELECT 1;\nGO\n\n\nGO\n:setvar b 2\n-- b\nSELECT 2;\nGO 3\nSELECT 3;"
    document = as_document(read_script(script).batches).split("\n")
    assert [document.index(f"SELECT {n};") for n in (1, 2, 3)] == [1, 8, 10]
    assert document.count("GO") == 3


def test_statements_in_strings_are_found_with_their_lines() -> None:
    """The server runs them as batches of their own."""
    text = "SELECT 1;\nEXEC (N'SELECT N''a''');\nEXECUTE sp_executesql\n    @stmt = N'SELECT 2';"
    assert list(inner_batches(Batch(10, text))) == [
        Batch(11, "SELECT N'a'"),
        Batch(13, "SELECT 2"),
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "EXEC (N'DROP ' + @name)",
        "EXECUTE(@text)",
        "EXEC @r = sp_executesql @text, N'@a INT', @a = 1",
    ],
)
def test_a_statement_that_is_put_together_is_told_as_unseen(statement: str) -> None:
    """A part of it alone would be judged wrongly, and silence would look like a judgement."""
    batch = Batch(1, f"SELECT 1;\n{statement};")
    assert list(inner_batches(batch)) == []
    assert list(unseen_lines(batch)) == [2]


@pytest.mark.parametrize(
    "text", ["-- EXEC (@a)", "/* EXEC (N'b') */", "SELECT N'EXEC (@a)';", "EXEC dbo.p @a = N'b';"]
)
def test_what_runs_nothing_from_a_string_is_neither(text: str) -> None:
    """A comment may speak of it, and a procedure has parameters."""
    assert list(inner_batches(Batch(1, text))) == []
    assert list(unseen_lines(Batch(1, text))) == []
