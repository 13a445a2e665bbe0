# The second program of the machine, or a service of systemd there: what a system manager would set up, if there is none,
# then the tests, then off. What stands between @
# is put in by `cargo xtask vm`.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=1
exec </dev/null
mkdir -p /lib/modules
mount --bind @modules@ /lib/modules
if [ ! -e /run/systemd/system ]; then
    mkdir -p /dev/pts /dev/shm
    mount -t tmpfs -o mode=755 run /run
    mount -t devpts devpts /dev/pts
    mount -t tmpfs shm /dev/shm
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount --make-rshared /
fi
for module in bridge br_netfilter crc32c_generic ext4 loop nf_tables nft_chain_nat nft_ct nft_fib_inet nft_masq nft_nat \
    nft_reject_inet veth; do
    modprobe "$module" || echo "no module $module"
done
ip link set lo up
# Data roots need a directory that is no overlay; the workspace may lie below it.
mkdir /run/workspace
mount --bind @workspace@ /run/workspace
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p @workspace@
mount --bind /run/workspace @workspace@
@command@
sync
echo o > /proc/sysrq-trigger
sleep 60
