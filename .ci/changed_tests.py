"""Run the quick tests of what changed: on a branch since it left main, on main since the last commit.

    make check

The tests mirror the package: those of `twincar/data/crop.py` are in `tests/data/test_crop.py`. For a module without a
test file of its name, the tests that import it are run, or else its mirrored folder.
"""

import re
import subprocess
import sys
from pathlib import Path

TESTS = Path("tests")
OTHERS = {"app.py": "ui/test_page.py", ".md": "docs/test_docs.py", ".ipynb": "docs/test_notebook.py"}


def git(*words: str) -> list[str]:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.splitlines()


def tests_of(file: Path) -> set[Path]:
    if TESTS in file.parents:
        return {file} if file.name.startswith("test_") else set()
    if other := OTHERS.get(file.name) or OTHERS.get(file.suffix):
        return {TESTS / other}
    found = set(TESTS.rglob(f"test_{file.stem}.py"))
    if found or file.parts[0] != "twincar":
        return found
    imports = re.compile(rf"{re.escape('.'.join(file.parent.parts))}(\.| import .*\b){file.stem}\b")
    found = {test for test in TESTS.rglob("test_*.py") if imports.search(test.read_text(encoding="utf-8"))}
    return found or set(TESTS.joinpath(*file.parent.parts[1:]).glob("test_*.py"))


changed = git("diff", "--name-only", git("merge-base", "HEAD", "main")[0]) + git("ls-files", "-o", "--exclude-standard")
tests = {str(test) for file in changed or git("diff", "--name-only", "HEAD~1") for test in tests_of(Path(file))}
tests = sorted(test for test in tests if Path(test).is_file())
print("Testing", *tests or ["nothing: no test belongs to what changed."], flush=True)
code = subprocess.run([sys.executable, "-m", "pytest", "-m", "not slow", *tests]).returncode if tests else 0
sys.exit(0 if code == 5 else code)  # 5: they are all slow
