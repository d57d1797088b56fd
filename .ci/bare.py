"""Test the page in a new environment that has the packages of requirements.txt only.

    make bare

Creates the environment in a temporary folder (some gigabytes, a minute or two), starts app.py in it as a Space does,
and sends the example photo of the published model.
"""

import json
import os
import socket
import subprocess
import sys
import time
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

REPO = Path(__file__).parents[1]
REQUEST = """
import json, sys
from gradio_client import Client, handle_file
answer, _ = Client(sys.argv[1], verbose=False).predict(handle_file(sys.argv[2]), api_name="/identify")
print(json.dumps(answer["top"][0]))
"""


def main() -> None:
    """Create the environment, start the page and request one answer."""
    with TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        free.close()
        venv.create(Path(folder) / "venv", with_pip=True)
        python = Path(folder) / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", REPO / "requirements.txt"], check=True)
        subprocess.run([python, "-m", "pip", "check"], check=True)
        quiet = {key: value for key, value in os.environ.items() if not key.startswith(("TWINCAR_", "PYTHON"))}
        variables = quiet | {"GRADIO_SERVER_PORT": url.rsplit(":")[-1], "GRADIO_TEMP_DIR": f"{folder}/uploads"}
        page = subprocess.Popen([python, REPO / "app.py"], cwd=folder, env=variables)
        try:
            command = [python, "-c", REQUEST, url, REPO / "models" / "twincar" / "example.jpg"]
            for _ in range(60):
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode == 0 or page.poll() is not None:
                    break
                time.sleep(2)
            if done.returncode:
                sys.exit(f"The page did not answer: {done.stderr[-2000:]}")
            print("The page answers:", json.loads(done.stdout)["class_name"])
        finally:
            page.terminate()
            page.wait()


if __name__ == "__main__":
    main()
