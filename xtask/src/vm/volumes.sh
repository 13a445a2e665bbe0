# What the tests of volumes need of the kernel, and where they find the programs of an NFS server.
for module in cifs nfs nfsd nfsv4 quota_v2 xfs; do
    modprobe "$module" || echo "no module $module"
done
export GANTRY_KERNEL_VOLUMES=@nfs@
