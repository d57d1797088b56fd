"""`make audit`, with a fake pip-audit: tests do not query the vulnerability databases."""

import json
import os
import subprocess
import sys

import pytest

from twincar.config import CHECKOUT

AUDIT = CHECKOUT / ".ci" / "audit.py"
SOUND = {"name": "numpy", "version": "2.0", "vulns": []}


def vulnerable(*fixes: str) -> dict:
    return {"name": "pillow", "version": "11.0", "vulns": [{"id": "CVE-1", "fix_versions": list(fixes)}]}


def audit(tmp_path, outputs: dict[str, str], installable: str = "") -> subprocess.CompletedProcess:
    """Run the script with a fake pip-audit that prints `outputs` by service, and a pip that installs one version."""
    (tmp_path / "pip_audit.py").write_text(
        "import sys\n"
        f"output = {outputs!r}[sys.argv[sys.argv.index('--vulnerability-service') + 1]]\n"
        "print(output) if output else sys.exit('ConnectionError')\n"
        "sys.exit('CVE' in output)\n"
    )
    (tmp_path / "pip.py").write_text(f"import sys\nsys.exit(not sys.argv[-1].endswith({installable or '?'!r}))\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    return subprocess.run([sys.executable, AUDIT], env=environment, capture_output=True, text=True, timeout=60)


def report(*packages: dict) -> str:
    return json.dumps({"dependencies": packages})


@pytest.mark.parametrize(
    ("outputs", "installable", "code", "message"),
    [
        ({"pypi": report(SOUND)}, "", 0, "1 packages audited, 0 vulnerabilities"),
        ({"pypi": report(SOUND, vulnerable("11.1"))}, "11.1", 1, "pillow 11.0: CVE-1, fixed in 11.1"),
        ({"pypi": report(vulnerable("12.0"))}, "11.1", 0, "no compatible version fixes it"),
        ({"pypi": report(vulnerable())}, "", 0, "no compatible version fixes it"),
        ({"pypi": "", "osv": report(vulnerable("11.1"))}, "11.1", 1, "CVE-1"),
        ({"pypi": report({"name": "numpy", "skip_reason": "not found"}), "osv": ""}, "", 0, "nothing was audited"),
        ({"pypi": "", "osv": ""}, "", 0, "cannot be reached: nothing was audited"),
    ],
)
def test_the_audit_fails_only_if_an_update_fixes_it(tmp_path, outputs, installable, code, message):
    done = audit(tmp_path, outputs, installable)
    assert (done.returncode, done.stderr) == (code, "")
    assert message in done.stdout
