"""A network and address plugin (protocol version 1) for the tests: NetworkDriver and IpamDriver over a socket.

    network_plugin.py DIRECTORY PATH [KIND...]

A network is a bridge `pb-ID`, an endpoint a pair of links, one end of which is a port of the bridge. Pools are parts of
10.200.0.0/16. Each call is a line of DIRECTORY/calls, its arguments one of DIRECTORY/arguments. DIRECTORY/mode, read at each
call, makes the plugin misbehave: "hang METHOD", "say METHOD JSON", "status METHOD JSON", "drop METHOD". DIRECTORY/STATE keeps what
it knows, unless it was started with the word `forgetful`.
"""

import ipaddress
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler

ROOT, PLACE, WORDS = sys.argv[1], sys.argv[2], sys.argv[3:]
KINDS = [word for word in WORDS if word.endswith("Driver")] or ["NetworkDriver", "IpamDriver"]
LOCK = threading.Lock()
POOLS = {}
GATEWAYS = {}


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def request_pool(args):
    if (args.get("Options") or {}).get("refuse"):
        return {"Error": args["Options"]["refuse"]}
    subnet = args.get("Pool")
    if not subnet and args.get("V6"):
        subnet = "fd00:200::/64"
    if not subnet:
        wanted = ipaddress.ip_network("10.200.0.0/16").subnets(new_prefix=24)
        subnet = next(str(net) for net in wanted if str(net) not in POOLS)
    POOLS[subnet] = set()
    data = {}
    if "gateway" in (args.get("Options") or {}):
        data["com.docker.network.gateway"] = args["Options"]["gateway"]
    return {"PoolID": subnet, "Pool": subnet, "Data": data}


def request_address(args):
    pool = args["PoolID"]
    if pool not in POOLS:
        return {"Error": "no pool " + pool}
    net = ipaddress.ip_network(pool)
    address = args.get("Address")
    if not address:
        address = next((str(a) for a in net.hosts() if str(a) not in POOLS[pool]), None)
    if not address or address in POOLS[pool]:
        return {"Error": "address taken or none left"}
    POOLS[pool].add(address)
    return {"Address": f"{address}/{net.prefixlen}"}


def create_network(args):
    generic = args["Options"].get("com.docker.network.generic") or {}
    if generic.get("refuse"):
        return {"Err": generic["refuse"]}
    name = "pb-" + args["NetworkID"][:10]
    ip("link", "add", name, "type", "bridge")
    for data in (args.get("IPv4Data") or []) + (args.get("IPv6Data") or []):
        if data.get("Gateway"):
            ip("addr", "add", data["Gateway"], "dev", name, *(["nodad"] if ":" in data["Gateway"] else []))
            GATEWAYS.setdefault(args["NetworkID"], []).append(data["Gateway"].split("/")[0])
    ip("link", "set", name, "up")
    return {}


def join(args):
    pair = args["EndpointID"][:10]
    ip("link", "add", "h" + pair, "type", "veth", "peer", "name", "c" + pair)
    ip("link", "set", "h" + pair, "master", "pb-" + args["NetworkID"][:10], "up")
    answer = {"InterfaceName": {"SrcName": "c" + pair, "DstPrefix": "plug"}}
    for gateway in GATEWAYS.get(args["NetworkID"], []):
        answer["GatewayIPv6" if ":" in gateway else "Gateway"] = gateway
    answer["StaticRoutes"] = [{"Destination": "10.210.0.0/24", "RouteType": 1}]
    if "Gateway" in answer:
        answer["StaticRoutes"].append({"Destination": "10.211.0.0/24", "RouteType": 0, "NextHop": answer["Gateway"]})
    return answer


def call(method, args):
    if method == "Plugin.Activate":
        return {"Implements": KINDS}
    if method == "NetworkDriver.GetCapabilities":
        scope = "global" if "global" in WORDS else "local"
        return {"Scope": scope, "ConnectivityScope": scope}
    if method == "IpamDriver.GetCapabilities":
        return {"RequiresMACAddress": "mac" in WORDS, "RequiresRequestReplay": "forgetful" in WORDS}
    if method == "IpamDriver.GetDefaultAddressSpaces":
        return {"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "everywhere"}
    if method == "IpamDriver.RequestPool":
        return request_pool(args)
    if method == "IpamDriver.ReleasePool":
        POOLS.pop(args["PoolID"], None)
        return {}
    if method == "IpamDriver.RequestAddress":
        return request_address(args)
    if method == "IpamDriver.ReleaseAddress":
        POOLS.get(args["PoolID"], set()).discard(args["Address"])
        return {}
    if method == "NetworkDriver.CreateNetwork":
        return create_network(args)
    if method == "NetworkDriver.DeleteNetwork":
        subprocess.run(["ip", "link", "del", "pb-" + args["NetworkID"][:10]])
        return {}
    if method == "NetworkDriver.Join":
        return join(args)
    if method == "NetworkDriver.DeleteEndpoint":
        subprocess.run(["ip", "link", "del", "h" + args["EndpointID"][:10]], stderr=subprocess.DEVNULL)
        return {}
    if method in ("NetworkDriver.CreateEndpoint", "NetworkDriver.Leave", "NetworkDriver.ProgramExternalConnectivity"):
        return {}
    return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        method = self.path.lstrip("/")
        args = json.loads(body) if body else {}
        with LOCK, open(os.path.join(ROOT, "calls"), "a") as calls, open(os.path.join(ROOT, "arguments"), "a") as arguments:
            calls.write(method + "\n")
            arguments.write(json.dumps({"method": method, "args": args}) + "\n")
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
        status = 500 if how == "status" else 200
        if how in ("say", "status"):
            answer = text.strip().encode()
        else:
            with LOCK:
                said = call(method, args)
            if said is None:
                status, said = 404, {"Err": "unknown method"}
            answer = json.dumps(said).encode()
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
    request_queue_size = 128


# What stays on a bridge of this plugin is no business of the host's packet filter.
for name in ("iptables", "ip6tables"):
    try:
        with open("/proc/sys/net/bridge/bridge-nf-call-" + name, "w") as setting:
            setting.write("0")
    except FileNotFoundError:
        pass
os.makedirs(os.path.dirname(PLACE), exist_ok=True)
if os.path.exists(PLACE):
    os.remove(PLACE)
server = Unix(PLACE, Handler)
open(os.path.join(ROOT, "ready"), "w").close()
server.serve_forever()
