"""What `make audit` makes of the answers of pip-audit, which is played here: the databases are not asked by tests."""

import json
import os
import subprocess
import sys

import pytest

from twincar.config import CHECKOUT

AUDIT = CHECKOUT / ".ci" / "audit.py"
SOUND = {"name": "numpy", "version": "2.0", "vulns": []}


def hit(*fixes: str) -> dict:
    return {"name": "pillow", "version": "11.0", "vulns": [{"id": "CVE-1", "fix_versions": list(fixes)}]}


def audit(tmp_path, answers: dict[str, str], installable: str = "") -> subprocess.CompletedProcess:
    """Run the script beside a pip-audit that gives `answers` by service, and a pip that installs one version only."""
    (tmp_path / "pip_audit.py").write_text(
        "import sys\n"
        f"answer = {answers!r}[sys.argv[sys.argv.index('--vulnerability-service') + 1]]\n"
        "print(answer) if answer else sys.exit('ConnectionError')\n"
        "sys.exit('CVE' in answer)\n"
    )
    (tmp_path / "pip.py").write_text(f"import sys\nsys.exit(not sys.argv[-1].endswith({installable or '?'!r}))\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    return subprocess.run([sys.executable, AUDIT], env=environment, capture_output=True, text=True, timeout=60)


def told(*packages: dict) -> str:
    return json.dumps({"dependencies": packages})


@pytest.mark.parametrize(
    ("answers", "installable", "code", "says"),
    [
        ({"pypi": told(SOUND)}, "", 0, "1 packages audited, 0 vulnerabilities"),
        ({"pypi": told(SOUND, hit("11.1"))}, "11.1", 1, "pillow 11.0: CVE-1, in 11.1 it is fixed"),
        ({"pypi": told(hit("12.0"))}, "11.1", 0, "no fix that we could install"),
        ({"pypi": told(hit())}, "", 0, "no fix that we could install"),
        ({"pypi": "", "osv": told(hit("11.1"))}, "11.1", 1, "CVE-1"),
        ({"pypi": told({"name": "numpy", "skip_reason": "not found"}), "osv": ""}, "", 0, "nothing was audited"),
        ({"pypi": "", "osv": ""}, "", 0, "cannot be reached: nothing was audited"),
    ],
)
def test_the_audit_fails_where_an_update_helps_and_only_there(tmp_path, answers, installable, code, says):
    done = audit(tmp_path, answers, installable)
    assert (done.returncode, done.stderr) == (code, "")
    assert says in done.stdout
