"""A local Hugging Face Hub server for tests: it implements the HTTP API that the real client uses, on folders.

It supports downloads by branch or commit, listings, `create_repo`, branches, commits with LFS uploads, and Space
variables. The head of a repo's main branch is the folder `root/<owner>/<name>` (`root/spaces/...` for Spaces), which
tests may read and change. Writing requires the token `hf_write` and is allowed only below `someone/`. A repo called
`gated` returns 403 and one called `broken` 500. `fail` injects failures.
"""

import base64
import hashlib
import json
import re
import shutil
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

WRITER, TOKEN = "someone", "hf_write"


@dataclass
class Failure:
    """A failure of the next `times` requests whose "METHOD path" matches the pattern `where`.

    Attributes:
        what: An HTTP status, sent with `headers`; "closed": the connection is closed without a reply; "stalled": no
            reply until the server stops; "truncated": the connection is closed after half of the body; "corrupted": a
            body of the right length with a wrong byte; "short": half of the body, with a matching Content-Length.
    """

    where: str
    what: int | str
    times: float = float("inf")
    headers: dict[str, str] = field(default_factory=dict)
    met: int = 0  # number of requests that failed


class HubServer(ThreadingHTTPServer):
    """The server.

    Attributes:
        url: The endpoint.
        root: The folder of all repos.
        repos: Settings of each repo: private, sdk, variables.
        commits: Message and paths of each commit.
    """

    daemon_threads = True

    def __init__(self, root: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.url = root, f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, dict] = defaultdict(lambda: {"private": False, "variables": {}})
        self.commits: list[dict] = []
        self.objects: dict[str, bytes] = {}  # LFS: sha256 -> content
        self.snapshots: dict[str, dict[str, bytes]] = {}  # commit -> path -> content
        self.failures: list[Failure] = []
        self.requests: list[str] = []  # "METHOD path" of every request
        self.stopped = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def fail(self, where: str, what: int | str, times: float = float("inf"), **headers: str) -> Failure:
        """Inject a failure; see `Failure`."""
        self.failures.append(Failure(where, what, times, headers))
        return self.failures[-1]

    def shutdown(self) -> None:
        self.stopped.set()
        super().shutdown()

    def folder(self, repo: str, branch: str = "main") -> Path:
        return self.root / repo if branch == "main" else self.root.parent / "branches" / branch / repo

    def head(self, repo: str, branch: str) -> str | None:
        """The commit at the head of a branch, computed from the files in its folder; None if there is none."""
        folder = self.folder(repo, branch)
        if not folder.is_dir():
            return branch if branch in self.snapshots else None
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        commit = hashlib.sha1(repr([(path, oid(path, data)) for path, data in files.items()]).encode()).hexdigest()
        self.snapshots[commit] = files
        return commit


def lfs(path: str) -> bool:
    return path.endswith((".safetensors", ".png"))


def oid(path: str, data: bytes) -> str:
    """The id of a file's content on the Hub: SHA-256 for LFS, else git's blob id."""
    blob = b"blob %d\0" % len(data)
    return hashlib.sha256(data).hexdigest() if lfs(path) else hashlib.sha1(blob + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status: int, body: bytes | dict | list = b"", **headers: str) -> None:
        if not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), headers | {"Content-Type": "application/json"}
        if self.damage == "corrupted":
            body = body[:-1] + bytes([body[-1] ^ 1])
        elif self.damage == "short":
            body = body[: len(body) // 2]
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if self.damage == "truncated" else body)
        self.close_connection |= self.damage == "truncated"

    def refuse(self, status: int, code: str, message: str = "") -> None:
        self.reply(status, {"error": message}, X_Error_Code=code, X_Error_Message=message)

    def dispatch(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.damage = None
        self.server.requests.append(f"{self.command} {path}")
        for failure in self.server.failures:
            if failure.met < failure.times and re.search(failure.where, self.server.requests[-1]):
                failure.met += 1
                if isinstance(failure.what, int):
                    return self.reply(failure.what, {"error": "Injected by the test."}, **failure.headers)
                if failure.what in ("closed", "stalled"):
                    self.close_connection = True
                    return self.server.stopped.wait(60) if failure.what == "stalled" else None
                self.damage = failure.what
                break
        for method, pattern, handle in ROUTES:
            if self.command in method and (found := re.fullmatch(pattern, path)):
                return handle(self, *(part and unquote(part) for part in found.groups()))
        return self.refuse(404, "EntryNotFound", f"{self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = dispatch

    def may_write(self, owner: str | None) -> bool:
        """Whether the caller may write; if not, 401 or 403 has been sent."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if not token:
            self.reply(401, {"error": "Invalid username or password."})
        elif token != TOKEN or owner != WRITER:
            self.reply(403, {"error": f"You don't have the rights to write to {owner}."})
        else:
            return True
        return False

    # Reading

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """(commit, path -> content), or None after an error has been sent."""
        if repo.endswith("/gated"):
            return self.refuse(403, "GatedRepo")
        if repo.endswith("/broken"):
            return self.reply(500, {})
        if not self.server.folder(repo).is_dir():
            return self.refuse(404, "RepoNotFound")
        commit = self.server.head(repo, revision)
        return (commit, self.server.snapshots[commit]) if commit else self.refuse(404, "RevisionNotFound")

    def info(self, kind: str, repo: str, revision: str | None) -> None:
        repo = repo_path(kind, repo)
        if found := self.files(repo, revision or "main"):
            siblings = [{"rfilename": path} for path in found[1]]
            private = self.server.repos[repo]["private"]
            self.reply(200, {"id": repo, "sha": found[0], "private": private, "siblings": siblings})

    def tree(self, kind: str, repo: str, revision: str) -> None:
        if found := self.files(repo_path(kind, repo), revision):
            entries = []
            for path, data in found[1].items():
                entry = {"type": "file", "path": path, "size": len(data), "oid": oid(path, data)}
                if lfs(path):
                    entry["lfs"] = {"oid": oid(path, data), "size": len(data), "pointerSize": 130}
                entries.append(entry)
            self.reply(200, entries)

    def resolve(self, kind: str | None, repo: str, revision: str, path: str) -> None:
        if found := self.files(repo_path(kind or "models", repo), revision):
            commit, files = found
            if path not in files:
                return self.refuse(404, "EntryNotFound")
            headers = {"ETag": f'"{oid(path, files[path])}"', "X_Repo_Commit": commit}
            if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
                start, size = int(found[1]), len(files[path])
                headers["Content_Range"] = f"bytes {start}-{size - 1}/{size}"
                return self.reply(206, files[path][start:], **headers)
            return self.reply(200, files[path], **headers)
        return None

    # Writing

    def create(self) -> None:
        request = json.loads(self.body)
        owner = request["organization"] or WRITER
        if not self.may_write(owner):
            return None
        kind = f"{request.get('type') or 'model'}s"
        repo = repo_path(kind, f"{owner}/{request['name']}")
        url = f"{self.server.url}/{repo}"
        if self.server.folder(repo).is_dir():
            return self.reply(409, {"error": "You already created this repo", "url": url})
        self.server.folder(repo).mkdir(parents=True)
        self.server.folder(repo).joinpath(".gitattributes").write_text("*.safetensors filter=lfs\n")
        self.server.repos[repo] |= {"private": request.get("visibility") == "private", "sdk": request.get("sdk")}
        return self.reply(200, {"url": url})

    def branch(self, kind: str, repo: str, branch: str) -> None:
        if not self.may_write(repo.split("/")[0]):
            return None
        repo = repo_path(kind, repo)
        if self.server.folder(repo, branch).is_dir():
            return self.refuse(409, "", "Reference already exists")
        shutil.copytree(self.server.folder(repo), self.server.folder(repo, branch))
        return self.reply(200, {})

    def validate_yaml(self) -> None:
        front = re.match(r"---\n(.*?)\n---", json.loads(self.body)["content"], re.DOTALL)
        try:
            known = isinstance(yaml.safe_load(front[1]) if front else None, dict)
        except yaml.YAMLError:
            known = False
        errors = [] if known else [{"message": "The front matter cannot be read."}]
        self.reply(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, kind: str, repo: str, branch: str) -> None:
        if not self.may_write(repo.split("/")[0]):
            return
        if found := self.files(repo_path(kind, repo), branch):
            files = []
            for path in (file["path"] for file in json.loads(self.body)["files"]):
                mode = {"path": path, "uploadMode": "lfs" if lfs(path) else "regular", "shouldIgnore": False}
                files.append(mode | ({"oid": oid(path, found[1][path])} if path in found[1] else {}))
            self.reply(200, {"files": files})

    def lfs_batch(self, kind: str | None, repo: str) -> None:
        objects = []
        for thing in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.server.url}/lfs/{thing['oid']}", "header": {}}}
            objects.append(thing | ({} if thing["oid"] in self.server.objects else {"actions": upload}))
        self.reply(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, name: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != name:
            return self.reply(400, {"error": "The content does not match its name."})
        self.server.objects[name] = self.body
        return self.reply(200)

    def commit(self, kind: str, repo: str, branch: str) -> None:
        if not self.may_write(repo.split("/")[0]):
            return None
        repo = repo_path(kind, repo)
        folder = self.server.folder(repo, branch)
        done: dict = {"repo": repo, "branch": branch, "sent": [], "deleted": []}
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                done["message"] = value["summary"]
                continue
            file = folder / value["path"]
            if line["key"].startswith("deleted"):
                file.unlink()
                done["deleted"].append(value["path"])
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            content = value.get("content")
            file.write_bytes(self.server.objects[value["oid"]] if content is None else base64.b64decode(content))
            done["sent"].append(value["path"])
        self.server.commits.append(done)
        head = self.server.head(repo, branch)
        return self.reply(200, {"commitUrl": f"{self.server.url}/{repo}/commit/{head}", "commitOid": head})

    def variables(self, repo: str) -> None:
        known = self.server.repos[repo_path("spaces", repo)]["variables"]
        if self.command != "GET":
            if not self.may_write(repo.split("/")[0]):
                return None
            variable = json.loads(self.body)
            if self.command == "POST":
                known[variable["key"]] = {"value": variable["value"]}
            else:
                del known[variable["key"]]
        return self.reply(200, known)


def repo_path(kind: str, repo: str) -> str:
    return f"spaces/{repo}" if kind == "spaces" else repo


KIND, REPO = "(models|datasets|spaces)", "([^/]+/[^/]+)"
ROUTES = (
    (("POST",), "/api/repos/create", Handler.create),
    (("POST",), "/api/validate-yaml", Handler.validate_yaml),
    (("GET", "POST", "DELETE"), f"/api/spaces/{REPO}/variables", Handler.variables),
    (("POST",), f"/api/{KIND}/{REPO}/branch/([^/]+)", Handler.branch),
    (("POST",), f"/api/{KIND}/{REPO}/preupload/([^/]+)", Handler.preupload),
    (("POST",), f"/api/{KIND}/{REPO}/commit/([^/]+)", Handler.commit),
    (("POST",), rf"/(?:(datasets|spaces)/)?{REPO}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (("PUT",), "/lfs/([0-9a-f]+)", Handler.lfs_put),
    (("GET",), f"/api/{KIND}/{REPO}/tree/([^/]+)", Handler.tree),
    (("GET",), f"/api/{KIND}/{REPO}(?:/revision/([^/]+))?", Handler.info),
    (("GET", "HEAD"), f"/(?:(datasets|spaces)/)?{REPO}/resolve/([^/]+)/(.+)", Handler.resolve),
)
