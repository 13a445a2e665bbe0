"""What test suites do with testcontainers, against the daemon at DOCKER_HOST. Needs the image busybox.

Runs in the daemon's network, as the programs of a test suite do.
"""

import os
import pathlib
import tempfile
import urllib.request

from testcontainers.core.container import DockerContainer
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


for check in (served, many):
    check()
    print(check.__name__, "ok", flush=True)
