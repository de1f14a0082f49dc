"""What file system a directory is on, as the kernel's table of mounts tells."""

import os

TABLE = "/proc/self/mountinfo"
# Where memory maps and locks do not reach, or not always, who uses the same file elsewhere.
_SHARED = (
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "9p", "virtiofs", "afs", "coda"),
    *("ceph", "glusterfs", "lustre", "beegfs", "gpfs", "orangefs", "pvfs2", "ocfs2", "gfs2"),
)


def network_type(path: str, table: str | None = None) -> str | None:
    """The type of the network file system that a path is on; None on a local one.

    One in user space counts: what is behind it is not to be seen.
    """
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(table or TABLE, encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
                fields = line.split()
                if fields[2] == number:
                    kind = fields[fields.index("-", 6) + 1]
                    is_shared = kind in _SHARED or kind.partition(".")[0] in ("fuse", "fuseblk")
                    return kind if is_shared else None
    except (OSError, IndexError, ValueError):
        return None
    return None
