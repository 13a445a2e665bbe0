"""What programs do with docker-py, against the daemon at DOCKER_HOST. Needs the image busybox."""

import datetime
import io
import os
import socket
import tarfile
import time

import docker
from docker.errors import APIError, BuildError, ContainerError, ImageNotFound, NotFound

IMAGE = "busybox"


def new(version="auto"):
    return docker.DockerClient(base_url=os.environ["DOCKER_HOST"], version=version, timeout=120)


client = new()


def refused(error, status, *words):
    assert error.response.status_code == status, error
    assert all(word in error.explanation for word in words), error.explanation


def system():
    assert client.ping()
    version = client.version()
    assert version["ApiVersion"] == "1.56" and version["Os"] == "linux", version
    info = client.info()
    assert info["OSType"] == "linux" and info["Images"] >= 1 and info["DriverStatus"], info
    for old in ("1.24", "1.35", "1.41", "1.44"):
        assert new(old).ping() and new(old).version()["ApiVersion"] == "1.56"
        assert new(old).containers.run(IMAGE, "echo hi", remove=True) == b"hi\n"


def run():
    assert client.containers.run(IMAGE, "echo hello", remove=True) == b"hello\n"
    both = ["sh", "-c", "echo out; echo err >&2"]
    assert client.containers.run(IMAGE, both, remove=True) == b"out\n"
    assert client.containers.run(IMAGE, both, remove=True, stdout=False, stderr=True) == b"err\n"
    streamed = client.containers.run(IMAGE, ["seq", "3"], remove=False, stream=True, name="streamed")
    assert b"".join(streamed) == b"1\n2\n3\n"
    client.containers.get("streamed").remove()
    assert client.containers.run(IMAGE, "tty", tty=True, remove=True).strip() == b"/dev/pts/0"
    seen = client.containers.run(
        IMAGE, ["sh", "-c", "echo $A $PWD $(id -u) $(hostname)"], remove=True,
        environment={"A": "b"}, working_dir="/tmp", user="33", hostname="box", network_mode="none",
    )
    assert seen == b"b /tmp 33 box\n", seen
    try:
        client.containers.run(IMAGE, ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
        raise AssertionError("no error")
    except ContainerError as error:
        assert error.exit_status == 3 and error.stderr == b"bad\n", error
    try:
        client.containers.run(IMAGE, "/nope", remove=True)
        raise AssertionError("no error")
    except APIError as error:
        refused(error, 400, 'exec: "/nope"')
    try:
        client.containers.create("nosuch:1")
        raise AssertionError("no error")
    except ImageNotFound as error:
        refused(error, 404, "No such image: nosuch:1")
    for container in client.containers.list(all=True, filters={"status": "created"}):
        container.remove()


def life():
    box = client.containers.run(IMAGE, "sleep 1000", detach=True, name="life", labels={"a": "b"}, stop_signal="SIGKILL")
    assert box.status in ("created", "running") and box.name == "life" and box.labels["a"] == "b"
    box.reload()
    assert box.status == "running" and box.attrs["State"]["Pid"] > 0
    assert box.image.tags == ["busybox:latest"], box.image.tags
    assert [c.id for c in client.containers.list(filters={"label": ["a=b"]})] == [box.id]
    assert client.containers.list(filters={"label": "a=c"}) == []
    assert client.containers.list(ignore_removed=True)[0].short_id == box.id[:12]
    assert box.top()["Titles"] and box.top(ps_args="-o pid,comm")["Processes"][0][1] == "sleep"
    box.pause()
    box.reload()
    assert box.status == "paused"
    box.unpause()
    box.restart(timeout=0)
    box.rename("other")
    assert client.containers.get("other").id == box.id
    box.kill(signal="HUP")
    box.stop(timeout=1)
    assert box.wait() == {"StatusCode": 137}, box.wait()
    box.start()
    box.kill()
    assert box.wait(condition="not-running")["StatusCode"] == 137
    try:
        box.kill()
        raise AssertionError("no error")
    except APIError as error:
        refused(error, 409, "is not running")
    box.start()
    try:
        box.remove()
        raise AssertionError("no error")
    except APIError as error:
        refused(error, 409, "stop the container before removing")
    box.remove(force=True, v=True)
    try:
        client.containers.get("other")
        raise AssertionError("no error")
    except NotFound as error:
        refused(error, 404, "No such container: other")


def logs():
    script = "for i in 1 2 3; do echo line $i; sleep 0.3; done; echo bad >&2"
    box = client.containers.run(IMAGE, ["sh", "-c", script], detach=True)
    assert b"".join(box.logs(stream=True, follow=True)) == b"line 1\nline 2\nline 3\nbad\n"
    assert box.logs(stdout=False) == b"bad\n"
    assert box.logs(tail=1) == b"bad\n" and box.logs(tail="all", stderr=False).count(b"\n") == 3
    stamped = box.logs(timestamps=True, tail=1).decode().split(" ")
    assert len(stamped[0]) == 30 and stamped[1] == "bad\n", stamped
    assert box.logs(since=datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=1)) == b""
    assert box.logs(until=int(time.time()) + 60).endswith(b"bad\n")
    box.remove(force=True)


def execs():
    box = client.containers.run(IMAGE, "sleep 1000", detach=True, name="execs")
    assert box.exec_run("echo hi") == (0, b"hi\n")
    script = ["sh", "-c", "echo out; echo err >&2; exit 3"]
    code, output = box.exec_run(script)
    assert code == 3 and sorted(output.split()) == [b"err", b"out"], (code, output)
    assert box.exec_run(script, demux=True) == (3, (b"out\n", b"err\n"))
    assert box.exec_run("true", demux=True) == (0, (None, None))
    none, stream = box.exec_run(["sh", "-c", "echo 1; sleep 0.2; echo 2"], stream=True)
    assert none is None and b"".join(stream) == b"1\n2\n"
    _, stream = box.exec_run(script, stream=True, demux=True)
    pairs = list(stream)
    assert (b"out\n", None) in pairs and (None, b"err\n") in pairs, pairs
    assert box.exec_run("pwd", workdir="/tmp").output == b"/tmp\n"
    assert box.exec_run("id -u", user="33").output == b"33\n"
    assert box.exec_run(["sh", "-c", "echo $A"], environment={"A": "b"}).output == b"b\n"
    assert box.exec_run("tty", tty=True).output.strip() == b"/dev/pts/0"
    assert box.exec_run("sleep 0", detach=True).exit_code in (None, 0)
    code, output = box.exec_run("/nope")
    assert code == 127 and b'exec: "/nope"' in output, (code, output)
    made = client.api.exec_create(box.id, ["sh", "-c", "cat; echo end"], stdin=True)
    wire = client.api.exec_start(made["Id"], socket=True)
    raw = getattr(wire, "_sock", wire)
    raw.sendall(b"abc\n")
    raw.shutdown(socket.SHUT_WR)
    assert frames(raw) == {1: b"abc\nend\n"}
    for _ in range(3000):
        if client.api.exec_inspect(made["Id"])["ExitCode"] is not None:
            break
        time.sleep(0.02)
    state = client.api.exec_inspect(made["Id"])
    assert state["ExitCode"] == 0 and not state["Running"] and state["ProcessConfig"]["entrypoint"] == "sh", state
    try:
        client.api.exec_inspect("nosuch")
        raise AssertionError("no error")
    except NotFound as error:
        refused(error, 404, "No such exec instance: nosuch")
    # Many in a row: neither output nor code may get lost.
    for n in range(20):
        assert box.exec_run(["sh", "-c", f"echo {n}; exit {n}"]) == (n, f"{n}\n".encode()), n
    box.remove(force=True)


def frames(raw):
    """Everything up to the end of the stream, by stream: frames may come joined or apart."""
    data = b""
    while chunk := raw.recv(4096):
        data += chunk
    found = {}
    while data:
        size = int.from_bytes(data[4:8], "big")
        found[data[0]] = found.get(data[0], b"") + data[8 : 8 + size]
        data = data[8 + size :]
    return found


def attach():
    box = client.containers.create(IMAGE, ["sh", "-c", "cat; echo end >&2"], stdin_open=True)
    once = client.api.create_container(IMAGE, ["sh", "-c", "cat; echo end >&2"], stdin_open=True)
    client.api.remove_container(once["Id"])
    wire = box.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    box.start()
    raw = getattr(wire, "_sock", wire)
    raw.sendall(b"abc\n")
    assert raw.recv(4096) == b"\x01\0\0\0\0\0\0\x04abc\n"
    box.kill()
    assert box.wait()["StatusCode"] == 137
    assert raw.recv(4096) == b""
    wire.close()
    assert box.attach(logs=True, stream=False) == b"abc\n"
    box.remove()
    chatty = client.containers.create(IMAGE, ["sh", "-c", "sleep 0.3; seq 3"])
    stream = chatty.attach(stream=True)
    chatty.start()
    assert b"".join(stream) == b"1\n2\n3\n"
    chatty.remove(force=True)
    screen = client.containers.run(IMAGE, "cat", tty=True, stdin_open=True, detach=True)
    screen.resize(20, 30)
    wire = screen.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    raw = getattr(wire, "_sock", wire)
    raw.sendall(b"x\r")
    seen = b""
    while not seen.endswith(b"x\r\nx\r\n"):
        seen += raw.recv(4096)
    wire.close()
    screen.remove(force=True)


def events():
    begin = time.time()
    box = client.containers.run(IMAGE, "true", detach=True, name="told", labels={"k": "v"})
    box.wait()
    box.remove()
    time.sleep(0.1)
    wanted = {"container": "told", "type": "container"}
    told = list(client.events(decode=True, since=begin - 1, until=time.time(), filters=wanted))
    assert [e["Action"] for e in told] == ["create", "start", "die", "destroy"], told
    die = told[2]
    assert "status" not in die and die["Actor"]["ID"] == box.id, die
    old = next(new("1.45").events(decode=True, since=begin - 1, until=time.time(), filters=wanted))
    assert old["status"] == "create" and old["id"] == box.id and old["from"] == IMAGE, old
    assert die["Actor"]["Attributes"]["exitCode"] == "0" and die["Actor"]["Attributes"]["k"] == "v"
    live = client.events(decode=True, filters={"event": "create"})
    box = client.containers.create(IMAGE, "true")
    assert next(live)["Actor"]["ID"] == box.id
    live.close()
    box.remove()


def images():
    image = client.images.get(IMAGE)
    assert image.tags == ["busybox:latest"] and image.id.startswith("sha256:") and image.short_id
    assert image.history()[0]["Tags"] == ["busybox:latest"]
    assert image.tag("copy", tag="1") and client.images.get("copy:1").id == image.id
    assert sorted(client.images.list()[0].tags) == ["busybox:latest", "copy:1"]
    assert client.images.list(name="copy", filters={"dangling": False}) != []
    assert client.images.list(name="nosuch") == []
    image.reload()
    saved = b"".join(image.save(named="copy:1"))
    client.images.remove("copy:1")
    assert [i.tags for i in client.images.load(saved)] != []
    assert client.images.get("copy:1").id == image.id
    client.images.remove("copy:1")
    root = io.BytesIO()
    with tarfile.open(fileobj=root, mode="w") as tar:
        entry = tarfile.TarInfo("hello")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
    client.api.import_image_from_data(root.getvalue(), repository="made", tag="1")
    assert client.images.get("made:1").attrs["Os"] == "linux"
    client.images.remove("made:1")
    try:
        client.images.get("nosuch")
        raise AssertionError("no error")
    except ImageNotFound as error:
        refused(error, 404, "No such image: nosuch:latest")


def networks_and_volumes():
    assert sorted(n.name for n in client.networks.list()) == ["bridge", "host", "none"]
    assert client.networks.get("bridge").attrs["Driver"] == "bridge"
    volume = client.volumes.create("data", labels={"a": "b"})
    assert client.volumes.list(filters={"label": "a=b"}) == [volume]
    mounts = {"data": {"bind": "/data", "mode": "rw"}}
    client.containers.run(IMAGE, ["sh", "-c", "echo kept > /data/f"], volumes=mounts, remove=True)
    assert client.containers.run(IMAGE, "cat /data/f", volumes=mounts, remove=True) == b"kept\n"
    box = client.containers.run(IMAGE, "sleep 1000", detach=True, ports={"80/tcp": 8085, "81/udp": None})
    box.reload()
    assert box.ports["80/tcp"][0] == {"HostIp": "0.0.0.0", "HostPort": "8085"}, box.ports
    assert int(box.ports["81/udp"][0]["HostPort"]) > 1024, box.ports
    assert box.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].startswith("172."), box.attrs
    box.remove(force=True)
    volume.remove()
    assert client.volumes.prune()["VolumesDeleted"] in ([], None)
    assert client.containers.prune()["ContainersDeleted"] is None


def networks_of_users():
    pool = docker.types.IPAMPool(
        subnet="172.40.0.0/16", gateway="172.40.0.254", iprange="172.40.8.0/24", aux_addresses={"a": "172.40.8.0"}
    )
    ipam = docker.types.IPAMConfig(pool_configs=[pool])
    network = client.networks.create("app", driver="bridge", labels={"role": "app"}, ipam=ipam, check_duplicate=True)
    try:
        client.networks.create("app", check_duplicate=True)
        raise AssertionError("a second one of that name")
    except APIError as error:
        refused(error, 409, "network with name app already exists")
    place = {"app": client.api.create_endpoint_config(aliases=["x"], ipv4_address="172.40.8.9")}
    one = client.containers.run(IMAGE, "sleep 1000", detach=True, name="one", network="app", networking_config=place)
    one.reload()
    joined = one.attrs["NetworkSettings"]["Networks"]["app"]
    assert (joined["IPAddress"], joined["Aliases"]) == ("172.40.8.9", ["x"]), joined
    two = client.containers.run(IMAGE, "sleep 1000", detach=True, name="two")
    began = int(time.time())
    network.connect(two, ipv4_address="172.40.8.77", aliases=["y"])
    network.reload()
    assert sorted(box.name for box in network.containers) == ["one", "two"]
    assert sorted(c["IPv4Address"] for c in network.attrs["Containers"].values()) == ["172.40.8.77/16", "172.40.8.9/16"]
    for wrong, status, words in (
        (lambda: network.connect(two), 403, "endpoint with name two already exists in network app"),
        (network.remove, 403, "network app has active endpoints"),
        (lambda: client.networks.get("nosuch"), 404, "network nosuch not found"),
        (lambda: client.networks.create("other", driver="nosuch"), 404, 'plugin "nosuch" not found'),
        (lambda: client.networks.prune(filters={"bad": "1"}), 400, "invalid filter 'bad'"),
    ):
        try:
            wrong()
            raise AssertionError(words)
        except APIError as error:
            refused(error, status, words)
    assert client.containers.list(filters={"network": "app"}, all=True).__len__() == 2
    network.disconnect(two)
    told = client.events(decode=True, since=began, until=int(time.time()) + 1, filters={"type": "network"})
    told = [(event["Action"], event["Actor"]["Attributes"]["name"]) for event in told]
    assert told[-2:] == [("connect", "app"), ("disconnect", "app")], told
    assert [n.name for n in client.networks.list(filters={"label": "role=app"})] == ["app"]
    assert client.networks.prune(filters={"label": "role=app"})["NetworksDeleted"] is None
    for box in (one, two):
        box.remove(force=True)
    assert client.networks.prune(filters={"label": "role=other"})["NetworksDeleted"] is None
    assert client.networks.prune(filters={"label": "role=app"})["NetworksDeleted"] == ["app"]


def changes():
    """What changed in a container, out of it, and into an image."""
    box = client.containers.create(IMAGE, ["sh", "-c", "echo 1 > /new; rm /etc/group"])
    assert box.diff() is None
    box.start()
    assert box.wait()["StatusCode"] == 0
    told = [(change["Kind"], change["Path"]) for change in box.diff()]
    assert told == [(0, "/etc"), (2, "/etc/group"), (1, "/new")], told
    with tarfile.open(fileobj=io.BytesIO(b"".join(box.export()))) as tar:
        assert tar.extractfile("new").read() == b"1\n"
        assert "etc/group" not in tar.getnames()
    image = box.commit("made", "2", message="why", author="who", changes=["CMD cat /new"], conf={"Labels": {"k": "v"}})
    assert image.tags == ["made:2"] and image.labels == {"k": "v"}, image.attrs
    assert image.history()[0]["Comment"] == "why"
    assert client.containers.run("made:2", remove=True) == b"1\n"
    box.remove()
    client.images.remove("made:2")


def archives():
    box = client.containers.create(IMAGE, "true")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        entry = tarfile.TarInfo("copied")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
    assert box.put_archive("/tmp", data.getvalue())
    chunks, stat = box.get_archive("/tmp/copied")
    assert stat["name"] == "copied" and stat["size"] == 3, stat
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        assert tar.extractfile("copied").read() == b"abc"
    box.remove()


def context(**files):
    """An archive of these files; the names of paths have their slashes as `__`."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/"))
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    data.seek(0)
    return data


def builds():
    text = "FROM busybox AS one\nARG V=1\nCOPY d/f /f\nRUN echo $V >> /f\nFROM one\nCMD cat /f\n"
    sent = dict(fileobj=context(Dockerfile=text, d__f="file\n"), custom_context=True, encoding="gzip")
    image, log = client.images.build(tag="py:1", buildargs={"V": "2"}, labels={"k": "v"}, rm=True, **sent)
    log = list(log)
    said = "".join(line.get("stream", "") for line in log)
    assert "Step 1/7 : FROM busybox AS one\n" in said and "Successfully tagged py:1\n" in said, said
    assert [line["aux"]["ID"] for line in log if "aux" in line][-1] == image.id, log
    assert image.tags == ["py:1"] and image.labels == {"k": "v"}, image.attrs
    assert client.containers.run("py:1", remove=True) == b"file\n2\n"
    sent["fileobj"] = context(Dockerfile=text, d__f="file\n")
    again, log = client.images.build(target="one", buildargs={"V": "2"}, nocache=False, **sent)
    assert "".join(line.get("stream", "") for line in log).count("Using cache") == 3
    assert again.id != image.id
    # A Dockerfile alone, with limits, names of hosts and a network.
    plain = b"FROM busybox\nRUN grep -c named /etc/hosts > /n; cat /sys/fs/cgroup/memory/memory.limit_in_bytes >> /n || true\n"
    image, _ = client.images.build(
        fileobj=io.BytesIO(plain), tag="py:2", extra_hosts={"named": "10.0.0.9"}, network_mode="none",
        container_limits={"memory": 64 << 20}, shmsize=8 << 20, forcerm=True, quiet=False, platform="linux", pull=False,
    )
    assert client.containers.run("py:2", "head -1 /n", remove=True) == b"1\n"
    # Quiet: nothing but the id.
    quiet = list(client.api.build(fileobj=io.BytesIO(b"FROM busybox\nENV A=1\n"), quiet=True, decode=True))
    assert len(quiet) == 1 and quiet[0]["stream"].startswith("sha256:"), quiet
    # Unless it fails: then what it has held back comes first.
    failing = io.BytesIO(b"FROM busybox\nRUN echo shown; exit 3\n")
    failed = list(client.api.build(fileobj=failing, quiet=True, decode=True))
    assert "shown\n" in [line.get("stream") for line in failed] and failed[-1]["errorDetail"]["code"] == 3, failed
    for dockerfile, text in (
        ("FROM busybox\nRUN exit 7\n", "The command '/bin/sh -c exit 7' returned a non-zero code: 7"),
        ("FROM nosuch-image:1\n", "nosuch-image"),
        ("FROM busybox\nCOPY none /\n", "COPY failed: file not found in build context"),
    ):
        try:
            client.images.build(fileobj=io.BytesIO(dockerfile.encode()))
            raise AssertionError("no error")
        except BuildError as error:
            assert text in error.msg, error.msg
            assert any("errorDetail" in line for line in error.build_log), dockerfile
    try:
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUNN x\n"))
        raise AssertionError("no error")
    except APIError as error:
        refused(error, 400, "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)")
    pruned = client.api.prune_builds()
    assert pruned["SpaceReclaimed"] >= 0, pruned
    for image in client.images.list():
        if "busybox:latest" not in image.tags:
            client.images.remove(image.id, force=True)


CHECKS = (
    system,
    run,
    life,
    logs,
    execs,
    attach,
    events,
    images,
    networks_and_volumes,
    networks_of_users,
    changes,
    archives,
    builds,
)
for check in CHECKS:
    check()
    print(check.__name__, "ok", flush=True)
