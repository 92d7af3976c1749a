"""Small disks for data directories: an ext4 in a file, or a tmpfs where there are no loop devices.

    with Disk(256) as disk:       # root
        disk.fill(leave_mib=8)
        disk.free()
"""
import errno
import os
import shutil
import subprocess
import tempfile

MIB = 1 << 20


class Disk:
    def __init__(self, mib):
        self.mib = mib
        self.base = tempfile.mkdtemp(prefix="bonsai-disk-")
        self.path = os.path.join(self.base, "mnt")
        self.filler = os.path.join(self.path, "filler")
        self.kind = None

    def __enter__(self):
        os.mkdir(self.path)
        image = os.path.join(self.base, "image")
        with open(image, "wb") as f:
            f.truncate(self.mib * MIB)
        loop = [["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0", image],
                ["mount", "-o", "loop", image, self.path]]
        ram = [["mount", "-t", "tmpfs", "-o", f"size={self.mib}m", "tmpfs", self.path]]
        errors = []
        for kind, commands in (("ext4", loop), ("tmpfs", ram)):
            done = [subprocess.run(c, capture_output=True, text=True) for c in commands]
            if all(r.returncode == 0 for r in done):
                self.kind = kind
                return self
            errors += [r.stderr.strip() for r in done if r.returncode != 0]
        self.close()
        raise OSError("; ".join(errors))

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.kind:
            subprocess.run(["umount", self.path], check=True, timeout=60)
            self.kind = None
        shutil.rmtree(self.base, ignore_errors=True)

    def free_bytes(self):
        s = os.statvfs(self.path)
        return s.f_bavail * s.f_frsize

    def fill(self, leave_mib):
        """A file that takes all but `leave_mib` of what is free now; 0: to the last block."""
        with open(self.filler, "ab", buffering=0) as f:
            more = self.free_bytes() - max(leave_mib, 1) * MIB
            if more > 0:
                os.posix_fallocate(f.fileno(), f.tell(), more)
                f.seek(0, os.SEEK_END)
            while leave_mib == 0:
                try:
                    f.write(bytes(4096))
                except OSError as e:
                    assert e.errno == errno.ENOSPC, e
                    return

    def free(self):
        os.unlink(self.filler)
