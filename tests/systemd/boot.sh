#!/bin/bash
# Becomes a booted systemd on this host's own files, none of which it can change, or on those of $SYSTEMD_ROOT. Called by
# host.py as the first process of fresh pid, mount, ipc, uts and cgroup namespaces; everything it mounts goes with it.
# $@: folders to keep visible.
set -eu
mount --make-rprivate /

if [ -n "${SYSTEMD_ROOT:-}" ]; then
    mount --bind "$SYSTEMD_ROOT" "$SYSTEMD_ROOT"
    cd "$SYSTEMD_ROOT"
    for folder in /dev /proc /sys "$@"; do
        [ "$folder" = /usr ] && continue # its Python is not the host's
        mkdir -p ".$folder"
        mount --rbind "$folder" ".$folder"
    done
    pivot_root . mnt
    cd /
    umount -l /mnt
fi

# Read-only are the host's files; fresh and our own is what systemd and a fleet write.
mount --rbind /dev /dev
mount -o remount,bind,ro /dev
mount -o remount,bind,ro / || true # some sandboxes forbid it; nothing below writes there
fresh() { mountpoint -q "$1" && umount -l "$1"; mount -t tmpfs -o "mode=$2" fleet-test "$1"; }
for folder in /run /var /srv /etc/systemd/system; do fresh "$folder" 0755; done
fresh /dev/shm 1777
kept=no
for folder in "$@"; do case "$folder/" in /tmp/*) kept=yes ;; esac; done
[ "$kept" = yes ] || fresh /tmp 1777
mkdir -p /run/systemd/system /run/lock /var/log /var/cache /var/lib
mkdir -m 1777 /var/tmp
ln -s /run /var/run

# cgroup v2 alone, as seen from our own namespace, whatever the host mounts.
umount -l -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 fleet-test /sys/fs/cgroup

# Nothing of the host starts here but the journal. /dev/log would be the host's.
cd /etc/systemd/system
for wanted in /lib/systemd/system/*.wants/* /usr/lib/systemd/system/*.wants/*; do
    name=${wanted##*/}
    case "$name" in systemd-journald.service | systemd-journald.socket | '*') ;; *) ln -sf /dev/null "$name" ;; esac
done
ln -sf /dev/null systemd-journald-dev-log.socket
ln -sf /dev/null systemd-remount-fs.service
ln -sf /dev/null modprobe@nvidia_uvm.service
mkdir -p /run/systemd/system-generators # fstab's mounts among others
for generator in /lib/systemd/system-generators/* /usr/lib/systemd/system-generators/*; do
    ln -sf /dev/null "/run/systemd/system-generators/${generator##*/}"
done
printf '[Unit]\nDescription=What a fleet needs\nRequires=basic.target\nAfter=basic.target\n' >fleet-test.target

# As a booted host has it, and systemd itself sees to it outside of containers: credentials reach services this way.
mount --make-rshared /
exec env -i container=fleet-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    "$SYSTEMD" --system --unit=fleet-test.target --log-target=journal-or-kmsg --show-status=false
