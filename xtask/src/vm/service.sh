# The daemon as a service of systemd: `cargo xtask vm systemd` runs this in the machine before its tests.
docker() { env DOCKER_HOST=unix:///run/docker.sock @docker@ "$@"; }
main_pid() { systemctl show -P MainPID gantry.service; }
pid_of() { docker inspect -f '{{.State.Pid}}' "$1"; }
state_of() { docker inspect -f '{{.State.Status}}' "$1"; }
# A control file of a container's cgroup.
control() { cat "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$(pid_of "$1")/cgroup")/$2"; }
eventually() { for _ in $(seq 600); do "$@" && return 0; sleep 0.1; done; return 1; }

starts_by_its_socket() {
    systemctl start gantry.socket && ! systemctl -q is-active gantry.service && docker version &&
        systemctl -q is-active gantry.service && grep gantry.service "/proc/$(main_pid)/cgroup"
}
tells_of_version_2() {
    [ "$(docker info -f '{{.CgroupVersion}} {{.CgroupDriver}} {{.SwapLimit}}')" = '2 cgroupfs true' ]
}
limits_a_container() {
    mkdir -p /tmp/root/bin && cp "$(command -v busybox)" /tmp/root/bin && ln -sf busybox /tmp/root/bin/sh &&
        tar -C /tmp/root -c . | docker import - busybox &&
        docker run -d --name c1 -m 64m --cpus 0.5 --pids-limit 50 busybox busybox sleep 1000 &&
        [ "$(control c1 memory.max)" = 67108864 ] && [ "$(control c1 cpu.max)" = '50000 100000' ]
}
# The unit is a child of its slice, and hands nothing down itself: what is relative begins beside it.
lives_beside_its_unit() {
    docker run -d --name beside --cgroup-parent inner -m 64m busybox busybox sleep 1000 &&
        grep ^0::/system.slice/inner/ "/proc/$(pid_of beside)/cgroup" && [ "$(control beside memory.max)" = 67108864 ]
}
# Not in the slice itself: systemd takes controllers back from its own cgroups, unless one further down hands them on.
lives_below_a_slice() {
    systemctl start gantry-box.slice && systemctl set-property --runtime gantry-box.slice MemoryMax=200M &&
        docker run -d --name boxed --cgroup-parent /gantry.slice/gantry-box.slice/box -m 64m --cpuset-cpus 0 busybox \
            busybox sleep 1000 &&
        [ "$(control boxed memory.max)" = 67108864 ] && [ "$(control boxed cpuset.cpus)" = 0 ]
}
# systemd sets up the same hierarchy, anew each time.
keeps_its_limits_when_systemd_works() {
    printf '[Service]\nType=oneshot\nExecStart=/bin/true\nCPUQuota=50%%\nMemoryMax=100M\nTasksMax=20\nAllowedCPUs=0\n' \
        >/etc/systemd/system/other.service
    systemctl daemon-reload && systemctl start other.service && systemctl daemon-reload &&
        [ "$(control c1 memory.max) $(control c1 pids.max)" = '67108864 50' ] &&
        [ "$(control beside memory.max)" = 67108864 ] && [ "$(control boxed cpuset.cpus)" = 0 ] &&
        docker run --rm -m 64m --cpuset-cpus 0 --cgroup-parent /new busybox busybox true && docker exec c1 busybox true
}
is_another() { [ "$(main_pid)" != "$1" ] && [ "$(main_pid)" != 0 ] && systemctl -q is-active gantry.service; }
follows_itself_when_killed() {
    before=$(pid_of c1) && daemon=$(main_pid) && kill -9 "$daemon" && eventually is_another "$daemon" &&
        [ "$(pid_of c1)" = "$before" ] && [ "$(docker exec c1 busybox echo alive)" = alive ]
}
reloads() { daemon=$(main_pid) && systemctl reload gantry.service && docker ps && [ "$(main_pid)" = "$daemon" ]; }
is_state() { [ "$(state_of "$1")" = "$2" ]; }
restarts() {
    docker run -d --name always --restart always busybox busybox sleep 1000 && systemctl restart gantry.service &&
        eventually is_state always running && is_state c1 exited && docker start c1
}
knows_what_runs_out_of_memory() {
    docker run --name eater -m 16m --memory-swap 16m busybox busybox dd if=/dev/zero of=/dev/shm/x bs=1M count=60
    [ "$(docker inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' eater)" = 'true 137' ]
}
stops_and_leaves_nothing() {
    docker rm -f beside boxed eater always && systemctl stop gantry.service gantry.socket &&
        [ -z "$(find /sys/fs/cgroup/docker /sys/fs/cgroup/system.slice/inner -mindepth 1 -type d)" ] &&
        [ -z "$(cat /sys/fs/cgroup/docker/cgroup.procs)" ] && ! systemctl -q is-failed gantry.service
}

groupadd --system docker 2>/dev/null
cp @workspace@/contrib/systemd/gantry.* /etc/systemd/system/
cp @daemon@ /usr/bin/gantryd
mkdir -p /var/lib/gantry
mount -t tmpfs gantry /var/lib/gantry
systemctl daemon-reload
passed=0 failed=0
for check in starts_by_its_socket tells_of_version_2 limits_a_container lives_beside_its_unit lives_below_a_slice \
    keeps_its_limits_when_systemd_works follows_itself_when_killed reloads restarts knows_what_runs_out_of_memory \
    stops_and_leaves_nothing; do
    if "$check" >/tmp/said 2>&1; then
        passed=$((passed + 1))
        echo "test service::$check ... ok"
    else
        failed=$((failed + 1))
        cat /tmp/said
        journalctl -b --no-pager -u gantry.service -n 30
        echo "test service::$check ... FAILED"
    fi
done
echo "test result: $([ $failed = 0 ] && echo ok || echo FAILED). $passed passed; $failed failed; 0 ignored"
