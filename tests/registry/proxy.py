"""A proxy for tests: `proxy.py http|socks5 ADDRESS PORT LOG [CERTIFICATE KEY]`, by TLS with a certificate.

Every request is a line of the log: what is asked for, and by whom. The name `hidden.test` is known to the proxy alone: it
is 127.0.0.1.
"""

import base64
import socket
import ssl
import struct
import sys
import threading

KIND, ADDRESS, PORT, LOG = sys.argv[1:5]
LOCK = threading.Lock()


def note(line):
    with LOCK, open(LOG, "a", encoding="ascii") as log:
        log.write(line + "\n")


def exactly(stream, count):
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def dial(host, port):
    return socket.create_connection(("127.0.0.1" if host == "hidden.test" else host, port), 30)


def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def join(client, server):
    back = threading.Thread(target=copy, args=(server, client), daemon=True)
    back.start()
    copy(client, server)
    back.join()


def socks5(client):
    version, methods = exactly(client, 2)
    offered = exactly(client, methods)
    user = ""
    if 2 in offered:
        client.sendall(bytes([version, 2]))
        _, length = exactly(client, 2)
        user = exactly(client, length).decode()
        user += ":" + exactly(client, exactly(client, 1)[0]).decode()
        client.sendall(b"\x01\x00")
    else:
        client.sendall(bytes([version, 0]))
    _, _, _, kind = exactly(client, 4)
    if kind == 1:
        host = socket.inet_ntoa(exactly(client, 4))
    elif kind == 3:
        host = exactly(client, exactly(client, 1)[0]).decode()
    else:
        host = socket.inet_ntop(socket.AF_INET6, exactly(client, 16))
    (port,) = struct.unpack("!H", exactly(client, 2))
    note(f"socks5 {host}:{port} {user}")
    server = dial(host, port)
    client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
    join(client, server)


def http(client):
    head = b""
    while b"\r\n\r\n" not in head:
        more = client.recv(4096)
        if not more:
            return
        head += more
    lines = head.decode("latin1").split("\r\n")
    method, target = lines[0].split(" ")[:2]
    fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    original = next((line for line in lines if line.lower().startswith("proxy-authorization: ")), "")
    user = base64.b64decode(original.split(" ")[-1]).decode() if original else ""
    note(f"{method} {target} {user}")
    if method != "CONNECT":
        client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
        return
    host, port = target.rsplit(":", 1)
    assert "host" in fields
    server = dial(host, int(port))
    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    join(client, server)


def serve(client, context):
    try:
        if context:
            client = context.wrap_socket(client, server_side=True)
        socks5(client) if KIND == "socks5" else http(client)
    except (EOFError, OSError):
        note("failed")
    finally:
        client.close()


def main():
    context = None
    if len(sys.argv) > 5:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[5], sys.argv[6])
    listener = socket.create_server((ADDRESS, int(PORT)))
    note("listening")
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, context), daemon=True).start()


main()
