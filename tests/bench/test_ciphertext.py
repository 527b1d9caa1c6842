"""A download that is not decrypted is a download all the same."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.ciphertext import Incomplete, download

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
SIZE = 3 << 20

Serve = Callable[[ssl.SSLSocket], None]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[[Serve], int]]:
    """Return what serves one connection, and says at which port."""
    made = [tmp_path / "key.pem", tmp_path / "cert.pem"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-subj", "/CN=localhost", "-keyout", made[0], "-out", made[1]]
    subprocess.run([*make, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made[1], made[0])
    ended: list[Callable[[], None]] = []

    def start(serve: Serve) -> int:
        listening = socket.create_server(("127.0.0.1", 0))

        def answer() -> None:
            with listening, context.wrap_socket(listening.accept()[0], server_side=True) as client:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += client.recv(4096)
                assert asked.startswith(b"GET /big HTTP/1.1\r\n")
                serve(client)

        thread = threading.Thread(target=answer)
        thread.start()
        ended.append(thread.join)
        return int(listening.getsockname()[1])

    yield start
    for end in ended:
        end()


def sent(head: bytes, *parts: bytes) -> Serve:
    def serve(client: ssl.SSLSocket) -> None:
        client.sendall(head)
        for part in parts:
            client.sendall(part)

    return serve


def test_all_of_it_is_taken(serving: Callable[[Serve], int]) -> None:
    assert download(serving(sent(HEAD % SIZE, bytes(SIZE))), "/big", SIZE) > 0
    assert download(serving(sent(HEAD % SIZE + b"begin", bytes(SIZE - 5))), "/big", SIZE) > 0


@pytest.mark.parametrize(
    "serve",
    [
        sent(HEAD % SIZE, bytes(SIZE // 2)),
        sent(HEAD % (SIZE // 2), bytes(SIZE)),
        sent(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: %d\r\n\r\n" % SIZE, bytes(SIZE)),
        sent(HEAD % SIZE, *[bytes(256)] * (SIZE // 256)),  # much of what came were not its bytes
    ],
    ids=["ends early", "another one", "refused", "small records"],
)
def test_what_is_not_what_was_asked_for_is_no_figure(serving: Callable[[Serve], int], serve: Serve) -> None:
    with pytest.raises(Incomplete):
        download(serving(serve), "/big", SIZE)
