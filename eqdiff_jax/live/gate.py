"""Who may come in and what they may see: the rules for addresses, hosts, tokens and files, without a server.

Every other web page in the same browser can send requests to this computer, and can make a name of its own point to
it. Such a request carries that page's Origin, or that name as Host; neither is ours.
"""

import errno
import hmac
import ipaddress
import re
import socket
from pathlib import Path
from urllib.parse import parse_qs

from eqdiff_jax import paths
from eqdiff_jax.errors import InputError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

TOKEN = re.compile(r"[A-Za-z0-9_-]{8,128}")
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript"}
SEND_BUFFER = 1 << 16  # bytes; what lies in it is too late to be replaced by newer values
# No dot at the start of a name, no percent sign, no backslash: such a path cannot climb.
_OURS = re.compile(r"/([A-Za-z0-9_-]+\.(?:js|css))")
_VENDOR = re.compile(r"/vendor/strudel/((?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+)")


def policy(host: str) -> str:
    """The Content-Security-Policy of a page of that host: code that Strudel evaluates reaches no other server."""
    return "; ".join((
        "default-src 'none'", "script-src 'self' 'unsafe-eval' data: blob:", "worker-src 'self' blob: data:",
        f"connect-src 'self' ws://{host}", "style-src 'self' 'unsafe-inline'", "img-src 'self' data:",
        "media-src 'self' blob: data:", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"))


def authority(address: str, port: int) -> str:
    """address:port as it stands in a URL."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def hosts(local: str, given: str, port: int) -> tuple[str, ...]:
    """Host headers that name this server, the address a client has reached first.

    local: that address. given: what the person who started the server called it.
    """
    names = (local, "127.0.0.1", "localhost", "::1", given.lower())
    full = tuple(authority(name, port) for name in names if name not in ("0.0.0.0", "::"))
    return full + tuple(name.removesuffix(":80") for name in full) if port == 80 else full


def has_token(query: str, token: str | None) -> bool:
    """The query of a URL shows the token, or none is needed."""
    shown = parse_qs(query).get("token", [])
    return token is None or (len(shown) == 1 and hmac.compare_digest(shown[0].encode(), token.encode()))


class Files:
    """The public files: the page of `web`, its style and modules, and Strudel from `node_modules`.

    Raises InputError when the page or Strudel is missing.
    """

    def __init__(self, web: Path, node_modules: Path):
        self.web, self.strudel = web.resolve(), (node_modules / "@strudel" / "web" / "dist").resolve()
        if not (self.web / "index.html").is_file():
            raise InputError(f"the page is missing ({self.web / 'index.html'}): start from a whole checkout")
        if not (self.strudel / "index.js").is_file():
            raise InputError(f"Strudel is not installed ({self.strudel / 'index.js'} is missing): run "
                             f"`{paths.INSTALL}`")

    def find(self, path: str) -> Path | None:
        """The file behind a path as it stands in the request, or None."""
        if path == "/":
            root, name = self.web, "index.html"
        elif found := _OURS.fullmatch(path):
            root, name = self.web, found[1]
        elif found := _VENDOR.fullmatch(path):
            root, name = self.strudel, found[1]
        else:
            return None
        file = (root / name).resolve()  # follows links; what leads out of the folder is not public
        return file if file.is_file() and file.is_relative_to(root) and file.suffix in KINDS else None


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at host:port, port 0 for a free one; raises InputError."""
    if not 0 <= port < 65536:
        raise InputError(f"--http: port {port} does not exist: choose one of 1024 .. 65535")
    try:
        # IPv4 first: `localhost` is both, and people type 127.0.0.1.
        found = sorted(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), key=lambda a: a[0] != socket.AF_INET)
        listener = socket.create_server(found[0][4][:2], family=found[0][0])
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            raise InputError(f"--http: port {port} is taken: stop the other program or choose another port") from None
        if number == errno.EACCES:
            raise InputError(f"--http: port {port} is kept for the system: choose one of 1024 .. 65535") from None
        raise InputError(f"--http: {host!r} is no address of this computer: use 127.0.0.1:{port}, or 0.0.0.0:{port} "
                         "for every network it is in") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # connections inherit it
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # and this: a value must not wait for an answer
    return listener


def reachable(address: Address) -> str:
    """The address itself, or, where that means all of this computer's, one that its network knows."""
    if not address.is_unspecified:
        return str(address)
    family, far, near = ((socket.AF_INET, "192.0.2.1", "127.0.0.1") if address.version == 4 else
                         (socket.AF_INET6, "2001:db8::1", "::1"))
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))  # sends nothing, only chooses a way out
        except OSError:
            return near
        return str(probe.getsockname()[0])
