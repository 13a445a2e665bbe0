"""What lies outside of containers: a DNS server and a server that answers every connection, each at addresses of its own.

outside.py LOG DNS-ADDRESS NAME=ADDRESS[,ADDRESS]:SECONDS... ; every name that is asked for is appended to LOG. Web servers
listen at port 80 and 81 of each address.
"""
import socket
import struct
import subprocess
import sys
import threading

log, dns, names = sys.argv[1], sys.argv[2], {}
for argument in sys.argv[3:]:
    name, rest = argument.split("=")
    addresses, seconds = rest.rsplit(":", 1)
    names[name] = (addresses.split(","), int(seconds))
everywhere = sorted({address for addresses, _ in names.values() for address in addresses})
for address in [dns] + everywhere:
    subprocess.run(["ip", "address", "add", address + "/32", "dev", "lo"], check=True)


def serve(address, port):
    listener = socket.create_server((address, port), backlog=64)
    while True:
        connection, _ = listener.accept()
        try:
            connection.settimeout(5)
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
            connection.close()
        except OSError:
            pass


for address in everywhere:
    for port in (80, 81):
        threading.Thread(target=serve, args=(address, port), daemon=True).start()


def answer(query):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1").lower())
        at += 1 + query[at]
    end = at + 5
    name, (kind,) = ".".join(labels), struct.unpack(">H", query[at + 1 : at + 3])
    with open(log, "a") as file:
        file.write(name + "\n")
    addresses, seconds = names.get(name, ([], 0))
    records = [
        b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, seconds, 4) + socket.inet_aton(address)
        for address in addresses
        if kind == 1
    ]
    code = 0 if name in names else 3
    head = query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(records), 0, 0)
    return head + query[12:end] + b"".join(records)


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((dns, 53))
with open(log, "a") as file:
    file.write("ready\n")
while True:
    query, client = server.recvfrom(4096)
    server.sendto(answer(query), client)
