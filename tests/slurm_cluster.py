"""A SLURM of one node for tests, or two: munge, slurmctld and slurmd on the loopback interface, all in one folder."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # where daemons lie, which is not on every user's path
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2
MpiDefault=none
KillWait=10
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 State=UNKNOWN"


@contextmanager
def cluster(folder: Path, nodes: int = 1) -> Iterator[str]:
    """Starts SLURM with its state in `folder` and yields the path of its slurm.conf; stops it at the end.

    Several nodes are several slurmd of this host. With one, MSMREC_SLURM_UP names a script to do that instead:
    `SCRIPT FOLDER` starts and prints `export SLURM_CONF=...`, `SCRIPT --down FOLDER` stops. Skips where there is
    neither the script nor SLURM.
    """
    script = os.environ.get("MSMREC_SLURM_UP")
    if script and nodes == 1:
        said = subprocess.run([script, folder], stdout=subprocess.PIPE, text=True, check=True, timeout=600).stdout
        try:
            yield said.rsplit("SLURM_CONF=", 1)[1].strip()
        finally:
            subprocess.run([script, "--down", folder], check=True, timeout=60)
        return
    if missing := [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(name, path=SBIN)]:
        pytest.skip(f"no {', '.join(missing)} here: install slurm-wlm and munge, or set MSMREC_SLURM_UP to a script")
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(nodes + 1)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    conf, key, host = folder / "slurm.conf", folder / "munge.key", socket.gethostname().split(".")[0]
    names = [host] if nodes == 1 else [f"node{number}" for number in range(nodes)]  # the host's own can be resolved
    lines = [NODE.format(name=name, host=host, port=port) for name, port in zip(names, ports[1:], strict=True)]
    conf.write_text(
        CONF.format(folder=folder, host=host, port=ports[0], user=getpass.getuser(), nodes="\n".join(lines))
    )
    for name in ("state", *(f"spool-{name}" for name in names)):
        (folder / name).mkdir()
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = ["munged", "--force", *(f"--{option}={folder}/munge.{end}" for option, end in files.items())]
    environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": SBIN}
    try:
        for command in (munge, ["slurmctld"], *(["slurmd", "-N", name] for name in names)):
            subprocess.run(command, env=environment, check=True, timeout=60)
        for _ in range(120):
            up = subprocess.run(["sinfo", "-h", "-N", "-o", "%T"], env=environment, capture_output=True, text=True)
            if up.stdout.split() == ["idle"] * nodes:
                break
            time.sleep(0.5)
        else:
            pytest.skip(f"SLURM is installed but its nodes did not come up: {up.stdout}{up.stderr}")
        yield str(conf)
    finally:
        for name in (*(f"slurmd-{name}" for name in names), "slurmctld", "munge"):
            if (pid := folder / f"{name}.pid").exists():
                os.kill(int(pid.read_text()), signal.SIGTERM)
