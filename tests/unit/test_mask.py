"""Which variables are secret, and how their values are masked."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from urllib.parse import quote
from xml.sax import saxutils

import pytest

from runners.mask import USUAL_NAMES, Mask

SECRET = 'p"ä\\ss wörd/+'
MARKS = 'it\'s <a> & "b"/c?'
USUAL = Mask(USUAL_NAMES)


@pytest.mark.parametrize(
    "name",
    [
        "DBT_ENV_SECRET_GIT",
        "PGPASSWORD",
        "MYSQL_PWD",
        "DB_PASS",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "DESTINATION__POSTGRES__CREDENTIALS",
        "DESTINATION__POSTGRES__CREDENTIALS__PASSWORD",
        "DESTINATION__SNOWFLAKE__CREDENTIALS__PRIVATE_KEY_PASSPHRASE",
        "sources__stripe__api_key",
        "OPENLINEAGE__TRANSPORT__AUTH__APIKEY",
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_STORAGE_ACCOUNT_KEY",
    ],
)
def test_variables_with_the_usual_names_of_secrets_are_secret(name: str) -> None:
    assert USUAL.is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "PWD",
        "OLDPWD",
        "HOME",
        "DBT_TARGET",
        "DESTINATION__POSTGRES__CREDENTIALS__HOST",
        "DESTINATION__POSTGRES__CREDENTIALS__USERNAME",
        "CREDENTIALS_DIRECTORY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "KEYBOARD",
        "BYPASS",
    ],
)
def test_variables_with_other_names_are_not_secret(name: str) -> None:
    assert not USUAL.is_secret(name)


def test_names_match_in_any_case_and_a_star_matches_any_text() -> None:
    mask = Mask(("exact", "BEGIN_*", "*middle*"))
    assert all(map(mask.is_secret, ("EXACT", "begin_", "Begin_x", "a_MIDDLE_b")))
    assert not any(map(mask.is_secret, ("EXACTLY", "XBEGIN_", "MIDLE")))


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        json.dumps({"msg": json.dumps([SECRET])}),
        repr({"key": SECRET}),
        f"https://host/?key={quote(SECRET)}&key={quote(SECRET, safe='')}",
    ],
)
def test_a_secret_is_masked_as_plain_text_json_repr_or_part_of_a_url(shown: str) -> None:
    hidden = Mask(("KEY",)).with_secrets_of({"KEY": SECRET}).text(f"see {shown} there")
    assert "***" in hidden
    assert "rd" not in hidden
    assert hidden.startswith("see ")
    assert hidden.endswith(" there")


@pytest.mark.parametrize(
    "shown",
    [
        "select 'it''s <a> & \"b\"/c?'",
        json.dumps({"sql": "select 'it''s <a> & \"b\"/c?'"}),
        shlex.quote(MARKS),
        "+ load 'it'\\''s <a> & \"b\"/c?'",
        "/?key=" + quote(MARKS, safe="!*'()"),  # encodeURIComponent
        quote(MARKS, safe="").replace("%3C", "%3c").replace("%3E", "%3e").replace("%2F", "%2f").replace("%3F", "%3f"),
        saxutils.escape(MARKS),
        saxutils.quoteattr(MARKS),
        html.escape(MARKS),
        "it&apos;s &lt;a&gt; &amp; &quot;b&quot;/c?",
        r'{"key": "it\u0027s \u003ca\u003e \u0026 \"b\"/c?"}',
        r'{"key": "it\'s \u003ca\u003e \u0026 \"b\"/c?"}'.replace(r"\'", "'"),
        ascii(MARKS),
        base64.b64encode(MARKS.encode()).decode(),
        base64.b64encode(f"{MARKS}\n".encode()).decode(),
        base64.urlsafe_b64encode(MARKS.encode()).decode(),
    ],
)
def test_a_secret_is_masked_however_programs_quote_it(shown: str) -> None:
    hidden = Mask(("KEY",)).with_secrets_of({"KEY": MARKS}).text(f"see {shown} there")
    assert hidden.startswith("see ")
    assert hidden.endswith(" there")
    assert "***" in hidden
    assert re.findall("it|c\\?|3[cC]|Pj8|aXQn", hidden) == []


def test_a_secret_is_masked_in_the_literals_of_any_encoding() -> None:
    hidden = Mask(("KEY",)).with_secrets_of({"KEY": "wörd-für-ängste"}).text(ascii({"key": "wörd-für-ängste"}))
    assert hidden == "{'key': '***'}"


def test_each_line_of_a_secret_of_several_lines_is_masked() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhk=\n-----END KEY-----\n"
    mask = Mask(("KEY",)).with_secrets_of({"KEY": key})
    assert mask.text(f"a {key}") == "a ***\n"
    assert mask.text("1: MIIEvQIBADANBg\n2: kqhk=\n") == "1: ***\n2: kqhk=\n"  # five characters are too few


def test_the_password_of_a_url_is_secret_in_any_variable() -> None:
    mask = Mask().with_secrets_of({"WAREHOUSE": "postgresql://loader:open%20sesame@db/lake"})
    assert mask.text("no entry for open sesame, open%20sesame") == "no entry for ***, ***"
    assert mask.text("loader db lake") == "loader db lake"


def test_a_value_shorter_than_six_characters_is_not_masked() -> None:
    mask = Mask(("KEY", "OTHER")).with_secrets_of({"KEY": "12345", "OTHER": " 123456\n"})
    assert mask.text("12345, 123456") == "12345, ***"


def test_the_repr_of_a_mask_contains_no_secret() -> None:
    assert "hunter" not in repr(Mask(("KEY",)).with_secrets_of({"KEY": "hunter22"}))


def test_a_secret_with_lone_surrogates_is_masked() -> None:
    mask = Mask(("KEY",)).with_secrets_of({"KEY": "hunter\udc80\ud800"})
    assert mask.text("\ud800 hunter\udc80\ud800") == "\ud800 ***"
