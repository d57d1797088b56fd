"""Records and refuses everything that a Python process would send to another machine. Python imports it at its start.

    PYTHONPATH=tests/helpers/recorder NETWORK_LOG=log.txt python ...

Each line of the log is a lookup or an address of another machine, and the line of code that asked for it. Processes
that are started inherit the recorder. Sockets of machine code are not seen; what such a library keeps in HOME gives it
away, as the sender's id of ONNX Runtime does.
"""

import os
import socket
import sys
import traceback
from ipaddress import ip_address

LOG = os.environ["NETWORK_LOG"]
ADDRESS = {  # event -> which of its arguments names the other machine
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
}
HERE = {"", "localhost", socket.gethostname()}


def is_here(host: str) -> bool:
    """Whether this is the name or an address of this machine, or a file that is a socket."""
    try:
        ip = ip_address(host)
    except ValueError:
        return host in HERE or host.startswith(("/", "\0"))
    with socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6) as probe:
        try:
            probe.bind((host, 0))  # which only the machine's own addresses allow
        except OSError:
            return False
    return True


def record(event: str, arguments: tuple) -> None:
    """An audit hook, see https://docs.python.org/3/library/audit_events.html."""
    if event in ADDRESS:
        address = arguments[ADDRESS[event]]
        host = address[0] if isinstance(address, tuple) else address
        host = host.decode(errors="replace") if isinstance(host, bytes) else str(host or "")
        if not is_here(host):
            write(event, host)
            raise OSError(f"{event} {host}: the recorder lets nothing leave this machine.")


def write(event: str, what: str) -> None:
    """Add a line."""
    frames = [frame for frame in traceback.extract_stack()[:-2] if "<frozen" not in frame.filename]
    outside = [frame for frame in frames if "site-packages" in frame.filename] or frames or [None]
    where = outside[-1] and f"{outside[-1].filename.rpartition('site-packages/')[2]}:{outside[-1].lineno}"
    with open(LOG, "a") as log:
        log.write(f"{event} {what} {where}\n")


sys.addaudithook(record)
