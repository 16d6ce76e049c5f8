"""`python -m jaxfood.serve`: try runs on pictures in the browser."""

import argparse
import ipaddress
import os
import socket
from collections.abc import Sequence

from jaxfood import cli
from jaxfood.config.sections import DeviceConfig
from jaxfood.errors import UserError, first_few, printable
from jaxfood.extras import require

DESCRIPTION = """Show a page in the browser that says what is on a picture and where the network looked. Several runs,
and all folds of one, answer together, by the mean of their probabilities. Ctrl-C ends it."""

_MOST_CONNECTIONS = 32
_SECONDS_TO_FINISH = 3  # for answers on their way at Ctrl-C


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, serve."""
    parser = cli.Parser("serve", DESCRIPTION)
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=cli.path, help="work directory of a training, folds and all"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0: for other machines too (default: 127.0.0.1, this machine alone)",
    )
    parser.add_argument("--port", type=_port, default=8000, help="0: any that is free (default: 8000)")
    parser.add_argument("--which", metavar="best|last|STEP", default="best", help="which checkpoint (default: best)")
    arguments = parser.parse_args(argv)

    for package in ("starlette", "uvicorn", "python_multipart"):
        require(package, "the page", extra="serve")
    with _listen(arguments.host, arguments.port) as listening:
        cli.set_up_jax(DeviceConfig())

        import uvicorn

        from jaxfood.serving.answerer import Answerer
        from jaxfood.serving.app import make_app

        print("loading and compiling ...", flush=True)
        answerer = Answerer(arguments.runs, arguments.which)
        host, port = listening.getsockname()[:2]
        local = _is_local(host)
        names = ("127.0.0.1", "localhost", "::1", "[::1]") if local else ("*",)
        app = make_app(answerer, first_few(printable(run.name) for run in arguments.runs), names)
        if not local:
            print(f"warning: whoever reaches this machine at port {port} can use the page, without a password")
        cli.say(f"open {_address(host, port)} in a browser; Ctrl-C ends it")
        config = uvicorn.Config(
            app,
            log_config=None,  # errors go to standard error as everybody's do
            log_level="error",
            access_log=False,
            lifespan="off",
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_SECONDS_TO_FINISH,
        )
        # At Ctrl-C it finishes what it is at, then hands the signal to the handlers that were there: status 130.
        uvicorn.Server(config).run(sockets=[listening])


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 5 or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"it takes a number, 0 to 65535, not {text}")
    return int(text)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, before any work is done in vain.

    Raises:
        UserError: it cannot.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:  # a name that is none
        numbered = isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno
        why = os.strerror(numbered) if numbered else "no such name or address"
        raise UserError(f"cannot listen at {host} port {port} ({why}): choose another --port or --host") from None


def _is_local(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _address(host: str, port: int) -> str:
    """That of the page, as this machine's browser takes it."""
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


if __name__ == "__main__":
    cli.run(main)
