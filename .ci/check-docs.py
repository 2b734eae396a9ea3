#!/usr/bin/env python3
"""Checks the documentation against the repository. Prints what is wrong, and exits with 1 if anything is.

- Each rule in docs/behaviour names a test, or the script that checks it.
- Each test that a rule in docs/behaviour or docs/adr names exists in the sources.
- Each relative link in a Markdown file leads to a file, and to a heading of it if the link names one.
- Each path that docs/architecture.md names exists.
- Each mention of a file below docs/, anywhere in the repository, names a file that exists.
- Prose in docs/ has at most 120 columns.
- docs/session.svg is what docs/session.py generates.

    python3 .ci/check-docs.py
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_COLUMNS = 120
SOURCES = {".rs", ".py"}
# Where files may mention a file below docs/.
TEXTS = SOURCES | {".md", ".toml", ".sh", ".yml", ".yaml", ".service", ".conf", ""}
# A test's name: words joined by at least three underscores.
TEST_NAME = re.compile(r"`([a-z][a-z0-9]*(?:_[a-z0-9]+){3,})`")
# A script that checks a rule: its path, a trial of `cross/arm-machine`, or a part of `cross/test-package`.
SCRIPT_NAME = re.compile(r"`(?:\.ci|cross)/|\btrials? `|\((?:\w+, )*(?:booted|emulated|openrc|script)\)")
LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)|!\[[^\]]*\]\(([^()\s]+)\)")
SOURCE_ATTRIBUTE = re.compile(r"<(?:img|source)[^>]*\b(?:src|srcset)=\"([^\"]+)\"")
PATH_NAME = re.compile(r"`([\w.-]+(?:/[\w.{},*-]+)*/?)`")
DOCS_MENTION = re.compile(r"\bdocs/[\w./-]*\w\.(?:md|toml|svg|py)\b")
TOP_FOLDERS = ("src", "hal", "operator", "tests", "docs", "cross", "fuzz", "benches", ".ci")


def tracked_files():
    """The files of the repository, those not yet added included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"git cannot list the files: {error}")
    paths = (ROOT / name for name in listed.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


def read(path):
    return path.read_text(encoding="utf-8", errors="replace")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def lines_outside_code(text):
    """Pairs of line number and line, without fenced code blocks."""
    is_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*(```|~~~)", line):
            is_code = not is_code
        elif not is_code:
            yield number, line


def slugs(path):
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    found = set()
    for _, line in lines_outside_code(read(path)):
        heading = re.match(r"#+\s+(.*)", line)
        if heading:
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.group(1)).lower()
            found.add(re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-"))
    return found


def check_tests(files):
    functions, trials = set(), set()
    for path in files:
        if path.suffix in SOURCES:
            text = read(path)
            functions.update(re.findall(r"\b(?:fn|def)\s+(\w+)", text))
            if "trials" in path.parts:
                trials.update(re.findall(r"^\s*([A-Z]\w+),$", text, flags=re.MULTILINE))
    for path in files:
        if path.suffix == ".md" and name_of(path).startswith(("docs/behaviour/", "docs/adr/")):
            for number, line in lines_outside_code(read(path)):
                for name in TEST_NAME.findall(line):
                    is_trial = "".join(word.capitalize() for word in name.split("_")) in trials
                    if name not in functions and not is_trial:
                        yield f"{name_of(path)}:{number}: there is no test `{name}`"


def check_rules(files):
    for path in files:
        if path.parent == ROOT / "docs/behaviour" and path.suffix == ".md":
            text = "\n".join(line for _, line in lines_outside_code(read(path)))
            for block in re.split(r"\n(?=\S)", text):
                if block.startswith("- ") and not TEST_NAME.search(block) and not SCRIPT_NAME.search(block):
                    yield f"{name_of(path)}: this rule names no test: {block.splitlines()[0]}"


def check_links(files):
    for path in files:
        if path.suffix != ".md":
            continue
        for number, line in lines_outside_code(read(path)):
            targets = [first or second for first, second in LINK.findall(line)]
            for target in targets + SOURCE_ATTRIBUTE.findall(line):
                if re.match(r"[a-z][a-z0-9+.-]*:", target):
                    continue
                file, _, anchor = target.partition("#")
                linked = (path.parent / file).resolve() if file else path
                where = f"{name_of(path)}:{number}"
                if not linked.exists():
                    yield f"{where}: the link {target} leads nowhere"
                elif anchor and linked.suffix == ".md" and anchor not in slugs(linked):
                    yield f"{where}: the link {target} names no heading of {file or 'this file'}"


def check_architecture():
    path = ROOT / "docs/architecture.md"
    for number, line in lines_outside_code(read(path)):
        for name in PATH_NAME.findall(line):
            is_path = name.split("/")[0] in TOP_FOLDERS and "/" in name or name.endswith((".rs", ".py"))
            if is_path and not (ROOT / name).exists() and not list(ROOT.glob(name)):
                yield f"{name_of(path)}:{number}: there is no {name}"


def check_mentions(files):
    for path in files:
        if path.suffix not in TEXTS or path.suffix == ".md" or path == Path(__file__).resolve():
            continue
        for number, line in enumerate(read(path).splitlines(), 1):
            for name in DOCS_MENTION.findall(line):
                if not (ROOT / name).exists():
                    yield f"{name_of(path)}:{number}: there is no {name}"


def check_columns(files):
    for path in files:
        if path.suffix != ".md" or not name_of(path).startswith("docs/"):
            continue
        for number, line in lines_outside_code(read(path)):
            if len(line) > MAX_COLUMNS and not line.lstrip().startswith("|"):
                yield f"{name_of(path)}:{number}: {len(line)} columns, more than {MAX_COLUMNS}"


def check_picture():
    script, picture = ROOT / "docs/session.py", ROOT / "docs/session.svg"
    made = subprocess.run([sys.executable, str(script), "-"], stdout=subprocess.PIPE, check=False)
    if made.returncode != 0:
        yield f"{name_of(script)} failed"
    elif not picture.exists() or made.stdout != picture.read_bytes():
        yield f"{name_of(picture)} is not what {name_of(script)} generates: run python3 {name_of(script)}"


def main():
    files = tracked_files()
    wrong = [
        *check_rules(files),
        *check_tests(files),
        *check_links(files),
        *check_architecture(),
        *check_mentions(files),
        *check_columns(files),
        *check_picture(),
    ]
    for line in wrong:
        print(line)
    if wrong:
        sys.exit(1)
    print(f"the documentation is right: {sum(path.suffix == '.md' for path in files)} Markdown files")


main()
