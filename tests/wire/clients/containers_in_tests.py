"""What test suites do with testcontainers, against the daemon at DOCKER_HOST. Needs the image busybox.

Runs in the daemon's network, as the programs of a test suite do.
"""

import os
import pathlib
import tempfile
import urllib.request

import docker
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

IMAGE = "busybox"


def served():
    """A server, its port asked for right after the start, its log waited for, a command in it."""
    with tempfile.TemporaryDirectory() as page:
        os.chmod(page, 0o755)
        pathlib.Path(page, "index.html").write_text("hello\n")
        box = DockerContainer(IMAGE).with_exposed_ports(8080).with_env("A", "b").with_volume_mapping(page, "/www", "ro")
        box = box.with_command(["sh", "-c", "httpd -p 8080 -h /www && echo ready $A && sleep 1000"])
        box = box.waiting_for(LogMessageWaitStrategy("ready b"))
        with box:
            port, host = box.get_exposed_port(8080), box.get_container_host_ip()
            with urllib.request.urlopen(f"http://{host}:{port}/", timeout=60) as answer:
                assert answer.read() == b"hello\n"
            result = box.exec(["cat", "/www/index.html"])
            assert (result.exit_code, result.output) == (0, b"hello\n"), result
            stdout, stderr = box.get_logs()
            assert (stdout, stderr) == (b"ready b\n", b""), (stdout, stderr)
            wrapped = box.get_wrapped_container()
            wrapped.reload()
            assert wrapped.status == "running" and "org.testcontainers.session-id" in wrapped.labels, wrapped.labels


def many():
    """Several beside each other, each with a port of its own."""
    boxes = [DockerContainer(IMAGE).with_exposed_ports(80).with_command("sleep 1000").start() for _ in range(4)]
    assert len({box.get_exposed_port(80) for box in boxes}) == 4
    for box in boxes:
        box.stop()


def named():
    """A network of the suite's own, on which containers find each other by name."""
    with Network() as network:
        words = ["sh", "-c", "mkdir /www && echo found > /www/index.html && exec httpd -f -p 80 -h /www"]
        server = DockerContainer(IMAGE).with_network(network).with_network_aliases("server", "other").with_command(words)
        user = DockerContainer(IMAGE).with_network(network).with_command("sleep 1000")
        with server, user:
            for name in ("server", "other", server.get_wrapped_container().name):
                asked = ["sh", "-c", f"until wget -qO- http://{name}/; do sleep 0.1; done 2>/dev/null"]
                assert user.exec(asked).output == b"found\n", name


def reaped():
    """What a reaper of a suite that died does: everything of its session is found by label and removed."""
    client = docker.from_env()
    label = {"org.testcontainers.session-id": "dead"}
    found = {"label": "org.testcontainers.session-id=dead"}
    network = client.networks.create("of-the-dead", labels=label)
    volume = client.volumes.create("of-the-dead", labels=label)
    mounts = {volume.name: {"bind": "/v", "mode": "rw"}}
    for _ in range(2):
        client.containers.run(IMAGE, "sleep 1000", detach=True, labels=label, network=network.name, volumes=mounts)
    for box in client.containers.list(all=True, filters=found):
        box.remove(force=True, v=True)
    assert client.containers.list(all=True, filters=found) == []
    assert client.networks.prune(filters=found)["NetworksDeleted"] == ["of-the-dead"]
    assert client.volumes.prune(filters={**found, "all": "true"})["VolumesDeleted"] == ["of-the-dead"]
    assert client.images.prune(filters=found)["ImagesDeleted"] in (None, [])


for check in (served, many, named, reaped):
    check()
    print(check.__name__, "ok", flush=True)
