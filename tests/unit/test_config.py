"""Settings come from a file and the environment, and every problem is reported at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from storemirror.config import SettingDoc, Settings, load_settings, settings_reference
from storemirror.config.toml_lines import TomlLines
from storemirror.errors import ConfigError

PASSWORD = "gar-geheim"
DSN = f"postgresql://mirror:{PASSWORD}@db/mirror"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where no settings file lies by chance."""
    monkeypatch.chdir(tmp_path)


def settings_of(text: str, environ: Mapping[str, str] | None = None) -> Settings:
    """Write a settings file, and load it."""
    file = Path("storemirror.toml")
    file.write_text(text, encoding="utf-8")
    return load_settings(file, environ or {})


def problems_of(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Load settings that are wrong, and give each problem's line."""
    with pytest.raises(ConfigError) as caught:
        settings_of(text, environ)
    assert PASSWORD not in repr(caught.value)
    head, *lines = str(caught.value).split("\n  ")
    assert head.startswith(f"{len(lines)} setting")
    return lines


def test_without_a_file_and_variables_the_defaults_hold() -> None:
    """The defaults are the names of the contract; the mirror is off until someone says so."""
    settings = load_settings(None, {})
    assert settings == Settings()
    assert settings.firestore.database == "(default)"
    assert settings.sql.schema_name == "storemirror"
    assert (settings.bus.topic, settings.bus.subscription) == ("realtime-mirror", "sql-writer")
    assert (settings.model.files, settings.model.with_builtin) == ((), True)
    assert (settings.writer.lane_count, settings.writer.batch_max_events) == (2, 2000)
    assert (settings.writer.batch_max_bytes, settings.writer.shutdown_timeout_s) == (8_000_000, 10)
    assert settings.procedures == {}
    assert settings.is_mirror_on is False
    assert settings.sql.dsn is None


def test_every_setting_can_stand_in_the_file(tmp_path: Path) -> None:
    """And paths in it are relative to it, wherever the program runs."""
    settings = settings_of(
        """\
is_mirror_on = true
[firestore]
project = "shop"
database = "eu"
[documents]
dsn = "postgresql://documents"
[sql]
dsn = "postgresql://sql"
schema_name = "mirror"
[bus]
dsn = "postgresql://bus"
topic = "t"
subscription = "s"
[model]
files = ["shop.toml", "/etc/more.toml"]
with_builtin = false
[writer]
lane_count = 4
batch_max_events = 500
batch_max_bytes = 1000
shutdown_timeout_s = 5
retry_within_s = 2.5
[postgres]
bin_dir = "pg/bin"
[log]
level = "debug"
[procedures]
UPSERT_DM_MESSAGE = "upsert_message"
SQL_PROC_DELETE_DM_MESSAGE = "mine.delete_message"
""",
    )
    assert settings.is_mirror_on
    assert (settings.firestore.project, settings.firestore.database) == ("shop", "eu")
    assert settings.text_of("documents.dsn") == "postgresql://documents"
    assert settings.text_of("sql.dsn") == "postgresql://sql"
    assert settings.text_of("bus.dsn") == "postgresql://bus"
    assert settings.sql.schema_name == "mirror"
    assert (settings.bus.topic, settings.bus.subscription) == ("t", "s")
    assert settings.model.files == (Path("shop.toml"), Path("/etc/more.toml"))
    assert settings.writer.retry_within_s == 2.5
    assert settings.postgres.bin_dir == Path("pg/bin")
    assert settings.log.level == "debug"
    assert settings.procedures == {
        "SQL_PROC_UPSERT_DM_MESSAGE": "upsert_message",
        "SQL_PROC_DELETE_DM_MESSAGE": "mine.delete_message",
    }


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """A service is not started from the folder of its settings."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "s.toml").write_text('[model]\nfiles = ["shop.toml"]\n[postgres]\nbin_dir = "pg"\n')
    settings = load_settings(folder / "s.toml", {})
    assert settings.model.files == (folder / "shop.toml",)
    assert settings.postgres.bin_dir == folder / "pg"


def test_the_environment_overrides_the_file() -> None:
    """Containers are set up by variables."""
    settings = settings_of(
        '[sql]\ndsn = "postgresql://file"\n[bus]\ntopic = "file"\n'
        '[procedures]\nUPSERT_DM_MESSAGE = "file"\nDELETE_DM_MESSAGE = "file"\n',
        {
            "STOREMIRROR_SQL_DSN": DSN,
            "SERVICEBUS_TOPIC_REALTIME_MIRROR": "env",
            "SERVICEBUS_SUBSCRIPTION_SQL_WRITER": "writer",
            "SQL_PROC_UPSERT_DM_MESSAGE": "env",
            "USE_SQL_DM_WRITE_MIRROR": "true",
            "STOREMIRROR_POSTGRES_BIN": "/opt/pg/bin",
            "STOREMIRROR_WRITER_LANE_COUNT": "8",
            "STOREMIRROR_MODEL_FILES": os.pathsep.join(["a.toml", "b.toml"]),
            "PATH": "/bin",
        },
    )
    assert settings.text_of("sql.dsn") == DSN
    assert (settings.bus.topic, settings.bus.subscription) == ("env", "writer")
    assert settings.procedures == {
        "SQL_PROC_UPSERT_DM_MESSAGE": "env",
        "SQL_PROC_DELETE_DM_MESSAGE": "file",
    }
    assert settings.is_mirror_on
    assert settings.postgres.bin_dir == Path("/opt/pg/bin")
    assert settings.writer.lane_count == 8
    assert settings.model.files == (Path("a.toml"), Path("b.toml"))


#: Default, as the reference shows it -> another value that is right.
OTHER = {
    "postgres": "servicebus",
    "true": "false",
    "false": "true",
    "2": "3",
    "2000": "3",
    "8000000": "3",
    "10.0": "3",
}
OTHER |= {"30.0": "3", '"info"': "error", '"embedded"': "firestore", "8085": "3"}
OTHER |= {
    '"127.0.0.1"': "0.0.0.0",
    "512": "1024",
    "80": "3",
    "0": "3",
    "10": "3",
    "50.0": "3",
    "16": "3",
}
OTHER |= {"60.0": "3", "25.0": "3", '"postgres"': "servicebus"}
OTHER |= {
    "8086": "3",
    "600": "3",
    "6000": "3",
    "256": "3",
    "20.0": "3",
    "262144": "2000",
    "30": "3",
}
OTHER |= {"16": "3"}
OTHER |= {"100": "3", '"firestore"': "sql", "1.0": "0.5", "5.0": "3", "0.25": "3"}
#: Of a certain form, and not set by default.
FORMED = {"gateway.allowed_origins": "https://app.example.com", "gateway.sends_per_minute": "3"}


@pytest.mark.parametrize("doc", settings_reference(), ids=lambda doc: doc.name)
def test_every_variable_of_the_reference_is_read(doc: SettingDoc) -> None:
    """A documented variable that nothing reads would be set in vain."""
    other = FORMED.get(doc.name) or OTHER.get(doc.default, "other")
    settings = load_settings(None, {doc.variable: other})
    assert settings != Settings()


def test_an_empty_variable_counts_as_not_set() -> None:
    """Compose files hand through what nobody has set as an empty string."""
    environ = {"STOREMIRROR_SQL_DSN": "", "USE_SQL_DM_WRITE_MIRROR": " "}
    settings = settings_of(f'[sql]\ndsn = "{DSN}"\n', environ)
    assert settings.text_of("sql.dsn") == DSN
    assert settings.is_mirror_on is False


@pytest.mark.parametrize(
    ("text", "is_on"),
    [("true", True), ("1", True), ("True", True), ("false", False), ("0", False)],
)
def test_the_master_switch_takes_true_and_false(text: str, is_on: bool) -> None:
    """Shells and YAML spell it differently."""
    assert load_settings(None, {"USE_SQL_DM_WRITE_MIRROR": text}).is_mirror_on is is_on


@pytest.mark.parametrize("text", ["yes", "on", "2", "ture"])
def test_the_master_switch_takes_nothing_else(text: str) -> None:
    """A slip must neither switch the mirror on nor leave it off unseen."""
    assert problems_of("", {"USE_SQL_DM_WRITE_MIRROR": text}) == [
        "USE_SQL_DM_WRITE_MIRROR (environment): is neither true nor false. "
        "Write true, false, 1 or 0."
    ]


PLANTED = [
    ("[sql]\ndsn = 5", "sql.dsn", 2, "must be a string, not a whole number"),
    ('[sql]\ndsn = " "', "sql.dsn", 2, "is blank"),
    ('[sql]\nschema_name = "a-b"', "sql.schema_name", 2, "is no SQL identifier"),
    ('[sql]\nshcema_name = "a"', "sql.shcema_name", 2, "Did you mean 'schema_name'?"),
    ("[wrter]", "wrter", 1, "Did you mean 'writer'?"),
    ("sql = 5", "sql", 1, "must be a table, not a whole number"),
    ("[writer]\n\nlane_count = 17", "writer.lane_count", 3, "1 to 16 connections"),
    ("[writer]\nlane_count = 0", "writer.lane_count", 2, "1 to 16 connections"),
    ('[writer]\nlane_count = "x"', "writer.lane_count", 2, "must be a whole number"),
    ("[writer]\nbatch_max_events = 2001", "writer.batch_max_events", 2, "1 to 2000 events"),
    ("[writer]\nshutdown_timeout_s = nan", "writer.shutdown_timeout_s", 2, "a finite number."),
    ("[writer]\nretry_within_s = -1", "writer.retry_within_s", 2, "greater than or equal to 0"),
    ("[model]\nfiles = 3", "model.files", 2, "must be a list, not a whole number"),
    ("[model]\nfiles = [\n3]", "model.files.0", 3, "must be a path, not a whole number"),
    ('[model]\nwith_builtin = "no"', "model.with_builtin", 2, "is neither true nor false"),
    ('[log]\nlevel = "loud"', "log.level", 2, "'debug', 'info', 'warning' or 'error'"),
    ('[procedures]\nlow = "x"', "procedures.low", 2, "no procedure's setting"),
    ('[procedures]\nX = "drop table"', "procedures.X", 2, "is no name of a procedure"),
    ('[procedures]\nX = "a.b.c"', "procedures.X", 2, "is no name of a procedure"),
    ("[procedures]\nX = 3", "procedures.X", 2, "must be a string, not a whole number"),
    ("procedures = 3", "procedures", 1, "must be a table, not a whole number"),
    ('[procedures]\nX = "a"\nSQL_PROC_X = "b"', "procedures.SQL_PROC_X", 3, "stands twice"),
]


@pytest.mark.parametrize(("text", "name", "line", "what"), PLANTED, ids=[p[0] for p in PLANTED])
def test_a_wrong_setting_is_named_with_file_line_and_cure(
    text: str, name: str, line: int, what: str
) -> None:
    """The message is all that an operator has."""
    (problem,) = problems_of(text)
    assert problem.startswith(f"{name} (storemirror.toml line {line}): ")
    assert what in problem


@pytest.mark.parametrize(
    ("variable", "value", "what"),
    [
        ("SQL_PROC_UPSERT_DM_MESSAGE", "a b", "is no name of a procedure"),
        ("SQL_PROC_upsert", "a", "is no procedure's setting"),
        ("STOREMIRROR_WRITER_LANE_COUNT", "many", "must be a whole number"),
        ("STOREMIRROR_SQL_SCHEMA_NAME", "1st", "is no SQL identifier"),
        ("STOREMIRROR_SQL_DNS", DSN, "Did you mean STOREMIRROR_SQL_DSN?"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, what: str) -> None:
    """Not the setting in the file, which may be right."""
    (problem,) = problems_of("", {variable: value})
    assert problem.startswith(f"{variable} (environment): ")
    assert what in problem


def test_variables_of_others_are_left_alone() -> None:
    """Tests and tools have variables of their own."""
    environ = {"STOREMIRROR_TEST_POSTGRES_BIN": "/opt", "STOREMIRROR_UNHEARD_OF": "1"}
    assert load_settings(None, environ) == Settings()


def test_all_problems_are_reported_at_once() -> None:
    """Nobody mends settings one start at a time."""
    problems = problems_of(
        "\n".join(["wrong = 1", "[bus]", 'dsn = ""', "[writer]", "lane_count = 99"]),
        {"USE_SQL_DM_WRITE_MIRROR": "yes", "SQL_PROC_X": "1", "STOREMIRROR_BUS_TOPIX": "t"},
    )
    assert sorted(p.partition(" (")[0] for p in problems) == [
        "SQL_PROC_X",
        "USE_SQL_DM_WRITE_MIRROR",
        "bus.dsn",
        "writer.lane_count",
        "wrong",
    ]


def test_no_text_shows_a_password() -> None:
    """Errors and settings end up in logs."""
    settings = load_settings(None, {"STOREMIRROR_SQL_DSN": DSN})
    assert PASSWORD not in f"{settings!r}{settings}{settings.model_dump_json()}"
    assert isinstance(settings.sql.dsn, SecretStr)
    with pytest.raises(ConfigError) as caught:
        settings_of(f'dsn = "{DSN}"\n[sql]\ndsn = ["{DSN}"]\nschema_name = "{DSN}"\n')
    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_settings_cannot_be_changed() -> None:
    """What was checked at the start must hold until the end."""
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.sql.schema_name = "other"


def test_what_a_command_needs_is_reported_at_once() -> None:
    """With the place in the file and the variable, for each."""
    settings = load_settings(None, {"STOREMIRROR_SQL_DSN": DSN})
    settings.require("sql.dsn")
    with pytest.raises(ConfigError) as caught:
        settings.require("sql.dsn", "bus.dsn", "firestore.project")
    head, *lines = str(caught.value).split("\n  ")
    assert head == "2 settings are missing; nothing was started"
    assert lines[0].startswith("bus.dsn is not set: where the bus on PostgreSQL is")
    assert lines[0].endswith("Set STOREMIRROR_BUS_DSN, or dsn under [bus] in storemirror.toml.")
    assert lines[1].startswith("firestore.project is not set")


def test_the_text_of_a_setting_must_be_set() -> None:
    """None in its place would reach the driver."""
    with pytest.raises(ConfigError, match=re.escape("1 setting is missing")):
        Settings().text_of("bus.dsn")
    assert Settings().text_of("bus.topic") == "realtime-mirror"


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    """An argument comes first, then the variable, then the working directory."""
    for name in ("argument", "variable", "storemirror"):
        (tmp_path / f"{name}.toml").write_text(f'[bus]\ntopic = "{name}"\n')
    environ = {"STOREMIRROR_CONFIG": str(tmp_path / "variable.toml")}
    assert load_settings(tmp_path / "argument.toml", environ).bus.topic == "argument"
    assert load_settings(None, environ).bus.topic == "variable"
    assert load_settings(None, {}).bus.topic == "storemirror"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[sql\n", "s.toml line 1: is no TOML"),
        (b"[sql]\ndsn = 1\ndsn = 2\n", "s.toml line 3: is no TOML: Cannot overwrite a value"),
        (b"a = '\xe4'", "s.toml: is not UTF-8"),
        (b"a = " + b"[" * 100_000, "s.toml: is no TOML: nested too deeply"),
    ],
)
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    """With the line, where there is one."""
    (tmp_path / "s.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_settings(Path("s.toml"), {})


def test_a_file_that_is_not_there_is_named() -> None:
    """A misspelled path must not mean the defaults."""
    with pytest.raises(ConfigError, match=r"gone\.toml: cannot be read: No such file"):
        load_settings(None, {"STOREMIRROR_CONFIG": "gone.toml"})


def test_the_reference_lists_every_setting_once() -> None:
    """docs/reference/settings.md is made from it."""
    docs = settings_reference()
    names, variables = [d.name for d in docs], [d.variable for d in docs]
    assert len(set(names)) == len(set(variables)) == len(docs)
    assert {"sql.dsn", "bus.topic", "is_mirror_on", "writer.lane_count"} <= set(names)
    assert all(doc.what for doc in docs)
    assert next(d for d in docs if d.name == "bus.topic").default == '"realtime-mirror"'


def test_the_line_of_a_key_is_found_in_every_spelling() -> None:
    """Arrays of tables are counted; quoted, dotted and inline keys are the same keys."""
    lines = TomlLines(
        "\n".join(
            [
                'a."b.c" = [ # one',
                "  1,",
                "  { d = 2 },",
                "]",
                "[[e]]",
                "[e.f]",
                "g = 1",
                "[[e]]",
                "[[e.h]]",
                "[[e.h]]",
                "i = 1",
            ]
        )
    )
    assert lines["a", "b.c"] == 1
    assert lines["a", "b.c", 1, "d"] == 3
    assert lines["e", 0, "f", "g"] == 7
    assert lines["e", 1, "h", 1, "i"] == 11
    assert lines.nearest(("e", 1, "h", 0, "missing")) == 9
    assert lines.nearest(("z",)) == 0
    assert len(lines) == len(list(lines))
