"""The default AppArmor profile of containers, on nodes whose kernel has AppArmor.

Loaded once, with the system's own `apparmor_parser`. Where there is none, or it refuses (inside another container),
containers run without a profile, as they do on a node without AppArmor, and the log says so.
"""

import subprocess
from pathlib import Path

from cri.logs import log

PROFILE = "cutaway-default"
_ENABLED = Path("/sys/module/apparmor/parameters/enabled")
_LOADED = Path("/sys/kernel/security/apparmor/profiles")
_PARSER_SECONDS = 30

# Everything that a container needs, minus the kernel's switches below /proc and /sys, mounts, and the processes of
# others. Runtimes that are confined themselves must still be able to end a container.
_TEXT = f"""
#include <tunables/global>

profile {PROFILE} flags=(attach_disconnected,mediate_deleted) {{
  #include <abstractions/base>
  network,
  capability,
  file,
  umount,
  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  signal (send,receive) peer={PROFILE},
  ptrace (trace,read,tracedby,readby) peer={PROFILE},

  deny mount,
  deny @{{PROC}}/* w,
  deny @{{PROC}}/{{[^1-9/],[^1-9/][^0-9/],[^1-9s/][^0-9y/][^0-9s/],[^1-9/][^0-9/][^0-9/][^0-9/]*}}/** w,
  deny @{{PROC}}/sys/[^kn]** w,
  deny @{{PROC}}/sys/kernel/{{?,??,[^s][^h][^m]**}} w,
  deny @{{PROC}}/sysrq-trigger rwklx,
  deny @{{PROC}}/kcore rwklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
}}
"""


def enabled() -> bool:
    """Whether the kernel enforces AppArmor."""
    try:
        return _ENABLED.read_text(encoding="ascii").strip() == "Y"
    except OSError:
        return False


def default_profile() -> str:
    """The name of the default profile, loaded now if it was not; "" where it can't be. Blocking."""
    if not enabled():
        return ""
    if _is_loaded():
        return PROFILE
    try:
        done = subprocess.run(
            ["apparmor_parser", "--skip-cache", "--replace"],
            input=_TEXT,
            text=True,
            capture_output=True,
            timeout=_PARSER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("containers run without an AppArmor profile", error=str(error))
        return ""
    if done.returncode != 0 or not _is_loaded():
        log.warning("containers run without an AppArmor profile", error=done.stderr.strip()[-300:])
        return ""
    return PROFILE


def _is_loaded() -> bool:
    try:
        return f"{PROFILE} (" in _LOADED.read_text(encoding="utf-8")
    except OSError:
        return False
