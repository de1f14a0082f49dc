"""What a configuration file and variables may say, and what is said about a bad one."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market.config.files import load, parse, render_default
from compute_market.config.rows import SETTINGS, file_form
from compute_market.config.settings import DEFAULTS, Config
from compute_market.errors import UsageError

ROOT = Path(__file__).parents[2]


FIELDS = {setting.name: setting.field for setting in SETTINGS}


def settings(text: str, **environment: str) -> Config:
    return load(text, "config.toml", environment)[0]


def refusal(content: bytes | str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(content, "home/config.toml")
    return caught.value


def test_default_file_equals_the_code() -> None:
    assert (ROOT / "config.toml").read_text(encoding="utf-8") == render_default()


def test_default_file_has_every_setting_with_its_default_and_a_comment() -> None:
    lines = render_default().splitlines()
    found = parse(render_default(), "config.toml")
    assert list(found) == list(FIELDS)
    for name, each in found.items():
        value, origin = each.value, each.origin
        assert value == getattr(DEFAULTS, FIELDS[name])
        number = int(origin.removeprefix("config.toml:"))
        assert lines[number - 1].startswith(name.split(".")[-1] + " = ")
        assert lines[number - 2].startswith("# Allowed: ")
        assert lines[number - 3].startswith("# ")


def test_default_file_switched_off_changes_nothing() -> None:
    text = render_default(switched_off=True)
    assert load(text) == load()
    on = [line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in text.splitlines()]
    assert list(parse("\n".join(on), "config.toml")) == list(FIELDS)


def test_load_of_nothing_gives_defaults() -> None:
    config, origins = load()
    assert config == DEFAULTS == load("", environment={})[0]
    assert origins == dict.fromkeys(FIELDS, "default")


def test_load_prefers_variable_over_file_over_default() -> None:
    config, origins = load(
        "epoch_blocks = 5\nmin_capacity = 20\n[scheduler]\nslots = 7\n",
        "/home/x/config.toml",
        {"TB_SCHEDULER_SLOTS": "8", "TB_EPOCH_BLOCKS": "6", "TB_FAIR_SHARE_CAP": "0.5"},
    )
    assert (config.slots, config.epoch_blocks, config.min_capacity) == (8, 6, 20)
    assert config.fair_share_cap_ppm == 500_000
    assert {name: origin for name, origin in origins.items() if origin != "default"} == {
        "scheduler.slots": "TB_SCHEDULER_SLOTS",
        "epoch_blocks": "TB_EPOCH_BLOCKS",
        "fair_share_cap": "TB_FAIR_SHARE_CAP",
        "min_capacity": "/home/x/config.toml:2",
    }


def test_load_leaves_other_variables_alone() -> None:
    others = {"TB_HOME": "/x", "TB_DEBUG": "1", "TB_SLOTS": "9", "EPOCH_BLOCKS": "9", "TB_": ""}
    assert load(None, "config.toml", others) == load()


def test_load_checks_the_file_even_where_a_variable_wins() -> None:
    with pytest.raises(UsageError, match="epoch_blocks: 0 is not"):
        settings("epoch_blocks = 0", TB_EPOCH_BLOCKS="6")


@pytest.mark.parametrize(
    "text",
    [
        "epoch_blocks = 7",
        "[compute_market]\nepoch_blocks = 7",
        "compute_market.epoch_blocks = 7",
        "compute_market = { epoch_blocks = 7 }",
        '"epoch_blocks" = 0x7',
        "epoch_blocks = 7\r\n[scheduler]\r\n",
        "# a comment …\n\n  epoch_blocks  = 0_7 # another\n".replace("0_7", "7"),
    ],
)
def test_parse_accepts_every_place_and_spelling(text: str) -> None:
    assert settings(text) == Config(epoch_blocks=7)
    assert load(text.encode())[0] == Config(epoch_blocks=7)


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ("epoch_blocks = 7", "epoch_blocks", 1),
        ("\n# epoch_blocks = 8\n\nepoch_blocks = 7", "epoch_blocks", 4),
        ("[scheduler]\r\n\r\nslots = 7\r\n", "scheduler.slots", 3),
        ("[compute_market]\n[scheduler]\n#\nslots = 7\n", "scheduler.slots", 4),
        ("[scheduler]\n[compute_market]\nmin_capacity = 7\n", "min_capacity", 3),
        ("\nscheduler.slots = 7", "scheduler.slots", 2),
        ("\nscheduler = {slots = 7}", "scheduler.slots", 2),
        ('settle_mode = """\\\n   real\\\n"""\nepoch_blocks = 7', "epoch_blocks", 4),
        ("settle_mode = '''\nreal'''", "settle_mode", 1),
    ],
)
def test_parse_names_the_line(text: str, name: str, line: int) -> None:
    assert parse(text, "f")[name].origin == f"f:{line}"


@pytest.mark.parametrize(
    ("written", "ppm"),
    [
        ("0.58", 580_000),
        ('"0.58"', 580_000),
        ("0.700001", 700_001),
        ("0.000_001", 1),
        ("1", 1_000_000),
        ("'1'", 1_000_000),
        ("1.000000", 1_000_000),
        ("0.999999", 999_999),
    ],
)
def test_parse_reads_decimals_exactly(written: str, ppm: int) -> None:
    found = parse(f"reputation_multiplier_min = {written}", "f")
    assert found["reputation_multiplier_min"].value == ppm


def test_parse_reads_decimals_no_binary_float_holds() -> None:
    # As a float the quota would come out as 100000000.1.
    assert settings("burst_quota = 100000000.100001").burst_quota_micro == 100_000_000_100_001


@given(st.integers(0, 10**15))
def test_file_form_reads_back(micro: int) -> None:
    burst_quota = next(setting for setting in SETTINGS if setting.name == "burst_quota")
    text = file_form(burst_quota, micro)
    assert settings(f"burst_quota = {text}").burst_quota_micro == micro
    assert settings("", TB_BURST_QUOTA=text).burst_quota_micro == micro


NUMBER = "expected a number with at most 6 decimals and no exponent, 0.000001…1.0; found "


BAD_FILES = [
    # content, what the message begins with after the file's name, the hint's beginning
    ("epoch_blocks = 0", ":1: epoch_blocks: 0 is not 1…1000000000 blocks", None),
    ("\nmin_capacity = 10001", ":2: min_capacity: 10001 is not 1…10000 units per second", None),
    ("low_priority_cap_pct = -1", ":1: low_priority_cap_pct: -1 is not 0…100 percent", None),
    ("[scheduler]\nslots = 1000001", ":2: scheduler.slots: 1000001 is not 1…1000000 jobs", None),
    (
        "epoch_blocks = true",
        ":1: epoch_blocks: expected a whole number, 1…1000000000 blocks; found true",
        None,
    ),
    ("epoch_blocks = '7'", ":1: epoch_blocks: expected a whole number, 1…1000000000 blocks", None),
    ("epoch_blocks = 7.0", ":1: epoch_blocks: expected a whole number, 1…1000000000 blocks", None),
    ("min_capacity = []", ":1: min_capacity: expected a whole number, 1…10000 units per s", None),
    (
        "\n[min_capacity]",
        ":2: min_capacity: expected a whole number, 1…10000 units per second; found a table",
        None,
    ),
    ("fair_share_cap = 0.009999", ":1: fair_share_cap: 0.009999 is not 0.01…1.0", None),
    ("fair_share_cap = 1.000001", ":1: fair_share_cap: 1.000001 is not 0.01…1.0", None),
    ("burst_refill_rate = 2", ":1: burst_refill_rate: 2 is not 0.0…1.0 units per second", None),
    ("reputation_multiplier_min = 0", ":1: reputation_multiplier_min: 0 is not 0.000001…1", None),
    *(
        (f"reputation_multiplier_min = {written}", f":1: reputation_multiplier_min: {NUMBER}", None)
        for written in ("nan", "inf", "-inf", "'nan'", "0.5000001", "5e-1", "-0.5", "-1", "' 1'")
    ),
    *(
        (f"reputation_multiplier_min = {written}", f":1: reputation_multiplier_min: {NUMBER}", None)
        for written in ("true", "''", "'0,5'", "[0.5]", "1979-05-27", "'０.５'", f"0.{'5' * 5000}")
    ),
    ("settle_mode = 'Real'", ':1: settle_mode: \'Real\' is not "dry_run" or "real"', None),
    ("settle_mode = 1", ':1: settle_mode: expected a string, "dry_run" or "real"; found 1', None),
    ("settle_mode = 'armed'", ':1: settle_mode: "armed" cannot be configured', "arming waits"),
    ("epoch_block = 7", ":1: unknown key epoch_block", "did you mean epoch_blocks?"),
    ("slots = 7", ":1: unknown key slots", "did you mean scheduler.slots?"),
    ("'scheduler.slots' = 7", ":1: unknown key scheduler.slots", "did you mean scheduler.slots?"),
    ("[scheduler]\nslot = 7", ":2: unknown key scheduler.slot", "did you mean scheduler.slots?"),
    ("[scheduler]\nepoch_blocks = 7", ":2: unknown key scheduler.epoch_blocks", "did you mean epo"),
    ("[compute_market]\nslots = 7", ":2: unknown key compute_market.slots", "did you mean sched"),
    ("[compute_market]\nx.y = 7", ":2: unknown key compute_market.x", "`config show` lists"),
    ("\nzzz = 7", ":2: unknown key zzz", "`config show` lists every key"),
    ('"a\\nb" = 7', ":1: unknown key 'a\\nb'", "`config show` lists every key"),
    ("#\n[schedular]\nslots = 7", ":2: unknown section [schedular]", "did you mean [scheduler]?"),
    ("scheduler = 7", ":1: scheduler is a section, not a key", "write [scheduler] on"),
    ("[[scheduler]]\nslots = 7", ":1: scheduler is a section, not a key", "write [scheduler] on"),
    ("[scheduler.slots]", ":1: scheduler.slots: expected a whole number, 1…1000000 jobs; f", None),
    (
        "epoch_blocks = 7\n[compute_market]\n\nepoch_blocks = 7",
        ":4: epoch_blocks is set twice, first at home/config.toml:1",
        "keep it either at the top level or in [compute_market]",
    ),
    # What follows is Python's wording, which changes between its versions.
    ("a = 1\na = 2\n", ":2: not valid TOML: ", "the line is 'a = 2'"),
    ("[scheduler]\n\n[scheduler]\n", ":3: not valid TOML: ", "the line is '[scheduler]'"),
    ("epoch_blocks = \nb = 1", ":1: not valid TOML: ", "the line is 'epoch_blocks ='"),
    ("#\nepoch_blocks = {a = 1", ":2: not valid TOML: ", "the line is 'epoch_blocks = {a = 1'"),
    ("#\r\na = 'x\x00'", ":2: not valid TOML: ", "the line is \"a = 'x\\x00'\""),
    ("\na = " + "[" * 20_000, ":2: nested too deeply", None),
    ("a = 1\nb =" + "[\n" * 5_000, ":2: nested too deeply", None),
    ("\n\nepoch_blocks = " + "9" * 5_000, ":3: a number of more than 4300 digits", None),
    (
        "epoch_blocks = 0x" + "f" * 5_000,
        ":1: epoch_blocks: a number of more than 40 digits is not 1…1000000000 blocks",
        None,
    ),
    ("a" + ".a" * 5_000 + " = 1", ":1: unknown section [a]", "`config show` lists every key"),
    ("\na = '''x\n\n", ":2: not valid TOML: ", "the line is \"a = '''x\""),
    ("z" * 5_000 + " = 1", ":1: unknown key zzz", "`config show` lists every key"),
    (b"#\n# \xc3\xa4 \xff", ":2: not UTF-8 text: byte 0xff at offset 7", None),
]


@pytest.mark.parametrize(("content", "message", "hint"), BAD_FILES)
def test_parse_refuses_naming_file_line_and_key(
    content: bytes | str, message: str, hint: str | None
) -> None:
    error = refusal(content)
    assert error.message.startswith("home/config.toml" + message)
    assert (error.hint or "").startswith(hint or "")
    assert (error.hint is None) == (hint is None)
    assert error.exit_code == 2


@pytest.mark.parametrize("content", [content for content, _, _ in BAD_FILES])
def test_parse_refuses_in_one_short_line(content: bytes | str) -> None:
    message = refusal(content).message
    assert message.isprintable()
    assert len(message) < 220


def test_parse_refuses_each_setting_beyond_its_bounds() -> None:
    for setting in SETTINGS:
        if setting.kind not in ("integer", "decimal"):
            continue
        least, most = (int(bound) for bound in setting.allowed)
        for bound, beyond in ((least, least - 1), (most, most + 1)):
            *section, key = setting.name.split(".")
            line = "".join(f"[{name}]\n" for name in section) + f"{key} = "
            assert parse(line + file_form(setting, bound), "f")[setting.name].value == bound
            if beyond >= 0:
                with pytest.raises(UsageError, match="is not"):
                    parse(line + file_form(setting, beyond), "f")


@pytest.mark.parametrize("path", ["", "/", "/srv/slices", '/a "quoted\\" name', "/é"])
def test_parse_takes_an_absolute_path(path: str) -> None:
    (setting,) = (each for each in SETTINGS if each.name == "slice_root")
    assert parse(f"slice_root = {file_form(setting, path)}", "f")["slice_root"].value == path
    assert load(None, "f", {"TB_SLICE_ROOT": path})[0].slice_root == path


KEY_IDS = ("ab" * 32, "01" * 32)


@pytest.mark.parametrize("key_ids", [(), KEY_IDS[:1], KEY_IDS])
def test_parse_takes_a_list_of_key_ids(key_ids: tuple[str, ...]) -> None:
    (setting,) = (each for each in SETTINGS if each.name == "net.trusted")
    found = parse(f"[net]\ntrusted = {file_form(setting, key_ids)}", "f")
    assert found["net.trusted"].value == key_ids
    assert settings("", TB_NET_TRUSTED=",".join(key_ids)).net_trusted == key_ids
    lines = "".join(f'  "{key_id}",  # one of them\n' for key_id in key_ids)
    assert settings(f"[net]\ntrusted = [\n{lines}]\n").net_trusted == key_ids


@pytest.mark.parametrize(
    "wrong", ["ab" * 31, "ab" * 33, "AB" * 32, "", " " + "a" * 63, "g" * 64, "٣" * 64, 7, ["a"]]
)
def test_parse_names_what_is_no_key_id_with_its_line(wrong: object) -> None:
    content = f"[net]\n\ntrusted = [{KEY_IDS[0]!r}, {wrong!r}]\n"
    message = refusal(content).message
    assert message.startswith("home/config.toml:3: net.trusted: ")
    assert message.endswith(" is no key id of 64 lower-case hex digits")


@pytest.mark.parametrize("wrong", ["'x'", "7", "{a = 1}", "1.5", "true"])
def test_parse_names_what_is_no_list_of_key_ids(wrong: str) -> None:
    message = refusal(f"[net]\ntrusted = {wrong}\n").message
    assert "trusted: expected a list of key ids of 64 lower-case hex digits; found " in message


@pytest.mark.parametrize("text", [",", f"{KEY_IDS[0]},", f" {KEY_IDS[0]}", "x", "[]"])
def test_load_names_the_variable_of_what_is_no_key_id(text: str) -> None:
    with pytest.raises(UsageError, match=r"^TB_NET_TRUSTED: net\.trusted: .* is no key id"):
        load(None, "f", {"TB_NET_TRUSTED": text})


@pytest.mark.parametrize("path", ["slices", "./slices", "~/slices", " /a", "/a\x1b", "/a\n"])
def test_load_refuses_a_path_that_is_not_absolute(path: str) -> None:
    with pytest.raises(UsageError, match="is not an absolute path"):
        load(None, "f", {"TB_SLICE_ROOT": path})


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("TB_SCHEDULER_SLOTS", "0", "scheduler.slots: 0 is not 1…1000000 jobs"),
        ("TB_SCHEDULER_SLOTS", "-5", "scheduler.slots: -5 is not 1…1000000 jobs"),
        ("TB_SCHEDULER_SLOTS", "", "scheduler.slots: expected a whole number, 1…1000000 jobs; f"),
        ("TB_SCHEDULER_SLOTS", " 7", "scheduler.slots: expected a whole number, 1…1000000 jobs; "),
        ("TB_SCHEDULER_SLOTS", "７", "scheduler.slots: expected a whole number, 1…1000000 jobs; "),
        ("TB_SCHEDULER_SLOTS", "1_0", "scheduler.slots: expected a whole number, 1…1000000 jobs"),
        ("TB_SCHEDULER_SLOTS", "9" * 5000, "scheduler.slots: expected a whole number, 1…1000000"),
        ("TB_FAIR_SHARE_CAP", "nan", "fair_share_cap: expected a number with at most 6 decimals"),
        ("TB_FAIR_SHARE_CAP", "0.1234567", "fair_share_cap: expected a number with at most 6 dec"),
        ("TB_FAIR_SHARE_CAP", "1.5", "fair_share_cap: '1.5' is not 0.01…1.0"),
        ("TB_SETTLE_MODE", "armed", 'settle_mode: "armed" cannot be configured, only "dry_run"'),
        ("TB_SETTLE_MODE", "", 'settle_mode: \'\' is not "dry_run" or "real"'),
    ],
)
def test_load_refuses_a_bad_variable_by_name(variable: str, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load("", "config.toml", {variable: text})
    assert caught.value.message.startswith(f"{variable}: {message}")
    assert len(caught.value.message) < 220


def test_load_refuses_minimum_above_maximum_naming_both_origins() -> None:
    with pytest.raises(UsageError) as caught:
        settings("\nreputation_multiplier_min = 0.9", TB_REPUTATION_MULTIPLIER_MAX="0.899999")
    assert caught.value.message == (
        "reputation_multiplier_min 0.9 (config.toml:2) is above "
        "reputation_multiplier_max 0.899999 (TB_REPUTATION_MULTIPLIER_MAX)"
    )
    with pytest.raises(UsageError, match=r"min 0\.5 \(default\) is above .*max 0\.4 \(config"):
        settings("reputation_multiplier_max = 0.4")
    equal = settings("reputation_multiplier_min = 0.6\nreputation_multiplier_max = 0.6")
    assert equal == Config(multiplier_min_ppm=600_000, multiplier_max_ppm=600_000)


TOML_PIECES = [
    *("epoch_blocks", "slots", "scheduler", "compute_market", "a", "[", "]", "[[", "]]", ".", "="),
    *("\n", "\r\n", "\r", " ", "#", '"', "'", '"""', "'''", "{", "}", ",", "7", "0.5", "-", "nan"),
    *("\\", "true", "1979-05-27", "\n[scheduler]\n", "\nslots = 7\n", " = 1\n", "\u2028", "\ud800"),
]


@given(st.lists(st.sampled_from(TOML_PIECES)).map("".join) | st.binary())
def test_parse_of_anything_gives_known_settings_or_one_line(content: bytes | str) -> None:
    try:
        names, message = set(parse(content, "f")), "f:"
    except UsageError as error:
        names, message = set(FIELDS), error.message
    assert names <= FIELDS.keys()
    assert message.startswith("f:")
    assert message.isprintable()


def test_parse_never_changes_a_bad_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"epoch_blocks = 0\n")
    with pytest.raises(UsageError):
        load(path.read_bytes(), str(path))
    assert path.read_bytes() == b"epoch_blocks = 0\n"
    assert list(tmp_path.iterdir()) == [path]


def test_import_adds_no_module_to_those_the_records_need() -> None:
    script = (
        "import sys, compute_market.amounts, compute_market.records\n"
        "before = set(sys.modules)\n"
        "from compute_market.config import files as config\n"
        "config.load(None, 'config.toml', {'TB_EPOCH_BLOCKS': '9'})\n"
        "print(sorted(name[15:] for name in set(sys.modules) - before))\n"
        "config.load('epoch_blocks = 9\\n[scheduler]\\nslots = 7 # few')\n"
        "print('tomllib' in sys.modules)\n"
        "config.load('epoch_blocks = 0x9')\n"
        "print('tomllib' in sys.modules, 'difflib' in sys.modules)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert shown == (
        "['backends', 'config', 'config.files', 'config.rows', 'config.settings', 'config.toml',"
        " 'home']\n"
        "False\nTrue False\n"
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lock_timeout_secs", "2m", 120),
        ("log_retention_secs", "90d", 90 * 86_400),
        ("deadline_max_secs", "1d12h", 129_600),
        ("courier_backoff_ms", "250ms", 250),
        ("courier_backoff_ms", "2s", 2000),
        ("map_size_gib", "2TiB", 2048),
    ],
)
def test_duration_or_size_may_be_written_as_text(name: str, text: str, value: int) -> None:
    config, _ = load(f'{name} = "{text}"\n')
    assert getattr(config, name) == value
    config, origins = load(environment={f"TB_{name.upper()}": text})
    assert (getattr(config, name), origins[name]) == (value, f"TB_{name.upper()}")


@pytest.mark.parametrize("text", ["soon", "1.5h", "", "10GiB", "-5s"])
def test_text_that_is_no_duration_is_told_with_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match="lock_timeout_secs: expected a whole number") as caught:
        load(environment={"TB_LOCK_TIMEOUT_SECS": text})
    assert caught.value.hint == "90s, 15m, 2h, 3d or 1h30m; a bare number is seconds"
