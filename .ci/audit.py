"""Asks whether a package that is installed here has a known vulnerability. Ends with 1 where we can do something about
it: a version without it exists and goes together with requirements.txt.

    make audit

Where the databases (PyPI's, OSV's) cannot be reached, or do not answer in three minutes, nothing is known, so it says
that and ends with 0.
"""

import json
import subprocess
import sys
from pathlib import Path

PATIENCE = 180  # seconds
REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"


def audited(service: str) -> list[dict]:
    """Packages that `service` knows something of, as pip-audit tells it; none where it cannot be asked."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--format", "json"]
    command += ["--progress-spinner", "off", "--desc", "off", "--skip-editable"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        return [package for package in json.loads(done.stdout)["dependencies"] if "vulns" in package]
    except (ValueError, subprocess.TimeoutExpired):
        return []


def fits(name: str, version: str) -> bool:
    """Whether pip finds a set with that version or a later one."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "-r", str(REQUIREMENTS)]
    return subprocess.run([*command, f"{name}>={version}"], capture_output=True).returncode == 0


def main() -> int:
    packages = audited("pypi") or audited("osv")
    if not packages:
        print("The vulnerability databases cannot be reached: nothing was audited.")
        return 0
    fixable = 0
    for package in packages:
        for found in package["vulns"]:
            fix = next((version for version in found["fix_versions"] if fits(package["name"], version)), None)
            fixable += bool(fix)
            what = f"in {fix} it is fixed" if fix else "there is no fix that we could install"
            print(f"{package['name']} {package['version']}: {found['id']}, {what}")
    print(f"{len(packages)} packages audited, {fixable} vulnerabilities that an update would mend.")
    return 1 if fixable else 0


if __name__ == "__main__":
    sys.exit(main())
