#!/bin/busybox sh
# The first program of the machine: the host's root, read-only, below a layer of memory becomes the root. The first one
# could not be pivoted away from.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
while read -r module; do $b insmod "$module"; done < /modules
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host || exec $b poweroff -f
$b mount -t tmpfs -o mode=755 tmpfs /memory
$b mkdir /memory/upper /memory/work
$b mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work overlay /root
for dir in dev proc sys; do $b mount --move /$dir /root/$dir; done
$b cp /machine.sh /root/machine.sh
[ -e /machine.service ] || exec $b switch_root /root /bin/sh /machine.sh
# By this file systemd would take the machine for a container.
$b rm -f /root/.dockerenv
$b cp /machine.service /root/etc/systemd/system/machine.service
exec $b switch_root /root /lib/systemd/systemd
