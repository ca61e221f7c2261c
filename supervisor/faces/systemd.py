"""The text of the systemd unit that runs a fleet. Pure: all it depends on is in ``UnitPlan``; no file is touched.

What the unit promises: when the supervisor crashes, the datasites keep running and the next supervisor adopts them; a
stop leaves nothing; user code in a datasite can change the folders of its own fleet and nothing else of the host, and
can still use CUDA and torch's JIT.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from supervisor.effects.cgroups import FREES, LEAF
from supervisor.effects.gpus import LONG_PATIENCE, PATIENCE
from supervisor.policy.readiness import start_limit
from supervisor.spec import FleetConfig

NOTIFY_RELOAD = 253
"""The first systemd with Type=notify-reload."""
RESTART_STEPS = 254
"""The first systemd with RestartSteps=, and with DelegateSubgroup=."""

_WATCHDOG = 30
_MARGIN = 30
_FIRST_FREE_PORT = 1024
_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - recognised, not written to


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """``command``: the program ``fleet``, absolute. ``needs``: other folders that it must be able to read. ``user``
    None: a user unit. ``systemd``: its version. ``credentials``: name and file of each."""

    config: FleetConfig
    command: tuple[str, ...]
    needs: tuple[Path, ...]
    user: str | None
    systemd: int
    fleet: str
    credentials: tuple[tuple[str, Path], ...] = ()


def slug(name: str) -> str:
    """A fleet's name as systemd, /etc and /run can have it."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.") or "fleet"


def unit_name(name: str) -> str:
    return f"fleet-{slug(name)}.service"


def environment_file(name: str, *, user_unit: bool) -> str:
    """Where the unit looks for variables, as systemd spells it; ``%h`` is the home folder."""
    return f"{'%h/.config' if user_unit else '/etc'}/fleet/{slug(name)}.env"


def unit_text(plan: UnitPlan) -> str:
    """The whole file. Directives that this plan has no use for are empty lines in the blocks below, and left out."""
    life = (_start(plan), _reload(plan), _restart(plan), _stop(plan))
    blocks = (_header(plan), _unit(plan), *life, _surroundings(plan), _limits(plan), _hardening(plan), _install(plan))
    return "\n".join(re.sub(r"\n{2,}", "\n", block.strip() + "\n") for block in blocks if block.strip())


# --- how systemd spells values; see systemd.syntax(7) and systemd.unit(5), Specifiers ---


def quoted(value: str | Path) -> str:
    """One word of a list of words."""
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if re.search(r"[\s\"';]", escaped) or not escaped else escaped


def _argument(value: str | Path) -> str:
    """One word of a command line, where ``$`` means a variable too."""
    return quoted(value).replace("$", "$$")


def _script(text: str) -> str:
    """Keeps a shell's own ``$`` and quotes from systemd, but not systemd's specifiers."""
    return "'" + text.replace("$", "$$").replace("'", "\\'") + "'"


def _whole_line(value: str | Path) -> str:
    return str(value).replace("%", "%%")


def _command(plan: UnitPlan, *words: str) -> str:
    return " ".join(map(_argument, (*plan.command, *words)))


# --- blocks ---


def _header(plan: UnitPlan) -> str:
    return f"""
# Written by `fleet install systemd` (fleet {plan.fleet}) for systemd {plan.systemd}. Put your own changes into a
# drop-in, which `fleet install systemd` never changes: {_manager(plan)} edit {unit_name(plan.config.name)}
"""


def _unit(plan: UnitPlan) -> str:
    return f"""
[Unit]
Description=fleet {_whole_line(plan.config.name)}: PySyft datasites
{_SYSTEM_ORDER if plan.user is not None else ""}
{_GPU_ORDER if plan.user is not None and _wants_gpu(plan.config) else ""}
RequiresMountsFor={_words((plan.config.path.parent, *_written(plan)))}
# Restart it, however often it crashes.
StartLimitIntervalSec=0
"""


_SYSTEM_ORDER = """
Wants=network-online.target
After=network-online.target
"""
_GPU_ORDER = """
# CUDA needs its device first: NoNewPrivileges stops NVIDIA's setuid helper from creating it later.
Wants=modprobe@nvidia_uvm.service
After=modprobe@nvidia_uvm.service nvidia-persistenced.service
"""


def _start(plan: UnitPlan) -> str:
    limit = start_limit(plan.config)
    driver = PATIENCE + LONG_PATIENCE if _wants_gpu(plan.config) else 0
    return f"""
[Service]
# Active once every datasite that should run is ready, or after {limit:g} s; `systemctl status` shows which are not.
Type={"notify-reload" if plan.systemd >= NOTIFY_RELOAD else "notify"}
NotifyAccess=main
ExecStart={_command(plan, "up", str(plan.config.path))}
{"" if plan.user is None else f"User={_whole_line(plan.user)}"}
WorkingDirectory={_whole_line(plan.config.path.parent)}
TimeoutStartSec={driver + limit + plan.config.shutdown_grace + _MARGIN:g}
"""


def _reload(plan: UnitPlan) -> str:
    return "ReloadSignal=SIGHUP" if plan.systemd >= NOTIFY_RELOAD else _RELOAD_WITHOUT_NOTIFY


_RELOAD_WITHOUT_NOTIFY = """
# systemd 253 and later have Type=notify-reload, with which `systemctl reload` waits until the reload is complete.
ExecReload=kill -HUP $MAINPID
"""


def _restart(plan: UnitPlan) -> str:
    return f"""
# The supervisor's main loop feeds the watchdog. If it hangs, systemd aborts it, and the journal shows where it hung.
WatchdogSec={_WATCHDOG}
TimeoutAbortSec=10
Environment=PYTHONFAULTHANDLER=1
Restart=always
RestartSec=1
{_SLOWER_AND_SLOWER if plan.systemd >= RESTART_STEPS else ""}
# No restart after `fleet down` (0), an error in fleet.yaml (2), or if another supervisor runs this fleet (5).
RestartPreventExitStatus=0 2 5
"""


_SLOWER_AND_SLOWER = """
RestartSteps=5
RestartMaxDelaySec=30
"""


def _stop(plan: UnitPlan) -> str:
    mark = f"%t/{_folder(plan)}/stopping"
    down = _command(plan, "down", str(plan.config.path))
    return f"""
# systemd signals only the supervisor. When it crashes, the datasites keep running and the next supervisor adopts them;
# when it is told to stop, it stops them in order. ExecStop runs only on a requested stop, and leaves a mark. With that
# mark, ExecStopPost ends what is left of a supervisor that hung or died during the stop.
KillMode=process
TimeoutStopSec={2 * plan.config.shutdown_grace + _MARGIN:g}
ExecStop=/bin/sh -c {_script(_MARK)} {mark}
ExecStopPost=-/bin/sh -c {_script(_AFTER_STOP)} {mark} {down}
ExecStopPost=-+/bin/sh -c {_script(_SWEEP)} {mark} {_manager(plan)} kill --signal=KILL {unit_name(plan.config.name)}
RuntimeDirectory={_folder(plan)}
RuntimeDirectoryMode=0700
"""


# In all three ``$0`` is the mark. `fleet down` exits with 3 when there is nothing left to stop.
_MARK = ': >"$0"'
_AFTER_STOP = (
    'case "$SERVICE_RESULT:$EXIT_CODE" in success:exited|timeout:*) : >"$0" ;; esac; test -e "$0" || exit 0; '
    'said=$("$@" 2>&1) || test $? -eq 3 || echo "$said"; rm -rf "$TMPDIR"'
)
_SWEEP = 'test ! -e "$0" || exec "$@"'


def _surroundings(plan: UnitPlan) -> str:
    folder = _folder(plan)
    credentials = (f"LoadCredential={name}:{_whole_line(path)}" for name, path in plan.credentials)
    return f"""
# Variables for ${{env:NAME}} in fleet.yaml: one NAME=value per line, mode 0600.
EnvironmentFile=-{environment_file(plan.config.name, user_unit=plan.user is None)}
# Secrets for ${{credential:NAME}} in fleet.yaml; `fleet install systemd --credential NAME:FILE` adds one.
{chr(10).join(credentials)}
# Caches of compiled kernels, and a folder for temporary files. Both stay when the supervisor crashes, as the datasites
# do; systemd would remove the folder of PrivateTmp.
CacheDirectory={folder} {folder}/scratch
CacheDirectoryMode=0700
Environment=TMPDIR=%C/{folder}/scratch XDG_CACHE_HOME=%C/{folder} MPLCONFIGDIR=%C/{folder}/matplotlib
Environment=CUDA_CACHE_PATH=%C/{folder}/nv TRITON_CACHE_DIR=%C/{folder}/triton
"""


def _limits(plan: UnitPlan) -> str:
    return f"""
# Each datasite has its own control group below this unit's, in which the kernel enforces its limits.
Delegate=yes
{_IN_A_LEAF if plan.systemd >= RESTART_STEPS else _FREED_AFTERWARDS}
{_LIMITS}
"""


_IN_A_LEAF = f"DelegateSubgroup={LEAF}"
_FREE = (
    'group=$(sed -n "s|^0::||p" /proc/self/cgroup); case "$group" in */.control) ;; *) exit 0 ;; esac; '
    "for root in /sys/fs/cgroup /sys/fs/cgroup/unified; do for one in memory cpu; do for of in /lines /; do "
    'echo "-$one" >"$root$(dirname "$group")$of/cgroup.subtree_control"; done; done; done 2>/dev/null; true'
)
_FREED_AFTERWARDS = f"""
# systemd 254 and later have DelegateSubgroup=supervisor. Earlier versions start the next supervisor in the unit's own
# group, which the kernel refuses while datasites below it have controllers. So ExecStopPost switches them off when the
# supervisor has ended, and the next supervisor switches them on again.
Environment={FREES}=1
ExecStopPost=-/bin/sh -c {_script(_FREE)}
"""
_LIMITS = """
# If the kernel kills a datasite that is out of memory, the supervisor restarts it; the unit keeps running.
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=65536
# A core file would contain private data of a datasite.
LimitCORE=0
"""


def _hardening(plan: UnitPlan) -> str:
    if plan.user is None:
        return f"{_FOR_EVERY_MANAGER}# Options that need a mount namespace, as ProtectSystem does, need a system unit."
    return _FOR_EVERY_MANAGER + _FOR_THE_SYSTEM + _file_system(plan) + _privileges(plan)


_FOR_EVERY_MANAGER = """
# Hardening. Off on purpose: MemoryDenyWriteExecute (torch and CUDA compile at run time), ProtectControlGroups (limits
# of datasites), PrivateDevices (GPUs), RemoveIPC and PrivateUsers (the next supervisor could not adopt datasites).
UMask=0077
NoNewPrivileges=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
# pidfd_getfd: torch uses it to pass GPU memory between processes.
SystemCallFilter=@system-service @pkey
SystemCallFilter=~@privileged
SystemCallFilter=pidfd_getfd
SystemCallErrorNumber=EPERM
"""
_FOR_THE_SYSTEM = """
KeyringMode=private
ProtectProc=invisible
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
"""


def _file_system(plan: UnitPlan) -> str:
    home, temporary = _any_below(_read(plan), _HOMES), _any_below(_read(plan), _TEMPORARY)
    return f"""
PrivateMounts=yes
ProtectSystem=strict
ReadWritePaths={_words(_written(plan), "-")}
{"# Not yes: the fleet, or the Python that runs it, is in a home folder." if home else ""}
ProtectHome={"read-only" if home else "yes"}
{"# Not yes: the fleet, or the Python that runs it, is in a folder for temporary files." if temporary else ""}
PrivateTmp={"no" if temporary else "yes"}
"""


def _privileges(plan: UnitPlan) -> str:
    capability = "CAP_NET_BIND_SERVICE" if _has_low_port(plan.config) else ""
    devices = ("char-nvidia*", "char-drm", "char-kfd") if _wants_gpu(plan.config) else ()
    return f"""
CapabilityBoundingSet={capability}
AmbientCapabilities={capability}
DevicePolicy=closed
{chr(10).join(f"DeviceAllow={device} rw" for device in devices)}
"""


def _install(plan: UnitPlan) -> str:
    return f"""
[Install]
WantedBy={"default.target" if plan.user is None else "multi-user.target"}
"""


# --- what a fleet asks for ---


def _folder(plan: UnitPlan) -> str:
    return f"fleet-{slug(plan.config.name)}"


def _written(plan: UnitPlan) -> tuple[Path, ...]:
    return (plan.config.state_dir, plan.config.log_dir)


def _read(plan: UnitPlan) -> tuple[Path, ...]:
    return (plan.config.path.parent, *_written(plan), *plan.needs)


def _words(paths: Iterable[Path], prefix: str = "") -> str:
    return " ".join(prefix + quoted(path) for path in dict.fromkeys(paths))


def _manager(plan: UnitPlan) -> str:
    return "systemctl --user" if plan.user is None else "systemctl"


def _any_below(paths: Iterable[Path], folders: Iterable[str]) -> bool:
    return any(path.is_relative_to(folder) for path in paths for folder in folders)


def _wants_gpu(config: FleetConfig) -> bool:
    return any(spec.gpu.mode != "none" for spec in config.datasites)


def _has_low_port(config: FleetConfig) -> bool:
    return any(spec.port < _FIRST_FREE_PORT for spec in config.workers)
