"""Reading one variable: what is accepted, and that a refusal names the variable."""

import pytest

from annotate import env


@pytest.fixture(autouse=True)
def own_register(monkeypatch):
    monkeypatch.setattr(env, "variables", {})


def test_text_is_the_value_and_remembered(monkeypatch):
    monkeypatch.setenv("COLOUR", " red ")
    assert env.text("COLOUR", "blue", "Which colour.") == "red"
    assert env.variables["COLOUR"] == env.Variable("COLOUR", "blue", "Which colour.")


def test_empty_counts_as_unset(monkeypatch):
    monkeypatch.setenv("COLOUR", "")
    assert env.text("COLOUR", "blue", "Which colour.") == "blue"


def test_text_outside_its_choices_is_refused(monkeypatch):
    monkeypatch.setenv("COLOUR", "green")
    with pytest.raises(env.BadSetting, match=r"^COLOUR must be one of red, blue, not 'green'$"):
        env.text("COLOUR", "blue", "Which colour.", choices=("red", "blue"))


def test_secret_from_a_file(monkeypatch, tmp_path):
    (tmp_path / "key").write_text("s3cret\n")
    monkeypatch.setenv("KEY_FILE", str(tmp_path / "key"))
    assert env.secret("KEY", "A key.") == "s3cret"


def test_secret_set_twice_is_refused(monkeypatch, tmp_path):
    (tmp_path / "key").write_text("one")
    monkeypatch.setenv("KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("KEY", "two")
    with pytest.raises(env.BadSetting, match=r"^KEY and KEY_FILE are both set; keep one$"):
        env.secret("KEY", "A key.")


def test_secret_file_that_is_missing_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("KEY_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(env.BadSetting, match=r"^KEY_FILE cannot be read: No such file"):
        env.secret("KEY", "A key.")


def test_the_key_of_a_server_is_no_setting(monkeypatch, tmp_path):
    assert env.key("VLLM_API_KEY") == ""
    monkeypatch.setenv("VLLM_API_KEY", " s3cret ")
    assert env.key("VLLM_API_KEY") == "s3cret"
    (tmp_path / "key").write_text("of a file\n")
    monkeypatch.setenv("OTHER_API_KEY_FILE", str(tmp_path / "key"))
    assert env.key("OTHER_API_KEY") == "of a file"
    (tmp_path / "key").write_bytes(b"\xff")
    with pytest.raises(env.BadSetting, match=r"^OTHER_API_KEY_FILE cannot be read: it is no text"):
        env.key("OTHER_API_KEY")
    assert env.variables == {}


def test_integer(monkeypatch):
    monkeypatch.setenv("COUNT", "7")
    assert env.integer("COUNT", 3, "How many.") == 7


@pytest.mark.parametrize("value", ["seven", "1.5", "0", "9"])
def test_integer_that_cannot_be_used_is_refused(monkeypatch, value):
    monkeypatch.setenv("COUNT", value)
    with pytest.raises(env.BadSetting, match=r"^COUNT must be "):
        env.integer("COUNT", 3, "How many.", least=1, most=8)


@pytest.mark.parametrize("value", ["often", "nan", "-1", "1.1"])
def test_number_that_cannot_be_used_is_refused(monkeypatch, value):
    monkeypatch.setenv("SHARE", value)
    with pytest.raises(env.BadSetting, match=r"^SHARE must be "):
        env.number("SHARE", 0.5, "How much.", most=1)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999"])
def test_a_number_without_end_is_none(monkeypatch, value):
    monkeypatch.setenv("MEMORY", value)
    with pytest.raises(env.BadSetting, match=r"^MEMORY must be a number, not "):
        env.number("MEMORY", 0, "How much.")


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("YES", True), ("off", False), ("false", False)])
def test_flag(monkeypatch, value, expected):
    monkeypatch.setenv("LOUD", value)
    assert env.flag("LOUD", not expected, "Whether loud.") is expected


def test_flag_that_is_neither_is_refused(monkeypatch):
    monkeypatch.setenv("LOUD", "maybe")
    with pytest.raises(env.BadSetting, match=r"^LOUD must be yes or no, not 'maybe'$"):
        env.flag("LOUD", False, "Whether loud.")


def test_words(monkeypatch):
    monkeypatch.setenv("NAMES", "a, b,,c ")
    assert env.words("NAMES", [], "Who.") == ["a", "b", "c"]


def test_folder_is_absolute_and_need_not_exist(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACE", "new")
    assert env.folder("PLACE", tmp_path, "Where.") == tmp_path / "new"


def test_folder_that_is_a_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PLACE", str(tmp_path / "file"))
    with pytest.raises(env.BadSetting, match=r"^PLACE is not a folder: "):
        env.folder("PLACE", tmp_path, "Where.")


def test_the_example_shows_what_was_read(monkeypatch):
    monkeypatch.setenv("COUNT", "7")
    env.integer("COUNT", 3, "How many.")
    env.secret("KEY", "A key.")
    assert "\n# How many.\n#COUNT=3\n" in env.example()
    assert "\n# A key. Or KEY_FILE: a file that holds it.\n#KEY=\n" in env.example()
