# SPDX-License-Identifier: Apache-2.0
"""The man pages and schemas are those the program's tables make, and read well."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
MAN = sorted((PROJECT / "man").glob("*.[0-9]"))
NAMES = {path.name for path in MAN}

sys.path.insert(0, str(PROJECT))
from docs import roff, tables  # noqa: E402


def test_what_is_made_is_up_to_date() -> None:
    command = [sys.executable, "-m", "docs", "--check"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_page_for_each_program_and_document() -> None:
    sections = {1: ["maestro"], 5: ["maestro.yaml", "maestro-running-config", "maestro-template"]}
    sections |= {7: ["maestro-api"], 8: ["maestrod"]}
    assert {f"{name}.{section}" for section, names in sections.items() for name in names} == NAMES


@pytest.mark.parametrize("path", MAN, ids=lambda path: path.name)
@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff")
def test_a_page_is_set_without_a_warning(path: Path) -> None:
    command = ["groff", "-ww", "-man", "-Tutf8", "-rLL=80n", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", MAN, ids=lambda path: path.name)
@pytest.mark.skipif(not shutil.which("mandoc"), reason="needs mandoc")
def test_mandoc_finds_nothing_to_warn_of(path: Path) -> None:
    command = ["mandoc", "-T", "lint", "-W", "warning", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", MAN, ids=lambda path: path.name)
def test_pages_refer_to_pages_that_are_there(path: Path) -> None:
    for name, section in re.findall(r"\\fB(maestro[\w.\\-]*)\\fR\((\d)\)", path.read_text()):
        assert f"{name}.{section}".replace("\\-", "-") in NAMES


# The markup


def body(text: str) -> str:
    made = roff.page("# x(1) - an x\n" + text)
    return made.partition(".SH NAME\nx \\- an x\n")[2]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("## A b\n\nA text\ngoes on.\n\nAnother.", '.SH "A B"\nA text goes on.\n.PP\nAnother.\n'),
        (
            "## S\n### P\n`--a-b` *F*\n: It\n  is.",
            ".SH S\n.SS P\n.TP\n\\fB\\-\\-a\\-b\\fR \\fIF\\fR\nIt is.\n",
        ),
        ("## S\n- one\n- **two**\n", ".SH S\n.IP \\(bu 2\none\n.IP \\(bu 2\n\\fBtwo\\fR\n"),
        ("## S\n```sh\n.x 'a' \\\n```\n", ".SH S\n.RS 4\n.EX\n\\&.x \\(aqa\\(aq \\e\n.EE\n.RE\n"),
        ("## S\n.dot \\ 'quote'", ".SH S\n\\&.dot \\e 'quote'\n"),
        ("## S\none  \ntwo", ".SH S\none\n.br\ntwo\n"),
        ("## S\n* and ? match several; 2*3*4", ".SH S\n* and ? match several; 2*3*4\n"),
    ],
)
def test_markup_becomes_man(text: str, made: str) -> None:
    assert body(text) == made


def test_a_page_without_a_title_is_refused() -> None:
    with pytest.raises(roff.BadPage):
        roff.page("text")


def test_an_unknown_mark_is_refused() -> None:
    with pytest.raises(KeyError):
        tables.fill("{{nonsense}}")
