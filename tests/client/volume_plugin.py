"""A volume plugin (protocol version 1) for the tests: VolumeDriver over a socket or TCP.

    volume_plugin.py DIRECTORY unix:PATH | tcp:PORT

A volume is a directory below DIRECTORY/volumes; it is mounted, a bind, at DIRECTORY/mounts/NAME for as long as somebody
uses it. Each call is a line of DIRECTORY/calls. DIRECTORY/mode, read at each call, makes the plugin misbehave: "hang METHOD",
"slow METHOD", "say METHOD JSON", "big METHOD", "status METHOD JSON", "drop METHOD".
"""

import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler

ROOT = sys.argv[1]
USERS = {}
LOCK = threading.Lock()


def path(kind, name):
    return os.path.join(ROOT, kind, name)


def described(name):
    mounted = path("mounts", name) if USERS.get(name) else ""
    return {"Name": name, "Mountpoint": mounted, "CreatedAt": "2020-02-03T04:05:06Z", "Status": {"users": len(USERS.get(name, []))}}


def call(method, args):
    name = args.get("Name", "")
    if method == "Plugin.Activate":
        return {"Implements": ["VolumeDriver"]}
    if method == "VolumeDriver.Capabilities":
        return {"Capabilities": {"Scope": "Global"}}
    if method == "VolumeDriver.List":
        return {"Volumes": [described(name) for name in sorted(os.listdir(path("volumes", "")))]}
    if method == "VolumeDriver.Create":
        if (args.get("Opts") or {}).get("refuse"):
            return {"Err": "refused: " + args["Opts"]["refuse"]}
        os.makedirs(path("volumes", name), exist_ok=True)
        return {}
    if not os.path.isdir(path("volumes", name)):
        return {"Err": "no such volume"}
    if method == "VolumeDriver.Get":
        return {"Volume": described(name)}
    if method == "VolumeDriver.Path":
        return {"Mountpoint": described(name)["Mountpoint"]}
    if method == "VolumeDriver.Mount":
        users = USERS.setdefault(name, set())
        if not users:
            os.makedirs(path("mounts", name), exist_ok=True)
            subprocess.run(["mount", "--bind", path("volumes", name), path("mounts", name)], check=True)
        users.add(args["ID"])
        return {"Mountpoint": path("mounts", name)}
    if method == "VolumeDriver.Unmount":
        users = USERS.get(name, set())
        if args["ID"] not in users:
            return {"Err": "not mounted by " + args["ID"]}
        users.remove(args["ID"])
        if not users:
            subprocess.run(["umount", path("mounts", name)], check=True)
        return {}
    if method == "VolumeDriver.Remove":
        subprocess.run(["rm", "-r", path("volumes", name)], check=True)
        return {}
    return {"Err": "unknown method " + method}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        method = self.path.lstrip("/")
        args = json.loads(body) if body else {}
        with LOCK, open(os.path.join(ROOT, "calls"), "a") as calls:
            calls.write(" ".join([method, args.get("Name", ""), args.get("ID", "")]).strip() + "\n")
        try:
            with open(os.path.join(ROOT, "mode")) as mode:
                how, which, text = (mode.read().strip() + "  ").split(" ", 2)
        except FileNotFoundError:
            how, which, text = "", "", ""
        if which != method:
            how = ""
        if how == "hang":
            time.sleep(1000)
        if how == "drop":
            self.close_connection = True
            return
        if how == "slow":
            time.sleep(1)
        status = 500 if how == "status" else 200
        if how in ("say", "status"):
            answer = text.strip().encode()
        elif how == "big":
            answer = b'{"Err":"' + b"x" * (16 << 20) + b'"}'
        else:
            with LOCK:
                answer = json.dumps(call(method, args)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.docker.plugins.v1.2+json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        try:
            self.wfile.write(answer)
        except BrokenPipeError:
            pass

    def log_message(self, *_):
        pass

    def address_string(self):
        return "-"


class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Tcp(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True


for kind in ("volumes", "mounts"):
    os.makedirs(os.path.join(ROOT, kind), exist_ok=True)
scheme, place = sys.argv[2].split(":", 1)
if scheme == "unix":
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if os.path.exists(place):
        os.remove(place)
    server = Unix(place, Handler)
else:
    server = Tcp(("127.0.0.1", int(place)), Handler)
open(os.path.join(ROOT, "ready"), "w").close()
server.serve_forever()
