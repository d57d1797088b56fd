"""Check the installed packages for known vulnerabilities.

    make audit

Exits with 1 where a vulnerability can be fixed: a version without it exists and is compatible with requirements.txt.
Exits with 0 and a message where the databases of PyPI and OSV cannot be reached, or do not respond in three minutes.
"""

import json
import subprocess
import sys
from pathlib import Path

TIMEOUT = 180  # seconds
REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"


def audited(service: str) -> list[dict]:
    """The packages in pip-audit's report from `service`; none where it cannot be reached."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--format", "json"]
    command += ["--progress-spinner", "off", "--desc", "off", "--skip-editable"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        return [package for package in json.loads(done.stdout)["dependencies"] if "vulns" in package]
    except (ValueError, subprocess.TimeoutExpired):
        return []


def fits(name: str, version: str) -> bool:
    """Whether that version, or a later one, is compatible with requirements.txt, by pip's resolver."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "-r", str(REQUIREMENTS)]
    return subprocess.run([*command, f"{name}>={version}"], capture_output=True).returncode == 0


def main() -> int:
    """Print every vulnerability; return the exit code."""
    packages = audited("pypi") or audited("osv")
    if not packages:
        print("The vulnerability databases cannot be reached: nothing was audited.")
        return 0
    fixable = 0
    for package in packages:
        for found in package["vulns"]:
            fix = next((version for version in found["fix_versions"] if fits(package["name"], version)), None)
            fixable += bool(fix)
            what = f"fixed in {fix}" if fix else "no compatible version fixes it"
            print(f"{package['name']} {package['version']}: {found['id']}, {what}")
    print(f"{len(packages)} packages audited, {fixable} vulnerabilities that an update fixes.")
    return 1 if fixable else 0


if __name__ == "__main__":
    sys.exit(main())
