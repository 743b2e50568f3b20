"""Rules for the files of the page at /."""

from __future__ import annotations

import re

import pytest

from gateway.web.page.files import FILES, FOLDER

LARGEST = 150_000  # bytes, of all files together
INDEX = (FOLDER / "index.html").read_text("utf-8")
SCRIPTS = sorted(name for name in FILES if name.endswith(".js"))


def test_every_file_of_the_page_is_served_and_is_there() -> None:
    served = {*FILES, "index.html", "files.py", "__init__.py"}
    assert {file.name for file in FOLDER.iterdir() if file.name != "__pycache__"} == served


def test_the_document_loads_each_stylesheet_and_preloads_each_module() -> None:
    """A module that is not named here is asked for only when the one that imports it has come."""
    named = re.findall(r'(?:href|src)="page/([\w.]+)"', INDEX)
    assert sorted(set(named)) == sorted(FILES)
    preloaded = re.findall(r'<link rel="modulepreload" href="page/([\w.]+)">', INDEX)
    assert preloaded == [name for name in SCRIPTS if name != "app.js"]
    assert re.findall(r"<script[^>]*>", INDEX) == ['<script type="module" src="page/app.js">']


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_module_imports_what_is_served_and_nothing_else(name: str) -> None:
    text = (FOLDER / name).read_text("utf-8")
    assert "import(" not in text
    assert set(re.findall(r'^import .*"([^"]+)";$', text, re.MULTILINE)) <= {f"./{other}" for other in SCRIPTS}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_module_makes_no_html_from_text_and_no_code(name: str) -> None:
    """The browser refuses it too, but only where a person comes to it."""
    text = (FOLDER / name).read_text("utf-8")
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc", text) == []
    )


def test_the_page_is_small() -> None:
    assert sum((FOLDER / name).stat().st_size for name in (*FILES, "index.html")) < LARGEST
